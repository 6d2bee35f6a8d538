//! Files that hold what nobody else may know: found, read, and never shown.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use super::Around;
use super::values::Wrong;
use crate::domain::shown::{ShownPath, is_shapeless};

/// What a file is to hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// In words, with its article.
    pub(super) name: &'static str,
    /// What belongs into the file.
    pub(super) how: &'static str,
    /// How it is written.
    pub(super) form: Form,
}

/// How the content of a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One line that no blank and no quote surrounds: such a character was copied along with the value.
    Word,
    /// One line, which may begin and end with any character.
    Line,
    /// Text of any number of lines, of which the PEM blocks count.
    Pem,
}

/// The value of a client secret: Entra makes it, of ASCII without blanks and quotes.
pub(super) const SECRET: Wanted =
    Wanted { name: "the secret", how: "put nothing but the secret's value into the file", form: Form::Word };

/// What was read.
pub(super) struct Content {
    /// The text, without a byte order mark and without the newline at its end.
    pub(super) text: SecretString,
    /// Where the file was found.
    pub(super) place: PathBuf,
    /// What looks like a mistake, and may be meant.
    pub(super) oddity: Option<String>,
}

/// The largest file that is taken for a secret, in bytes.
const LARGEST: u64 = 64 * 1024;

/// Room for that, and for the look at the end of the file.
const CAPACITY: usize = 64 * 1024 + 32;

const READABLE: &str = "check the name, and let the service user read the file";

/// The content of a file. A relative name is looked up in `$CREDENTIALS_DIRECTORY`, then beside the configuration. The
/// name is not repeated in errors unless it is absolute: people paste the secret itself.
pub(super) fn read(name: &Path, around: &Around<'_>, wanted: Wanted) -> Result<Content, Wrong> {
    let folders: Vec<PathBuf> = around
        .environment
        .get("CREDENTIALS_DIRECTORY")
        .map(PathBuf::from)
        .into_iter()
        .chain([around.dir.to_path_buf()])
        .collect();
    if name.is_absolute() {
        return content(name, wanted).map_err(|unusable| match unusable {
            Unusable::Unreadable(error) => {
                Wrong::new(format!("cannot read {}: {error}", ShownPath::new(&name)), READABLE)
            }
            Unusable::Content(wrong) => wrong,
        });
    }
    for (n, folder) in folders.iter().enumerate() {
        let path = folder.join(name);
        // The second line of packaging/systemd/credentials.conf hands over an empty file in the place of a missing one.
        if n + 1 < folders.len() && is_blank(&path) {
            let what = format!(
                "{} is empty: LoadCredential= names no file that is there, or an empty one, so {} is missing",
                ShownPath::new(&path),
                wanted.name
            );
            let how =
                "put the file where `systemctl show --property=LoadCredential sweepd` says, then restart the service";
            return Err(Wrong::new(what, how));
        }
        match content(&path, wanted) {
            Ok(content) => return Ok(content),
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

/// Whether a file is there, and holds at most a line's end.
fn is_blank(path: &Path) -> bool {
    let is_short = fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() <= 2);
    is_short && read_to_be_wiped(path).is_ok_and(|bytes| bytes.trim_ascii().is_empty())
}

enum Unusable {
    Unreadable(std::io::Error),
    Content(Wrong),
}

fn content(path: &Path, wanted: Wanted) -> Result<Content, Unusable> {
    let unusable = |what: String| Err(Unusable::Content(Wrong::new(what, wanted.how)));
    let metadata = fs::metadata(path).map_err(Unusable::Unreadable)?;
    if !metadata.is_file() {
        return unusable("is not a regular file".to_owned());
    }
    if metadata.len() > LARGEST {
        return unusable(format!("is larger than any {}", wanted.name.trim_start_matches("the ")));
    }
    let bytes = read_to_be_wiped(path).map_err(Unusable::Unreadable)?;
    let (text, oddity) = wanted.text_in(&bytes).map_err(Unusable::Content)?;
    Ok(Content { text: SecretString::from(text), place: path.to_path_buf(), oddity })
}

impl Wanted {
    /// The text that counts, and what is odd about it. No message repeats a part of it.
    fn text_in(self, bytes: &[u8]) -> Result<(&str, Option<String>), Wrong> {
        let Self { name, how, form } = self;
        let wrong = |what: &str| Err(Wrong::new(format!("{name} {what}"), how));
        if is_utf16(bytes) {
            let what = format!("{name} is UTF-16 text, as PowerShell's `>` writes it: no sign-in would accept it");
            return Err(Wrong::new(what, "save the file as UTF-8; in PowerShell with `Set-Content -Encoding utf8`"));
        }
        let Ok(text) = std::str::from_utf8(bytes) else { return wrong("is not UTF-8") };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let text = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
        if text.trim().is_empty() {
            return wrong("is empty");
        }
        if form == Form::Pem {
            return Ok((text, None));
        }
        if text.contains(['\n', '\r']) {
            return wrong("has more than one line: all of them would be sent");
        }
        if text.contains(char::is_control) {
            return wrong("holds a control character, such as a tab, which cannot be part of it");
        }
        let odd = if is_surrounded_by_blanks(text) {
            "begins or ends with a blank or an invisible character"
        } else if is_quoted(text) {
            "stands in quotes"
        } else {
            return Ok((text, None));
        };
        match form {
            Form::Line => {
                Ok((text, Some(format!("{name} {odd}: that is sent as a part of it; if it is not meant, {how}"))))
            }
            Form::Word | Form::Pem => wrong(&format!("{odd}: that would be sent as a part of it, and refused")),
        }
    }
}

/// Whether the bytes are text of two bytes a character: it has the mark of such text, or the zeros that plain letters
/// have in it.
fn is_utf16(bytes: &[u8]) -> bool {
    matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..])
        || matches!(bytes, [first, second, ..] if (*first == 0) != (*second == 0))
}

fn is_surrounded_by_blanks(text: &str) -> bool {
    let is_blank = |c: char| c.is_whitespace() || is_shapeless(c);
    text.starts_with(is_blank) || text.ends_with(is_blank)
}

/// Whether quotes stand around the text: plain ones, or those that word processors put in their place.
fn is_quoted(text: &str) -> bool {
    const PAIRS: [(char, char); 5] =
        [('"', '"'), ('\'', '\''), ('`', '`'), ('\u{201c}', '\u{201d}'), ('\u{2018}', '\u{2019}')];
    PAIRS.iter().any(|(open, close)| text.strip_prefix(*open).is_some_and(|rest| rest.ends_with(*close)))
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
