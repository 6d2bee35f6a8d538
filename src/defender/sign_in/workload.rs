//! The sign-in with somebody else's token, which Entra was told to trust: that of a Kubernetes
//! service account, or of another identity provider (workload identity federation).

use std::path::Path;

use secrecy::SecretString;
use tokio::io::AsyncReadExt as _;

use crate::domain::shown::ShownPath;

/// No token is longer, in bytes.
const LONGEST: u64 = 64 * 1024;

/// The token as it is now: whoever issues it replaces it long before it ends. The error names the
/// file, and nothing of what is in it.
pub(super) async fn token(file: &Path) -> Result<SecretString, String> {
    let shown = ShownPath::new(file);
    let what = "the federated token";
    let mut text = String::new();
    let read = async { tokio::fs::File::open(file).await?.take(LONGEST).read_to_string(&mut text).await };
    if let Err(error) = read.await {
        return Err(format!(
            "{what} in {shown} cannot be read: {error}; check token_file, and that the token is mounted for this service account"
        ));
    }
    let token = text.trim();
    // A JWT is three parts in base64url; anything else is some other file.
    let looks_right = token.split('.').count() == 3
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.=".contains(&byte));
    if !looks_right {
        return Err(format!("what is in {shown} is not a token; check token_file"));
    }
    Ok(token.into())
}
