//! The JSON of the wire, read leniently: fields come and go, and only what sweepd decides by is
//! read. Everything is kept verbatim beside it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Machines, Reply, retry_after};
use crate::domain::action::{Action, ActionStatus, Origin, Seen};
use crate::domain::eligibility::Ineligible;
use crate::domain::id::{AttemptId, MachineId};
use crate::domain::outcome::Answer;
use crate::domain::time::Wall;

/// An action of a scan has less than 1 KiB; one of a live response has its commands with it.
const RAW_AT_MOST: usize = 16 * 1024;

/// A `MachineAction` (machineaction.md; the live field is `lastUpdateDateTimeUtc`, samples in the
/// documentation say `lastUpdateTimeUtc`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireAction {
    id: String,
    #[serde(default, deserialize_with = "word")]
    r#type: Option<String>,
    #[serde(default, deserialize_with = "word")]
    status: Option<String>,
    #[serde(default, deserialize_with = "word")]
    machine_id: Option<String>,
    #[serde(default, deserialize_with = "word")]
    scope: Option<String>,
    #[serde(default, deserialize_with = "word")]
    requestor_comment: Option<String>,
    #[serde(default, deserialize_with = "word")]
    creation_date_time_utc: Option<String>,
    #[serde(default, deserialize_with = "word")]
    last_update_date_time_utc: Option<String>,
    #[serde(default, deserialize_with = "word")]
    last_update_time_utc: Option<String>,
}

/// A string, or nothing where there is something else: a field that nobody expected so hides no action.
fn word<'de, D: serde::Deserializer<'de>>(field: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(field)? {
        Value::String(text) => Some(text),
        _ => None,
    })
}

#[derive(Deserialize)]
struct WirePage<'a> {
    #[serde(borrow)]
    value: Vec<&'a RawValue>,
    #[serde(default, rename = "@odata.nextLink", deserialize_with = "word")]
    next_link: Option<String>,
}

#[derive(Deserialize)]
struct WireError {
    error: WireErrorBody,
}

#[derive(Deserialize)]
struct WireErrorBody {
    #[serde(default, deserialize_with = "word")]
    code: Option<String>,
    #[serde(default, deserialize_with = "word")]
    message: Option<String>,
}

/// A page of a list.
#[derive(Debug, Default)]
pub struct Page {
    /// What could be read.
    pub seen: Vec<Seen>,
    /// Entries on the page, readable or not.
    pub entries: usize,
    /// Whether the server says that there is more.
    pub next_link: Option<String>,
}

/// Reads one action; `None` when it is none.
pub fn action(raw: &str) -> Option<Seen> {
    let wire: WireAction = serde_json::from_str(raw).ok()?;
    let is_marked = wire.requestor_comment.as_deref().is_some_and(|comment| AttemptId::marked_in(comment).is_some());
    // Anything may have an id; but nothing that carries a mark of ours is overlooked.
    if wire.id.is_empty() || !is_marked && (wire.r#type.is_none() || wire.status.is_none()) {
        return None;
    }
    let time = |text: Option<&String>| text.and_then(|text| Wall::parse(text));
    let created_at = time(wire.creation_date_time_utc.as_ref()).unwrap_or_default();
    let updated_at = time(wire.last_update_date_time_utc.as_ref())
        .or_else(|| time(wire.last_update_time_utc.as_ref()))
        .unwrap_or(created_at);
    Some(Seen {
        action: Action {
            id: wire.id,
            action_type: wire.r#type.unwrap_or_default(),
            status: ActionStatus::parse(wire.status.as_deref().unwrap_or_default()),
            machine: wire.machine_id.and_then(|id| id.parse().ok()),
            origin: Origin::Foreign,
            scope: wire.scope.and_then(|scope| scope.parse().ok()),
            comment: wire.requestor_comment,
            created_at,
            updated_at,
        },
        raw: capped(raw),
    })
}

