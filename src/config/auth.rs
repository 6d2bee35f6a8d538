//! How a tenant signs in, and the secrets for it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::Around;
use super::reader::Section;
use super::values::{self, Wrong};

/// How a tenant signs in.
#[derive(Clone, Debug)]
pub enum Auth {
    /// An app registration with a client secret.
    ClientSecret {
        /// The application's id.
        client_id: String,
        /// The secret's value.
        secret: SecretString,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    ClientSecret,
    ClientCertificate,
    ManagedIdentity,
    WorkloadIdentity,
}

crate::domain::sweep::words!(Method {
    ClientSecret = "client_secret",
    ClientCertificate = "client_certificate",
    ManagedIdentity = "managed_identity",
    WorkloadIdentity = "workload_identity",
});

/// The largest file that is taken for a secret, in bytes.
const LARGEST: u64 = 64 * 1024;

const READABLE: &str = "check the name, and let the service user read the file";

impl Auth {
    /// Reads `[tenants.X.auth]` and the secret that it names.
    pub(super) fn read(section: &mut Section<'_, '_>, around: &Around<'_>) -> Option<Self> {
        let method = section.key("method", "client_secret", values::word::<Method>);
        if let Some(method) = method.filter(|method| *method != Method::ClientSecret) {
            section.ignore_rest();
            section.complain(
                "method",
                Wrong::new(format!("{method} is not available in this version"), "use client_secret"),
            );
            return None;
        }
        let client_id = section.required("client_id", "write the application (client) id", values::text);
        let file = section.required("secret_file", "name the file that holds the client secret", values::path);
        if !around.environment.reads_secrets {
            return Some(Self::ClientSecret { client_id: client_id?, secret: SecretString::default() });
        }
        let secret = file.and_then(|file| match secret(&file, around) {
            Ok((secret, place)) => {
                if let Some(warning) = exposed(&place) {
                    section.warn("secret_file", &warning);
                }
                Some(secret)
            }
            Err(wrong) => {
                section.complain("secret_file", wrong);
                None
            }
        });
        method?;
        Some(Self::ClientSecret { client_id: client_id?, secret: secret? })
    }
}

/// The secret in a file, with the place where it was found. A relative name is looked up in
/// `$CREDENTIALS_DIRECTORY`, then beside the configuration. The name is not repeated in errors
/// unless it is absolute: people paste the secret itself.
fn secret(name: &Path, around: &Around<'_>) -> Result<(SecretString, PathBuf), Wrong> {
    let folders: Vec<PathBuf> = around
        .environment
        .get("CREDENTIALS_DIRECTORY")
        .map(PathBuf::from)
        .into_iter()
        .chain([around.dir.to_path_buf()])
        .collect();
    if name.is_absolute() {
        return match content(name) {
            Ok(secret) => Ok((secret, name.to_path_buf())),
            Err(Unusable::Unreadable(error)) => {
                Err(Wrong::new(format!("cannot read {}: {error}", name.display()), READABLE))
            }
            Err(Unusable::Content(wrong)) => Err(wrong),
        };
    }
    for folder in &folders {
        let path = folder.join(name);
        match content(&path) {
            Ok(secret) => return Ok((secret, path)),
            Err(Unusable::Unreadable(error)) if error.kind() == ErrorKind::NotFound => {}
            Err(Unusable::Unreadable(error)) => {
                let what = format!("the file of this name in {} cannot be read: {error}", folder.display());
                return Err(Wrong::new(what, READABLE));
            }
            Err(Unusable::Content(wrong)) => return Err(wrong),
        }
    }
    let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
    Err(Wrong::new(format!("no file of this name is in {}", folders.join(" or ")), READABLE))
}

enum Unusable {
    Unreadable(std::io::Error),
    Content(Wrong),
}

fn content(path: &Path) -> Result<SecretString, Unusable> {
    const HOW: &str = "put nothing but the secret's value into the file";
    let metadata = fs::metadata(path).map_err(Unusable::Unreadable)?;
    if !metadata.is_file() {
        return Err(Unusable::Content(Wrong::new("is not a regular file", HOW)));
    }
    if metadata.len() > LARGEST {
        return Err(Unusable::Content(Wrong::new("is larger than any secret", HOW)));
    }
    let bytes = fs::read(path).map_err(Unusable::Unreadable)?;
    let Ok(mut text) = String::from_utf8(bytes) else {
        return Err(Unusable::Content(Wrong::new("the secret is not UTF-8", HOW)));
    };
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.trim().is_empty() {
        return Err(Unusable::Content(Wrong::new("the secret is empty", HOW)));
    }
    Ok(SecretString::from(text))
}

/// What to warn of when everybody on this machine may read, change or run the file.
fn exposed(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o007 != 0).then(|| {
        format!(
            "{} is open to every user of this machine (mode {:04o}); run chmod o= on it",
            path.display(),
            mode & 0o7777
        )
    })
}
