//! What an event says, and that it is never more than a few KiB.
//!
//! The record stays for years, and whoever drops files, answers calls or gives reasons writes to it. So the body of an
//! event has a bound by its kind, here and nowhere else: what is longer is cut, its strings first, and then says how
//! long it was and what its SHA-256 was.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::events::{Kind, hex};

/// The longest body of an event, in bytes.
const MOST: usize = 4 * 1024;

/// The same where it is evidence: what Defender, its sign-in or a proxy answered, and the actions that Defender lists.
/// The client keeps up to 16 KiB of an answer; quotes in it take an escape.
const MOST_EVIDENCE: usize = 24 * 1024;

/// No string is cut below this: hashes and ids stay whole.
const LEAST: usize = 64;

/// So deep and so many entries are kept of what is cut.
const DEEP: usize = 6;
const ENTRIES: usize = 32;

impl Kind {
    /// The longest body that an event of this kind has, in bytes.
    pub const fn longest_body(self) -> usize {
        match self {
            Self::AttemptAnswered | Self::ActionSeen | Self::CallMade | Self::CancelEnded => MOST_EVIDENCE,
            _ => MOST,
        }
    }
}

/// The text of an event's body, which is hashed: as it is, or cut to what an event of this kind may have.
pub(super) fn text_of(kind: Kind, body: &Value) -> String {
    let (whole, most) = (body.to_string(), kind.longest_body());
    if whole.len() <= most {
        return whole;
    }
    let cut = json!({ "bytes": whole.len(), "sha256": hex(&Sha256::digest(whole.as_bytes())) });
    let mut longest = most;
    while longest >= LEAST {
        let mut less = shortened(body, longest, DEEP);
        if let Value::Object(fields) = &mut less {
            fields.insert("cut".to_owned(), cut.clone());
            let text = less.to_string();
            if text.len() <= most {
                return text;
            }
        }
        longest /= 2;
    }
    json!({ "cut": cut }).to_string()
}

/// The same with no string longer than so many bytes, and not too deep or wide.
fn shortened(value: &Value, longest: usize, deep: usize) -> Value {
    match value {
        Value::String(text) => short(text, longest).into(),
        Value::Array(_) | Value::Object(_) if deep == 0 => "…".into(),
        Value::Array(items) => {
            items.iter().take(ENTRIES).map(|item| shortened(item, longest, deep - 1)).collect::<Vec<_>>().into()
        }
        Value::Object(fields) => {
            let some = fields.iter().take(ENTRIES);
            some.map(|(key, value)| (short(key, LEAST), shortened(value, longest, deep - 1)))
                .collect::<Map<_, _>>()
                .into()
        }
        plain => plain.clone(),
    }
}

/// The start of a text, in whole characters, with a mark where it was cut.
pub(super) fn short(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let end = (0..=longest).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    format!("{}…", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_body() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[a-z]{0,40}",
            ("[\\x00-\\x1f\"\\\\äé機😀]{1,8}", 0..6000_usize).prop_map(|(some, times)| some.repeat(times)),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(8, 200, 40, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..40).prop_map(Value::from),
                prop::collection::btree_map(text.clone(), inner, 0..40)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_event_of_any_kind_is_longer_than_its_bound(body in any_body()) {
            let whole = body.to_string();
            for kind in Kind::ALL {
                let text = text_of(*kind, &body);
                prop_assert!(text.len() <= kind.longest_body(), "{kind}: {} bytes", text.len());
                let read: Value = serde_json::from_str(&text).unwrap();
                if whole.len() <= kind.longest_body() {
                    prop_assert_eq!(&text, &whole, "what is short enough stays as it is");
                } else {
                    prop_assert_eq!(&read["cut"]["bytes"], whole.len());
                    prop_assert_eq!(&read["cut"]["sha256"], &hex(&Sha256::digest(whole.as_bytes())));
                }
            }
        }
    }

    #[test]
    fn the_longest_text_is_cut_and_what_names_things_stays() {
        let (id, hash) = ("0193d1f2-7c3a-7b61-a1f8-2f6f0c9e1d55", "ab".repeat(32));
        let by = json!({ "uid": 1000, "login_uid": null, "host": "console" });
        let body = json!({ "attempt": id, "sha256": hash, "by": by, "reason": "why ".repeat(100_000) });
        let cut: Value = serde_json::from_str(&text_of(Kind::Paused, &body)).unwrap();
        assert_eq!((&cut["attempt"], &cut["sha256"], &cut["by"]), (&body["attempt"], &body["sha256"], &body["by"]));
        let reason = cut["reason"].as_str().unwrap();
        assert!(reason.len() > 1000 && reason.starts_with("why why") && reason.ends_with('…'), "{reason}");
    }

    /// What the client keeps of an answer is evidence, whole: see `defender::kept`.
    #[test]
    fn an_answer_as_long_as_the_client_keeps_it_is_not_cut() {
        let answer = "{\"error\":{\"code\":\"x\"}}".repeat(16 * 1024 / 22);
        let body = json!({ "attempt": "0193d1f2-7c3a-7b61-a1f8-2f6f0c9e1d55", "status": 400, "answer": answer });
        assert_eq!(text_of(Kind::AttemptAnswered, &body), body.to_string());
    }
}