/// An action as it is kept: verbatim, unless it is larger than actions are. Then without its largest parts,
/// which are the commands of a live response.
fn capped(raw: &str) -> String {
    if raw.len() <= RAW_AT_MOST {
        return raw.to_owned();
    }
    let Ok(mut fields) = serde_json::from_str::<BTreeMap<String, &RawValue>>(raw) else { return "{}".to_owned() };
    let size = |fields: &BTreeMap<String, &RawValue>| -> usize {
        fields.iter().map(|(name, value)| name.len() + value.get().len() + 4).sum()
    };
    let mut left_out = Vec::new();
    while size(&fields) > RAW_AT_MOST {
        let Some(largest) = fields.iter().max_by_key(|(name, value)| name.len() + value.get().len()) else { break };
        let (name, bytes) = (largest.0.clone(), largest.1.get().len());
        fields.remove(&name);
        left_out.push(format!("{} ({bytes} bytes)", name.chars().take(100).collect::<String>()));
    }
    let mut kept: serde_json::Map<String, Value> =
        fields.into_iter().filter_map(|(name, value)| Some((name, serde_json::from_str(value.get()).ok()?))).collect();
    left_out.truncate(20);
    kept.insert("sweepd left out".to_owned(), left_out.join(", ").into());
    Value::Object(kept).to_string()
}

/// A row of the list of machines; what is not documented may be missing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireListed {
    #[serde(default, deserialize_with = "word")]
    id: Option<String>,
    #[serde(default, deserialize_with = "word")]
    health_status: Option<String>,
    #[serde(default, deserialize_with = "word")]
    onboarding_status: Option<String>,
    #[serde(default, deserialize_with = "word")]
    merged_into_machine_id: Option<String>,
}

/// Reads a page of machines, of which so many were asked for; `None` when it is none, or not whole.
pub fn machines(reply: &Reply, top: usize) -> Option<Machines> {
    if reply.cut.is_some() {
        return None;
    }
    let wire: WirePage<'_> = serde_json::from_str(&reply.text).ok()?;
    let rows: Vec<WireListed> = wire.value.iter().filter_map(|raw| serde_json::from_str(raw.get()).ok()).collect();
    let ineligible = |row: &WireListed| {
        let is_merged = row.merged_into_machine_id.as_ref().is_some_and(|other| !other.is_empty());
        let why = Ineligible::of(row.health_status.as_deref(), row.onboarding_status.as_deref(), is_merged)?;
        Some((row.id.as_ref()?.parse().ok()?, why))
    };
    let entries = wire.value.len();
    Some(Machines {
        ineligible: rows.iter().filter_map(ineligible).collect(),
        ids: rows.into_iter().filter_map(|row| row.id).collect(),
        entries,
        more: entries > 0 && (entries >= top || wire.next_link.is_some()),
    })
}

/// Reads the id of a machine; `None` when it is none.
pub fn machine(reply: &Reply) -> Option<MachineId> {
    #[derive(Deserialize)]
    struct WireMachine {
        id: String,
    }
    let wire: WireMachine = serde_json::from_str(&reply.text).ok()?;
    wire.id.parse().ok()
}

/// The ids of a page of machines; `None` when it is no page, or not whole.
pub fn machine_ids(reply: &Reply) -> Option<Vec<MachineId>> {
    if reply.cut.is_some() {
        return None;
    }
    let wire: WirePage<'_> = serde_json::from_str(&reply.text).ok()?;
    let id = |raw: &&RawValue| serde_json::from_str::<WireListed>(raw.get()).ok()?.id?.parse().ok();
    Some(wire.value.iter().filter_map(id).collect())
}

/// Reads a page; `None` when it is none, or not whole.
pub fn page(reply: &Reply) -> Option<Page> {
    if reply.cut.is_some() {
        return None;
    }
    let wire: WirePage<'_> = serde_json::from_str(&reply.text).ok()?;
    Some(Page {
        entries: wire.value.len(),
        seen: wire.value.iter().filter_map(|raw| action(raw.get())).collect(),
        next_link: wire.next_link,
    })
}

