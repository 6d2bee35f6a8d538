//! The opening of a dropped file: reached through its folder's descriptor, not followed, not waited for, and copied
//! before anything is believed of it.
//!
//! From here on the copy is read, judged and put away. Whoever dropped the file may change it, or put something else in
//! its place: that changes nothing any more.

use std::fs::{File, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio_util::sync::CancellationToken;

use super::taking::{Refuse, reject};
use crate::domain::time::Wall;
use crate::intake::dir::{Dir, Identity, Kind, Stat};
use crate::intake::folder::Dropped;
use crate::intake::formats::{self, Binary, Header, Options, Unusable};

/// Control characters that stand in lists: tab, line feed, form feed, carriage return, and the mark of an end.
const TEXT_CONTROLS: [u8; 5] = *b"\t\n\x0c\r\x1a";

/// What the names of copies begin with whose files have not been judged yet.
pub const COPY: &str = ".taking-";

/// A file in the drop folder, as it was when it was read.
#[derive(Clone, Debug)]
pub struct Original {
    /// Where it lies.
    pub dropped: Dropped,
    /// What it was.
    pub found: Stat,
}

impl Original {
    /// Whether somebody has written to the file since it was copied: what it is in the end counts. Another file that has
    /// taken its name, or none, says nothing of this one.
    pub fn is_rewritten(&self) -> bool {
        let now = self.dropped.dir.look(&self.dropped.name);
        now.is_ok_and(|now| now.identity == self.found.identity && !self.found.is_unchanged(&now))
    }
}

/// Our own copy of a file; it goes away with this unless it was given a name.
pub struct Copied {
    pub original: Original,
    pub copy: NamedTempFile,
    pub sha256: String,
    /// Whether it can be quoted: an archive or a database is no list, and its bytes are nobody's to read.
    pub is_text: bool,
    /// What it is where it is known not to be text.
    pub binary: Option<Binary>,
}

/// A file that has been copied, and its header read.
pub struct Opened {
    pub copied: Copied,
    pub uid: u32,
    /// Whose it is, how long, and when it was written, for the record.
    pub about: serde_json::Value,
    pub header: Header,
}

/// How files are copied.
#[derive(Clone, Debug)]
pub struct Copying {
    /// Where the copies lie: a folder that droppers cannot write to.
    pub folder: std::path::PathBuf,
    /// The longest file that is taken, in bytes.
    pub at_most: u64,
    /// Ends the copying.
    pub stop: CancellationToken,
}

impl Copying {
    /// Copies a file and hashes it. `listed` is which file it has to be.
    pub fn copy(&self, dropped: &Dropped, listed: Option<Identity>) -> Result<Copied, Refuse> {
        let later = |why: &str| Err(Refuse::Later(why.to_owned()));
        let mut file = dropped.dir.file(&dropped.name)?;
        let found = Stat::of_file(&file)?;
        if found.kind != Kind::File {
            return later("it is no regular file any more");
        }
        if listed.is_some_and(|listed| listed != found.identity) {
            return later("another file has taken its place while it was looked at");
        }
        if found.links != 1 {
            return later(
                "it is known under several names (hard links), so others could change it; put a copy here instead",
            );
        }
        if found.size > self.at_most {
            let (size, at_most) = (found.size, self.at_most);
            let why =
                format!("the file has {size} bytes, more than max_file_size ({at_most}); split it, or raise the limit");
            return Err(reject(why));
        }
        let mut copy = tempfile::Builder::new().prefix(COPY).suffix(".tmp").tempfile_in(&self.folder)?;
        let (sha256, is_text) = self.pour(&mut file, copy.as_file_mut())?;
        if !found.is_unchanged(&Stat::of_file(&file)?) {
            return later("it changed while it was being read; close it, or rename it into place when it is whole");
        }
        // Temporary files are made for their owner alone.
        copy.as_file().set_permissions(Permissions::from_mode(0o640))?;
        Dir::trusted(&self.folder)?.adopt(copy.as_file())?;
        copy.as_file().sync_all()?;
        copy.as_file_mut().rewind()?;
        Ok(Copied { original: Original { dropped: dropped.clone(), found }, copy, sha256, is_text, binary: None })
    }

    /// Whether a file with this SHA-256 lies there. It needs no room on the disk, so that a full one is no answer.
    pub fn is_there(&self, dropped: &Dropped, sha256: &str) -> bool {
        let Ok(mut file) = dropped.dir.file(&dropped.name) else { return false };
        Stat::of_file(&file).is_ok_and(|found| found.kind == Kind::File)
            && self.pour(&mut file, &mut io::sink()).is_ok_and(|(found, _)| found == sha256)
    }

    /// Copies what there is; no more than may be, however the file grows meanwhile.
    fn pour(&self, from: &mut File, to: &mut impl Write) -> Result<(String, bool), Refuse> {
        let mut hash = Sha256::new();
        let (mut is_text, mut is_wide) = (true, false);
        let (mut buffer, mut length) = (vec![0; 64 * 1024], 0);
        loop {
            if self.stop.is_cancelled() {
                return Err(Refuse::Later("the taking of files is stopped".to_owned()));
            }
            let n = from.read(&mut buffer)?;
            let Some(read) = buffer.get(..n).filter(|read| !read.is_empty()) else {
                return Ok((format!("{:x}", hash.finalize()), is_text));
            };
            // UTF-16 has zeros in it.
            is_wide |= length == 0 && (read.starts_with(&[0xff, 0xfe]) || read.starts_with(&[0xfe, 0xff]));
            is_text &= is_wide || !read.iter().any(|byte| byte.is_ascii_control() && !TEXT_CONTROLS.contains(byte));
            length += read.len() as u64;
            if length > self.at_most {
                return Err(Refuse::Later(format!(
                    "it grows while it is read, to more than max_file_size ({})",
                    self.at_most
                )));
            }
            hash.update(read);
            to.write_all(read)?;
        }
    }
}

/// Copies a file, and reads its header.
pub fn open(dropped: &Dropped, listed: Identity, copying: &Copying, options: Options) -> Result<Opened, Refuse> {
    let mut copied = copying.copy(dropped, Some(listed))?;
    let header = match formats::header(&dropped.name.to_string_lossy(), copied.copy.as_file(), &options) {
        Ok(header) => header,
        Err(Unusable::Read(error)) => return Err(error.into()),
        Err(Unusable::Binary(binary)) => {
            copied.binary = Some(binary);
            Header::default()
        }
        // The full reading says it again, with the counts: here it is enough that it is no header.
        Err(_) => Header::default(),
    };
    copied.copy.as_file_mut().rewind()?;
    let found = &copied.original.found;
    let time = |seconds: i64| Wall(seconds.saturating_mul(1000)).rfc3339();
    let about = serde_json::json!({
        "uid": found.uid, "size": found.size, "modified_at": time(found.modified.0), "changed_at": time(found.changed),
    });
    Ok(Opened { uid: found.uid, about, header, copied })
}

/// Removes what a kill left of copies that were not put away: their files still lie where they were dropped.
pub fn remove_left_copies(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(COPY.as_bytes()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::intake::dir::Dir;

    /// A drop folder with one file, and how it is copied.
    fn scene(content: &[u8], at_most: u64) -> (tempfile::TempDir, Dropped, Copying) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("copies")).unwrap();
        std::fs::create_dir(dir.path().join("incoming")).unwrap();
        std::fs::write(dir.path().join("incoming/list.txt"), content).unwrap();
        let incoming = Arc::new(Dir::trusted(&dir.path().join("incoming")).unwrap());
        let copying = Copying { folder: dir.path().join("copies"), at_most, stop: CancellationToken::new() };
        (dir, Dropped { dir: incoming, name: "list.txt".into() }, copying)
    }

    fn why(copied: Result<Copied, Refuse>) -> String {
        copied.map(|copied| copied.sha256).unwrap_err().why().to_owned()
    }

    #[test]
    fn growing_file_is_read_no_further_than_may_be_and_put_off() {
        let (_dir, dropped, copying) = scene(&vec![b'x'; 200_000], 100_000);
        assert!(matches!(copying.copy(&dropped, None), Err(Refuse::Reject(..))), "its length says it");
        // It was shorter when it was looked at.
        let (mut from, mut to) = (dropped.dir.file(&dropped.name).unwrap(), tempfile::tempfile().unwrap());
        let refused = copying.pour(&mut from, &mut to).unwrap_err();
        assert!(matches!(refused, Refuse::Later(_)) && refused.why().contains("grows while it is read"));
        assert!(to.metadata().unwrap().len() <= 100_000, "no more than that is kept");
        assert_eq!(std::fs::read_dir(&copying.folder).unwrap().count(), 0, "no copy is left");
    }

    #[test]
    fn stop_ends_the_copying_between_two_reads() {
        let (_dir, dropped, copying) = scene(&vec![b'x'; 200_000], 1_000_000);
        assert!(copying.copy(&dropped, None).is_ok());
        copying.stop.cancel();
        assert!(why(copying.copy(&dropped, None)).contains("stopped"));
    }

    #[test]
    fn file_is_the_one_that_was_listed_and_has_one_name() {
        let (dir, dropped, copying) = scene(b"one\n", 100);
        let listed = dropped.dir.look(&dropped.name).unwrap().identity;
        let copied = copying.copy(&dropped, Some(listed)).unwrap();
        assert!(copied.is_text && !copied.original.is_rewritten());
        assert!(copying.is_there(&dropped, &copied.sha256) && !copying.is_there(&dropped, "another"));
        std::fs::write(dir.path().join("incoming/list.txt"), "one, and more").unwrap();
        assert!(copied.original.is_rewritten());
        std::fs::hard_link(dir.path().join("incoming/list.txt"), dir.path().join("second")).unwrap();
        assert!(why(copying.copy(&dropped, Some(listed))).contains("hard links"));
        std::fs::rename(dir.path().join("second"), dir.path().join("incoming/other.txt")).unwrap();
        std::fs::remove_file(dir.path().join("incoming/list.txt")).unwrap();
        std::fs::write(dir.path().join("incoming/list.txt"), "another").unwrap();
        assert!(why(copying.copy(&dropped, Some(listed))).contains("another file has taken its place"));
        assert!(!copied.original.is_rewritten(), "another file says nothing of this one");
    }

    #[test]
    fn what_is_no_text_is_found() {
        for (content, is_text) in [
            (&b"id,name\r\n\x0cx\x1a"[..], true),
            ("Gr\u{f6}\u{df}e \u{5317}".as_bytes(), true),
            (b"\xff\xfea\0\n\0", true),
            (b"PK\x03\x04 an archive", false),
            (b"SQLite format 3\0", false),
            (b"\x1b[1m", false),
        ] {
            let (_dir, dropped, copying) = scene(content, 100);
            assert_eq!(copying.copy(&dropped, None).unwrap().is_text, is_text, "{content:?}");
        }
    }
}
