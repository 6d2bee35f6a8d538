//! Files that hold what nobody else may know: found, read, and never shown.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use super::Around;
use super::values::Wrong;
use crate::domain::shown::ShownPath;

/// What a file is to hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// In words, with its article.
    pub(super) name: &'static str,
    /// What belongs into the file.
    pub(super) how: &'static str,
}

/// The value of a client secret.
pub(super) const SECRET: Wanted =
    Wanted { name: "the secret", how: "put nothing but the secret's value into the file" };

/// The largest file that is taken for a secret, in bytes.
const LARGEST: u64 = 64 * 1024;

/// Room for that, and for the look at the end of the file.
const CAPACITY: usize = 64 * 1024 + 32;

const READABLE: &str = "check the name, and let the service user read the file";

/// The text of a file, with the place where it was found. A relative name is looked up in
/// `$CREDENTIALS_DIRECTORY`, then beside the configuration. The name is not repeated in errors
/// unless it is absolute: people paste the secret itself.
pub(super) fn read(name: &Path, around: &Around<'_>, wanted: Wanted) -> Result<(SecretString, PathBuf), Wrong> {
    let folders: Vec<PathBuf> = around
        .environment
        .get("CREDENTIALS_DIRECTORY")
        .map(PathBuf::from)
        .into_iter()
        .chain([around.dir.to_path_buf()])
        .collect();
    if name.is_absolute() {
        return match content(name, wanted) {
            Ok(text) => Ok((text, name.to_path_buf())),
            Err(Unusable::Unreadable(error)) => {
                Err(Wrong::new(format!("cannot read {}: {error}", ShownPath::new(&name)), READABLE))
            }
            Err(Unusable::Content(wrong)) => Err(wrong),
        };
    }
    for folder in &folders {
        let path = folder.join(name);
        match content(&path, wanted) {
            Ok(text) => return Ok((text, path)),
            Err(Unusable::Unreadable(error)) if error.kind() == ErrorKind::NotFound => {}
            Err(Unusable::Unreadable(error)) => {
                let what = format!("the file of this name in {} cannot be read: {error}", ShownPath::new(&folder));
                return Err(Wrong::new(what, READABLE));
            }
            Err(Unusable::Content(wrong)) => return Err(wrong),
        }
    }
    let folders: Vec<_> = folders.iter().map(|folder| ShownPath::new(&folder).to_string()).collect();
    Err(Wrong::new(format!("no file of this name is in {}", folders.join(" or ")), READABLE))
}

enum Unusable {
    Unreadable(std::io::Error),
    Content(Wrong),
}

fn content(path: &Path, wanted: Wanted) -> Result<SecretString, Unusable> {
    let unusable = |what: String| Err(Unusable::Content(Wrong::new(what, wanted.how)));
    let metadata = fs::metadata(path).map_err(Unusable::Unreadable)?;
    if !metadata.is_file() {
        return unusable("is not a regular file".to_owned());
    }
    if metadata.len() > LARGEST {
        return unusable(format!("is larger than any {}", wanted.name.trim_start_matches("the ")));
    }
    let bytes = read_to_be_wiped(path).map_err(Unusable::Unreadable)?;
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return unusable(format!("{} is not UTF-8", wanted.name));
    };
    let text = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    if text.trim().is_empty() {
        return unusable(format!("{} is empty", wanted.name));
    }
    Ok(SecretString::from(text))
}

/// What a file holds, up to the largest secret, in memory that is wiped when it is given back. It has its size from the
/// start, because memory that grows leaves copies behind.
pub fn read_to_be_wiped(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(CAPACITY));
    File::open(path)?.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What to warn of when everybody on this machine may read, change or run the file.
pub(super) fn exposed(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o007 != 0).then(|| {
        format!(
            "{} is open to every user of this machine (mode {:04o}); run chmod o= on it",
            ShownPath::new(&path),
            mode & 0o7777
        )
    })
}
