//! Who submitted a document, as the document says: a claim of whoever wrote the file, and never more.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::shown::is_shapeless;

/// The longest name of a host, in characters: what the domain name system allows.
const HOST_MAX: usize = 253;

/// What `sweepd submit` writes of the operator, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submitter {
    /// The user the command ran as.
    pub uid: u32,
    /// The user who logged in.
    #[serde(default)]
    pub login_uid: Option<u32>,
    /// The host.
    pub host: String,
}

/// The value of `submitted_by`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Claim {
    /// There is none.
    #[default]
    None,
    /// It has the shape that `sweepd submit` writes.
    Made(Submitter),
    /// It has another: it is ignored, and nothing of it is kept.
    Shapeless,
}

impl Claim {
    /// Reads the value. The machines of a document are not refused for it.
    pub fn of(said: &Value) -> Self {
        match Submitter::deserialize(said) {
            // serde takes a list for an object too.
            Ok(submitter) if said.is_object() && is_host(&submitter.host) => Self::Made(submitter),
            _ => Self::Shapeless,
        }
    }

    /// What is claimed, if it can be kept.
    pub const fn submitter(&self) -> Option<&Submitter> {
        match self {
            Self::Made(submitter) => Some(submitter),
            Self::None | Self::Shapeless => None,
        }
    }
}

fn is_host(name: &str) -> bool {
    !name.is_empty() && name.chars().count() <= HOST_MAX && !name.chars().any(is_shapeless)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_submit_writes_is_a_claim_and_nothing_else_is() {
        let made = |uid, login_uid, host: &str| Claim::Made(Submitter { uid, login_uid, host: host.to_owned() });
        for (said, expected) in [
            (json!({ "uid": 0, "login_uid": 1000, "host": "web-1" }), made(0, Some(1000), "web-1")),
            (json!({ "uid": 7, "login_uid": null, "host": "?" }), made(7, None, "?")),
            (json!({ "uid": 7, "host": "web-1" }), made(7, None, "web-1")),
            (json!({ "uid": u32::MAX, "host": "h".repeat(HOST_MAX) }), made(u32::MAX, None, &"h".repeat(HOST_MAX))),
            (json!({ "uid": 7, "host": "h".repeat(HOST_MAX + 1) }), Claim::Shapeless),
            (json!({ "uid": 7, "host": "" }), Claim::Shapeless),
            (json!({ "uid": 7, "host": "a\nb" }), Claim::Shapeless),
            (json!({ "uid": 7, "host": "\u{202e}a" }), Claim::Shapeless),
            (json!({ "uid": 7, "host": ["web-1"] }), Claim::Shapeless),
            (json!({ "uid": 7, "host": "web-1", "why": "marker" }), Claim::Shapeless),
            (json!({ "uid": "0", "host": "web-1" }), Claim::Shapeless),
            (json!({ "uid": -1, "host": "web-1" }), Claim::Shapeless),
            (json!({ "uid": 1.5, "host": "web-1" }), Claim::Shapeless),
            (json!({ "uid": 4_294_967_296_u64, "host": "web-1" }), Claim::Shapeless),
            (json!({ "host": "web-1" }), Claim::Shapeless),
            (json!({ "uid": 0 }), Claim::Shapeless),
            (json!("root"), Claim::Shapeless),
            (json!([0, 1000, "web-1"]), Claim::Shapeless),
            (json!(0), Claim::Shapeless),
        ] {
            assert_eq!(Claim::of(&said), expected, "{said}");
        }
    }
}
