//! What comes back for every file: how its lines were counted, and why some were refused.

use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::dir::Dir;
use super::formats::{Refusal, Submitter, Whole};

/// Refusals that a receipt lists one by one; the rest are counted.
const LISTED: usize = 1000;

/// Lines that the receipt of a rejected file quotes, and how much of each, in characters.
const QUOTED_LINES: usize = 5;
const QUOTED_CHARS: usize = 80;

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its machines are in the queue.
    Taken,
    /// It could not be used at all.
    Rejected,
    /// It is in the queue, and waits for `sweepd sweep release`.
    Held,
    /// The same content was dropped before, and its sweep is not finished.
    AlreadyTaken,
}

/// A refused line, as a receipt lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Where.
    pub line: u64,
    /// What was read.
    pub text: String,
    /// Why it cannot be used.
    pub reason: String,
}

/// The names are the contract's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub struct Receipt {
    pub file: String,
    pub sha256: String,
    pub sweep_id: Option<String>,
    pub tenant: Option<String>,
    pub received_at: String,
    /// Of the file, as it was opened: whose it is, how long, and when it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<serde_json::Value>,
    /// Who submitted it, as it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<Submitter>,
    /// Lines of the file as `wc -l` and an editor count them, a last one without an end included; none where the file
    /// was not read to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub physical_lines: Option<u64>,
    pub lines: u64,
    pub queued: u64,
    pub joined: u64,
    pub duplicates: u64,
    pub not_eligible: u64,
    pub refused: u64,
    /// Of the machines that are queued or joined, so many get a Quick scan, and so many a Full one.
    #[serde(default)]
    pub quick: u64,
    #[serde(default)]
    pub full: u64,
    /// So many of them wait for their `not_before`; the first and the last of these times.
    #[serde(default)]
    pub waiting: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earliest_not_before: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_not_before: Option<String>,
    pub refusals: Vec<Refused>,
    /// Refusals that are not listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refusals_not_listed: u64,
    pub status: Status,
    /// In words, where there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was read otherwise than may be meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// What the reading of a file found, beside the counts.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Lines that cannot be used.
    pub refusals: Refusals,
    /// All lines of the file; none where it was not read to its end.
    pub physical_lines: Option<u64>,
    /// Lines in which a quote that is not closed was read as text.
    pub loose_quotes: u64,
    /// What was read otherwise than may be meant.
    pub warnings: Vec<String>,
}

impl Findings {
    /// What the end of the reading adds.
    pub fn end(&mut self, whole: Whole) {
        self.physical_lines = Some(whole.physical_lines);
        self.loose_quotes = whole.loose_quotes;
        self.warnings = whole.header.warnings.into_texts();
    }
}

/// Refusals as they come, the first of them kept.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    listed: Vec<Refused>,
    count: u64,
}

impl Refusals {
    /// One more.
    pub fn add(&mut self, refusal: Refusal) {
        self.count += 1;
        if self.listed.len() < LISTED {
            self.listed.push(Refused { line: refusal.line, text: refusal.text, reason: refusal.reason });
        }
    }

    /// How many.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Why the first was refused.
    pub fn first(&self) -> Option<&Refused> {
        self.listed.first()
    }

    /// Those of a file that was rejected: it may be anything, put there by mistake. A few short lines are quoted, and
    /// nothing of what is no text.
    #[must_use]
    pub fn of_rejected(mut self, is_text: bool) -> Self {
        self.listed.truncate(QUOTED_LINES);
        for refused in &mut self.listed {
            // What could not be decoded or shown was replaced by this mark.
            let is_quoted = is_text && !refused.text.contains(char::REPLACEMENT_CHARACTER);
            refused.text = refused.text.chars().take(if is_quoted { QUOTED_CHARS } else { 0 }).collect();
        }
        self
    }

    /// Those to list, and how many are not.
    pub fn into_listed(self) -> (Vec<Refused>, u64) {
        let rest = self.count.saturating_sub(self.listed.len() as u64);
        (self.listed, rest)
    }
}

/// Writes a file whole or not at all: under a name that nobody looks for, then renamed, on disk
/// before this returns.
pub fn write_whole(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    write_aside(path, write)?.reveal()
}

/// A file that is on disk under a name that nobody looks for.
#[derive(Debug)]
pub struct Aside {
    unfinished: std::path::PathBuf,
    path: std::path::PathBuf,
}

impl Aside {
    /// One that an earlier run left at `unfinished`, whole, to be called `path`.
    pub const fn left(unfinished: std::path::PathBuf, path: std::path::PathBuf) -> Self {
        Self { unfinished, path }
    }

    /// Takes it away again.
    pub fn withdraw(self) -> io::Result<()> {
        std::fs::remove_file(self.unfinished)
    }

    /// Gives it its name. On disk, with whatever else was renamed in its folder, when this returns.
    pub fn reveal(self) -> io::Result<()> {
        std::fs::rename(&self.unfinished, &self.path)?;
        sync_folder(self.path.parent().unwrap_or(Path::new(".")))
    }
}

/// The first half of [`write_whole`].
pub fn write_aside(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<Aside> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default();
    let mut unfinished = std::ffi::OsString::from(".");
    unfinished.push(name);
    unfinished.push(".tmp");
    let unfinished = folder.join(unfinished);
    let file = std::fs::File::create(&unfinished)?;
    Dir::trusted(folder)?.adopt(&file)?;
    let mut file = io::BufWriter::new(file);
    write(&mut file)?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(Aside { unfinished, path: path.to_owned() })
}

/// Makes a rename in this folder last.
fn sync_folder(folder: &Path) -> io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_of_refusals_are_cut_and_the_rest_counted() {
        let mut refusals = Refusals::default();
        for line in 1..=1234 {
            refusals.add(Refusal { line, text: "x".into(), reason: "y".into() });
        }
        let (listed, rest) = refusals.into_listed();
        assert_eq!((listed.len(), rest), (1000, 234));
    }

    #[test]
    fn rejected_files_are_hardly_quoted() {
        let mut refusals = Refusals::default();
        for line in 1..=50 {
            refusals.add(Refusal { line, text: "x".repeat(200), reason: "y".into() });
        }
        let lengths = |is_text| {
            let (listed, rest) = refusals.clone().of_rejected(is_text).into_listed();
            (listed.iter().map(|refused| refused.text.len()).collect::<Vec<_>>(), rest)
        };
        assert_eq!(lengths(true), (vec![80; 5], 45));
        assert_eq!(lengths(false), (vec![0; 5], 45));
        let mut refusals = Refusals::default();
        refusals.add(Refusal { line: 1, text: "caf\u{fffd}".into(), reason: "y".into() });
        assert_eq!(refusals.of_rejected(true).into_listed().0[0].text, "", "nor what could not be decoded");
    }

    #[test]
    fn a_file_is_written_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list.txt.receipt.json");
        assert!(write_whole(&path, |_| Err(io::Error::other("full"))).is_err());
        assert!(!path.exists());
        write_whole(&path, |out| out.write_all(b"{}")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"{}");
    }
}
