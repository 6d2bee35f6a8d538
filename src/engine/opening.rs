//! The opening of a dropped file: not followed, not waited for, hashed before anything is believed of it.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::taking::{Refuse, reject};
use crate::domain::time::Wall;
use crate::intake::formats::{self, Header, Options, Unusable};

/// A file that has been opened and hashed.
pub struct Opened {
    pub file: File,
    pub sha256: String,
    pub uid: u32,
    /// Whose it is, how long, and when it was written, for the record.
    pub about: serde_json::Value,
    pub header: Header,
}

/// The SHA-256 of a file's content, in hexadecimal digits.
pub fn sha256_of(path: &Path) -> io::Result<String> {
    hash(&mut open_plainly(path)?)
}

/// Not followed, and not waited for: what was a file a moment ago may be a link or a pipe now.
pub fn open_plainly(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_CLOEXEC;
    std::fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

fn hash(file: &mut File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(format!("{:x}", hash.finalize()));
        }
        hash.update(buffer.get(..n).unwrap_or_default());
    }
}

/// Opens a file, hashes it, and reads its header.
pub fn open(path: &Path, name: &str, at_most: u64, options: Options) -> Result<Opened, Refuse> {
    use std::os::unix::fs::MetadataExt;
    let mut file = open_plainly(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Refuse::Later("it is no regular file any more".to_owned()));
    }
    if metadata.len() > at_most {
        return Err(reject(format!(
            "the file has {} bytes, more than max_file_size ({at_most}); split it, or raise the limit",
            metadata.len()
        )));
    }
    let sha256 = hash(&mut file)?;
    file.rewind()?;
    let header = match formats::header(name, &file, &options) {
        Ok(header) => header,
        Err(Unusable::Read(error)) => return Err(error.into()),
        // The full reading says it again, with the counts: here it is enough that it is no header.
        Err(_) => Header::default(),
    };
    file.rewind()?;
    let time = |seconds: i64| Wall(seconds.saturating_mul(1000)).rfc3339();
    let about = serde_json::json!({
        "uid": metadata.uid(), "size": metadata.len(),
        "modified_at": time(metadata.mtime()), "changed_at": time(metadata.ctime()),
    });
    Ok(Opened { file, sha256, uid: metadata.uid(), about, header })
}
