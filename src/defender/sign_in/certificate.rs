//! The sign-in with a certificate: a token of our own, which Entra checks with the public key that
//! was registered (Entra's certificate-credentials page).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::config::Certificate;
use crate::domain::time::Wall;

/// As long as Entra's page says that one should live at most: it is used at once, but clocks differ.
const LIVES: Duration = Duration::from_mins(10);

/// A token that says who we are, to `audience` and nobody else.
pub(super) fn assertion(
    certificate: &Certificate,
    client_id: &str,
    audience: &str,
    now: Wall,
    id: Uuid,
) -> Result<SecretString, String> {
    let seconds = |at: Wall| at.0.div_euclid(1000);
    let header = json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": certificate.thumbprint() });
    let claims = json!({
        "aud": audience,
        "iss": client_id,
        "sub": client_id,
        "jti": id.to_string(),
        "iat": seconds(now),
        "nbf": seconds(now),
        "exp": seconds(now + LIVES),
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&header), part(&claims));
    let signature = certificate.sign(message.as_bytes()).ok_or(
        "the private key makes no signature; write certificate and key anew, since one of them may be damaged",
    )?;
    let whole = Zeroizing::new(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)));
    Ok(SecretString::from(whole.as_str()))
}
