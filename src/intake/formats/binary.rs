//! Files that are no text, recognised by their first bytes: they are named, instead of each of their lines.

use std::fmt;

/// As many bytes as are looked at.
pub const LOOKED_AT: usize = 64;

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// Excel's, or another of Office's.
    Workbook,
    /// The same of before 2007.
    OldWorkbook,
    /// A document of `LibreOffice`'s.
    OpenDocument,
    /// An archive, of this kind.
    Archive(&'static str),
    Pdf,
}

/// Where the name of the first file stands in a zip.
const NAME_IN_ZIP: usize = 30;

impl Binary {
    /// The kind of file that begins so; `None` if it may be text.
    pub fn of(begin: &[u8]) -> Option<Self> {
        const ARCHIVES: [(&[u8], &str); 6] = [
            (b"PK\x03\x04", "zip"),
            (b"PK\x05\x06", "zip"),
            (b"\x1f\x8b", "gzip"),
            (b"7z\xbc\xaf\x27\x1c", "7z"),
            (b"\xfd7zXZ\0", "xz"),
            (b"\x28\xb5\x2f\xfd", "zstd"),
        ];
        if begin.starts_with(b"%PDF-") {
            return Some(Self::Pdf);
        }
        if begin.starts_with(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1") {
            return Some(Self::OldWorkbook);
        }
        let (_, kind) = ARCHIVES.into_iter().find(|(magic, _)| begin.starts_with(magic))?;
        let first = begin.get(NAME_IN_ZIP..).unwrap_or_default();
        let has_first = |names: &[&str]| kind == "zip" && names.iter().any(|name| first.starts_with(name.as_bytes()));
        Some(if has_first(&["[Content_Types].xml", "_rels/", "docProps/", "xl/"]) {
            Self::Workbook
        } else if has_first(&["mimetypeapplication/vnd.oasis"]) {
            Self::OpenDocument
        } else {
            Self::Archive(kind)
        })
    }
}

impl fmt::Display for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SAVE: &str =
            "no machine can be read from it; save the sheet as CSV (in Excel: `CSV UTF-8`) and drop that";
        match self {
            Self::Workbook => write!(f, "the file is an Excel workbook or another Office document (.xlsx): {SAVE}"),
            Self::OldWorkbook => write!(f, "the file is an old Excel workbook or Office document (.xls): {SAVE}"),
            Self::OpenDocument => write!(f, "the file is a LibreOffice document (.ods): {SAVE}"),
            Self::Archive(kind) => {
                write!(
                    f,
                    "the file is a {kind} archive: no machine can be read from it; unpack it and drop what is in it"
                )
            }
            Self::Pdf => f.write_str(
                "the file is a PDF: no machine can be read from it; export the list as CSV or text and drop that",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zip_of(first: &str) -> Vec<u8> {
        [b"PK\x03\x04\x14\0\x06\0\x08\0", &[0; 20][..], first.as_bytes()].concat()
    }

    #[test]
    fn kinds_are_known_by_their_first_bytes() {
        for (begin, kind) in [
            (zip_of("[Content_Types].xml"), Binary::Workbook),
            (zip_of("mimetypeapplication/vnd.oasis.opendocument.spreadsheet"), Binary::OpenDocument),
            (zip_of("fleet.csv"), Binary::Archive("zip")),
            (b"PK\x05\x06".to_vec(), Binary::Archive("zip")),
            (b"\x1f\x8b\x08".to_vec(), Binary::Archive("gzip")),
            (b"%PDF-1.7\n".to_vec(), Binary::Pdf),
            (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".to_vec(), Binary::OldWorkbook),
        ] {
            assert_eq!(Binary::of(&begin), Some(kind));
            assert!(kind.to_string().contains(": no machine can be read from it; "));
        }
        for text in ["", "PK", "PK-0042\n", "%PD", "machine_id\n", "7z\n", "\u{feff}id\n"] {
            assert_eq!(Binary::of(text.as_bytes()), None, "{text:?}");
        }
    }
}
