//! Which files were renamed into place, as far as anybody saw: such a file is whole. Only a hint: one that is not
//! noted, or was forgotten, has to settle like any other.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// So many are noted in each folder. With more of them, those that are found later settle while they wait.
const MOST: usize = 4096;

/// Names, by folder.
#[derive(Clone, Debug, Default)]
pub struct Moved(HashMap<PathBuf, HashSet<OsString>>);

impl Moved {
    /// A file was renamed into place.
    pub fn note(&mut self, path: &Path) {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return };
        if !self.0.contains_key(folder) {
            self.0.insert(folder.to_owned(), HashSet::new());
        }
        if let Some(names) = self.0.get_mut(folder)
            && names.len() < MOST
        {
            names.insert(name.to_owned());
        }
    }

    /// Notes all of these.
    pub fn extend(&mut self, others: Self) {
        for (folder, names) in others.0 {
            for name in names {
                self.note(&folder.join(name));
            }
        }
    }

    /// Whether this one was.
    pub fn contains(&self, path: &Path) -> bool {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return false };
        self.0.get(folder).is_some_and(|names| names.contains(name))
    }

    /// The next file of this name is another one.
    pub fn forget(&mut self, path: &Path) {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return };
        if let Some(names) = self.0.get_mut(folder) {
            names.remove(name);
        }
    }

    /// Forgets those in a folder that are not in `present`.
    pub fn keep(&mut self, folder: &Path, present: &HashSet<OsString>) {
        if let Some(names) = self.0.get_mut(folder) {
            names.retain(|name| present.contains(name));
        }
    }
}

impl FromIterator<PathBuf> for Moved {
    fn from_iter<I: IntoIterator<Item = PathBuf>>(paths: I) -> Self {
        let mut moved = Self::default();
        paths.into_iter().for_each(|path| moved.note(&path));
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_of_a_folder_is_bounded_and_keeps_nobody_elses_out() {
        let mut moved: Moved = (0..MOST + 10).map(|n| PathBuf::from(format!("a/{n}"))).collect();
        moved.note(Path::new("b/1"));
        let noted = |moved: &Moved, folder: &str| {
            (0..MOST + 10).filter(|n| moved.contains(&Path::new(folder).join(n.to_string()))).count()
        };
        assert_eq!((noted(&moved, "a"), noted(&moved, "b")), (MOST, 1));
        moved.forget(Path::new("a/0"));
        moved.note(Path::new("a/4100"));
        assert!(moved.contains(Path::new("a/4100")), "there is room again");
        moved.keep(Path::new("a"), &HashSet::from([OsString::from("1")]));
        assert_eq!((noted(&moved, "a"), noted(&moved, "b")), (1, 1));
    }
}
