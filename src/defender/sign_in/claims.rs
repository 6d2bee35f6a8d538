//! What a token says of itself. Read for operators who look for what is missing, and to refuse a token of another
//! directory. Nothing is verified, so nothing is permitted by it, and the token itself goes nowhere.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use uuid::Uuid;

/// The claims of an application's token that help to tell what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The permissions that were consented to, such as `Machine.Scan`.
    pub roles: Vec<String>,
    /// Whose token it is: the application's id.
    pub application: Option<String>,
    /// The application's name, as its directory has it.
    pub name: Option<String>,
    /// The directory that it is good in. None: the token does not say.
    pub directory: Option<Uuid>,
}

/// As Entra writes them (v1 has `appid`, v2 `azp`); without any role there is no claim of that name.
#[derive(Deserialize)]
struct WireClaims {
    #[serde(default)]
    roles: Vec<String>,
    appid: Option<String>,
    azp: Option<String>,
    app_displayname: Option<String>,
    tid: Option<String>,
}

impl Claims {
    /// Reads the middle part of a JWT. None: it is something else, which is Entra's right.
    pub(super) fn read(token: &str) -> Option<Self> {
        let middle = token.split('.').nth(1)?;
        let json = URL_SAFE_NO_PAD.decode(middle.trim_end_matches('=')).ok()?;
        let wire: WireClaims = serde_json::from_slice(&json).ok()?;
        Some(Self {
            roles: wire.roles.iter().map(|role| printable(role)).collect(),
            application: wire.appid.or(wire.azp).as_deref().map(printable),
            name: wire.app_displayname.as_deref().map(printable),
            directory: wire.tid.and_then(|id| id.parse().ok()),
        })
    }
}

/// On one line of a terminal, and no longer than that.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn token(claims: &Value) -> String {
        format!("eyJ0eXAiOiJKV1QifQ.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn both_versions_of_entra_are_read() {
        let one = json!({ "roles": ["Machine.Scan"], "appid": "a", "app_displayname": "x\u{1b}[2J", "tid": Uuid::nil().to_string() });
        let read = Claims::read(&token(&one)).unwrap();
        assert_eq!((read.roles, read.application.as_deref()), (vec!["Machine.Scan".to_owned()], Some("a")));
        assert_eq!((read.name.as_deref(), read.directory), (Some("x[2J"), Some(Uuid::nil())));
        let two = Claims::read(&token(&json!({ "azp": "b", "tid": "contoso" }))).unwrap();
        assert_eq!((two.roles, two.application.as_deref(), two.directory), (vec![], Some("b"), None));
    }

    #[test]
    fn what_is_no_jwt_tells_nothing() {
        for text in ["", "opaque", "a.b.c", "a..c", "a.bnVsbA.c", "a.W10.c", "eyJ.eyJyb2xlcyI6IngifQ.c"] {
            assert_eq!(Claims::read(text), None, "{text}");
        }
    }
}