/// Reads an answer as far as it can be read; `now` is for dates in an answer that has none itself.
pub fn answer(reply: &Reply, now: Wall) -> (Answer, Option<Seen>) {
    let error: Option<WireError> = serde_json::from_str(&reply.text).ok();
    let (code, message) = error.map_or((None, None), |wire| (wire.error.code, wire.error.message));
    let success = (200..300).contains(&reply.status) && reply.cut.is_none();
    let seen = if success { action(reply.text.trim()) } else { None };
    let answer = Answer {
        status: reply.status,
        retry_after: retry_after(reply, now),
        code,
        message,
        action: seen.as_ref().map(|seen| seen.action.clone()),
    };
    (answer, seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATED: &str = include_str!("../../tests/fixtures/api/scan_created.json");
    const LIST: &str = include_str!("../../tests/fixtures/api/actions_as_documented.json");

    #[test]
    fn a_row_with_fields_that_nobody_expects_is_read_as_far_as_it_goes() {
        let odd = CREATED
            .replace("\"RunAntiVirusScan\"", "null")
            .replace("\"Pending\"", "{\"code\":1}")
            .replace("\"scope\":null", "\"scope\":[7]");
        let seen = action(&odd).unwrap();
        assert_eq!((seen.action.action_type.as_str(), seen.action.scope), ("", None));
        assert!(!seen.action.status.is_open());
        assert!(crate::domain::outcome::mark(&seen.action).is_some());
        assert!(action(&odd.replace("[sweepd", "[other")).is_none(), "anything may have an id");
    }

    #[test]
    fn a_fresh_scan_is_read_with_scope_null() {
        let seen = action(CREATED).unwrap();
        assert_eq!(seen.action.status, ActionStatus::Pending);
        assert_eq!(seen.action.scope, None);
        assert!(seen.action.is_scan());
        assert_eq!(seen.action.updated_at, seen.action.created_at);
        assert_eq!(seen.raw, CREATED);
    }

    #[test]
    fn the_documentation_s_field_name_is_understood_too() {
        let reply = Reply { status: 200, text: LIST.into(), ..Reply::default() };
        let page = page(&reply).unwrap();
        assert_eq!(page.entries, 2);
        assert!(page.seen[1].action.updated_at > page.seen[1].action.created_at);
    }

    #[test]
    fn unknown_fields_and_statuses_are_kept() {
        let raw = CREATED.replace("\"Pending\"", "\"Paused\"").replace("\"title\":null", "\"new\":{\"a\":1}");
        let seen = action(&raw).unwrap();
        assert_eq!(seen.action.status.as_str(), "Paused");
        assert!(seen.raw.contains("\"new\""));
    }

    #[test]
    fn an_action_that_is_larger_than_actions_are_is_kept_without_its_largest_parts() {
        let commands = format!("\"commands\":[{{\"type\":\"RunScript\",\"value\":\"{}\"}}]", "x".repeat(50_000));
        let large = CREATED.replacen("\"commands\":[]", &commands, 1);
        assert!(large.len() > 50_000, "the fixture has commands");
        let seen = action(&large).unwrap();
        assert!(seen.raw.len() <= RAW_AT_MOST + 200, "{} bytes", seen.raw.len());
        let kept: Value = serde_json::from_str(&seen.raw).unwrap();
        assert_eq!((&kept["status"], &kept["commands"]), (&Value::from("Pending"), &Value::Null));
        assert!(kept["sweepd left out"].as_str().unwrap().starts_with("commands (50"), "{kept}");
        assert_eq!(action(&seen.raw).unwrap().action, seen.action, "it is read again as it was");
    }

    /// Every field that is documented or was seen, in the types that the schema of 2026-05 and captures have.
    #[test]
    fn field_of_an_odd_type_hides_no_action() {
        let fields: serde_json::Map<String, Value> = serde_json::from_str(CREATED).unwrap();
        let id = fields["id"].clone();
        let object = serde_json::json!({"expirationUtc": null, "startTsModeUtc": null, "state": 1});
        let odd = [Value::Null, object, Value::from(7), Value::from("Unheard"), serde_json::json!([{}])];
        let more = ["troubleshootInfo", "requestSource", "externalId", "relatedFileInfo", "commands", "isUnheardOf"];
        let names = fields.keys().map(String::as_str).chain(more).filter(|name| *name != "id");
        let rows: Vec<String> = names
            .flat_map(|name| odd.iter().map(move |value| (name.to_owned(), value.clone())))
            .map(|(name, value)| {
                let mut row = fields.clone();
                row.insert(name, value);
                Value::Object(row).to_string()
            })
            .collect();
        let text = format!(r#"{{"value":[{}],"@odata.nextLink":null}}"#, rows.join(","));
        let page = page(&Reply { status: 200, text, ..Reply::default() }).unwrap();
        assert_eq!((page.entries, page.seen.len()), (rows.len(), rows.len()));
        assert!(page.seen.iter().all(|seen| seen.action.id.as_str() == id));
        let raw = &page.seen[0].raw;
        assert_eq!(raw, &rows[0], "it is kept as it came");
    }

    #[test]
    fn field_of_an_odd_type_hides_no_machine() {
        let id = MachineId::from_bytes([1; 20]);
        let row = |name: &str, value: Value| {
            let mut row = serde_json::json!({"id": id.to_string(), "healthStatus": "Active"});
            row[name] = value;
            row.to_string()
        };
        let names = [
            "computerDnsName",
            "firstSeen",
            "lastSeen",
            "osBuild",
            "osVersion",
            "osPlatform",
            "healthStatus",
            "onboardingStatus",
            "mergedIntoMachineId",
            "isPotentialDuplication",
            "isExcluded",
            "exclusionReason",
            "isAadJoined",
            "riskScore",
            "rbacGroupId",
            "managedBy",
            "vmMetadata",
            "machineTags",
            "defenderAvStatus",
        ];
        let odd =
            [Value::Null, serde_json::json!({"state": 1}), Value::from(7), Value::from(true), serde_json::json!([])];
        let rows: Vec<String> =
            names.iter().flat_map(|name| odd.iter().map(|value| row(name, value.clone()))).collect();
        let text = format!(r#"{{"value":[{}],"@odata.nextLink":7}}"#, rows.join(","));
        let reply = Reply { status: 200, text, ..Reply::default() };
        let page = machines(&reply, 10_000).unwrap();
        assert_eq!((page.entries, page.ids.len(), page.more), (rows.len(), rows.len(), false));
        assert!(page.ineligible.is_empty(), "{:?}", page.ineligible);
        assert_eq!(machine_ids(&reply).unwrap().len(), rows.len());
        assert!(rows.iter().all(|row| machine(&Reply { text: row.clone(), ..reply.clone() }) == Some(id)));
    }

    #[test]
    fn error_with_a_code_of_an_odd_type_keeps_its_message() {
        let text = r#"{"error":{"code":429,"message":"API calls quota exceeded!","target":{}}}"#.to_owned();
        let (answer, _) = answer(&Reply { status: 429, text, ..Reply::default() }, Wall(0));
        assert_eq!((answer.code, answer.message.as_deref()), (None, Some("API calls quota exceeded!")));
    }

    #[test]
    fn half_an_answer_is_none() {
        let whole = Reply { status: 201, text: CREATED.into(), ..Reply::default() };
        assert!(answer(&whole, Wall(0)).0.action.is_some());
        for text in ["", "<html>", "[]", "{}", &CREATED[..CREATED.len() / 2], "null", "{\"id\":\"\"}"] {
            let reply = Reply { status: 201, text: text.into(), ..Reply::default() };
            assert!(answer(&reply, Wall(0)).0.action.is_none(), "{text}");
        }
        assert!(answer(&Reply { cut: Some("reset".into()), ..whole }, Wall(0)).0.action.is_none());
    }

    #[test]
    fn machines_are_read_with_what_is_not_documented_and_without_it() {
        let id = |n: u8| MachineId::from_bytes([n; 20]);
        let rows = [
            format!(
                r#"{{"id":"{}","healthStatus":"Active","onboardingStatus":"Onboarded","mergedIntoMachineId":null}}"#,
                id(1)
            ),
            format!(r#"{{"id":"{}","healthStatus":"Inactive"}}"#, id(2)),
            format!(r#"{{"id":"{}","healthStatus":"Active","mergedIntoMachineId":"{}"}}"#, id(3), id(1)),
            r#"{"id":null,"healthStatus":"Inactive"}"#.to_owned(),
            r#"{"healthStatus":7}"#.to_owned(),
        ];
        let text = format!(r#"{{"value":[{}],"@odata.nextLink":"https://elsewhere"}}"#, rows.join(","));
        let page = machines(&Reply { status: 200, text, ..Reply::default() }, 100).unwrap();
        assert_eq!((page.entries, page.more), (5, true));
        assert_eq!(page.ineligible, [(id(2), Ineligible::Inactive), (id(3), Ineligible::Merged)]);
        for half in ["", "<html>", "{\"value\":["] {
            assert!(machines(&Reply { status: 200, text: half.into(), ..Reply::default() }, 100).is_none());
        }
    }

    #[test]
    fn errors_are_read_in_both_shapes() {
        for (text, code) in [
            (r#"{"error":{"code":"ResourceNotFound","message":"m","target":"|3b"}}"#, Some("ResourceNotFound")),
            (r#"{"error":{"code":"","message":"m","details":[]}}"#, Some("")),
            ("<html>", None),
        ] {
            let reply = Reply { status: 404, text: text.into(), ..Reply::default() };
            assert_eq!(answer(&reply, Wall(0)).0.code.as_deref(), code);
        }
    }
}
