//! The sign-in with somebody else's token, which Entra was told to trust: that of a Kubernetes
//! service account, or of another identity provider (workload identity federation).

use std::io::Error;
use std::path::Path;

use secrecy::SecretString;

use crate::config::read_to_be_wiped;
use crate::domain::shown::ShownPath;

/// The token as it is now: whoever issues it replaces it long before it ends. The error names the
/// file, and nothing of what is in it.
pub(super) async fn token(file: &Path) -> Result<SecretString, String> {
    let shown = ShownPath::new(file);
    let what = "the federated token";
    let unreadable = |error: Error| {
        format!(
            "{what} in {shown} cannot be read: {error}; check token_file, and that the token is mounted for this service account"
        )
    };
    let path = file.to_owned();
    let read = tokio::task::spawn_blocking(move || read_to_be_wiped(&path));
    let bytes = read.await.unwrap_or_else(|error| Err(error.into())).map_err(unreadable)?;
    // What is no text is no token either.
    let token = std::str::from_utf8(&bytes).unwrap_or_default().trim_start_matches('\u{feff}').trim();
    // A JWT is three parts in base64url; anything else is some other file.
    let looks_right = token.split('.').count() == 3
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.=".contains(&byte));
    if !looks_right {
        return Err(format!("what is in {shown} is not a token; check token_file"));
    }
    Ok(token.into())
}
