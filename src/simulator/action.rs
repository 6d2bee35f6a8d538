//! A `MachineAction`: how it goes on by itself, and what it looks like.

use std::time::Duration;

use serde_json::{Value, json};

use super::chance::Chance;
use super::filter::{Cell, Column, Row};
use super::ticks::Ticks;
use crate::domain::action::ActionStatus;
use crate::domain::sweep::ScanType;
use crate::domain::time::Wall;

/// What actions are filtered and ordered by: documented in
/// API/get-machineactions-collection.md, but for the last, which elastic/integrations ships.
pub(super) const COLUMNS: &[Column] = &[
    Column { name: "id", is_time: false },
    Column { name: "status", is_time: false },
    Column { name: "machineId", is_time: false },
    Column { name: "type", is_time: false },
    Column { name: "requestor", is_time: false },
    Column { name: "creationDateTimeUtc", is_time: true },
    Column { name: "lastUpdateDateTimeUtc", is_time: true },
];

/// Without the last.
pub(super) const DOCUMENTED: &[Column] = COLUMNS.split_at(COLUMNS.len() - 1).0;

const SCAN: &str = "RunAntiVirusScan";

/// HTTP 408 as an HRESULT, in every timed-out action seen.
const TIMED_OUT: i32 = -2_145_844_840;
/// `E_ABORT`, in every cancelled action seen.
const ABORTED: i32 = -2_147_467_260;
/// `E_FAIL`; what a failed scan has is unknown.
const FAILED: i32 = -2_147_467_259;

/// Who asks for a scan, and what for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) requestor: String,
    pub(super) comment: String,
    /// `PublicApi` or `Portal` (observed).
    pub(super) source: &'static str,
    pub(super) scan: ScanType,
}

/// What becomes of an action unless somebody cancels it; drawn when it is created.
#[derive(Clone, Debug)]
pub(super) struct Fate {
    /// When the machine takes it up; never, for one that stays away.
    pub(super) starts_after: Option<Duration>,
    pub(super) ends_after: Duration,
    pub(super) end: ActionStatus,
}

impl Fate {
    /// Mostly Succeeded; 4 % fail, 2 % time out, 2 % are cancelled, unless all are to succeed.
    pub(super) fn draw(chance: &mut Chance, (pending, running): (Duration, Duration), all_succeed: bool) -> Self {
        let starts = pending.mul_f64(0.5 + chance.share());
        let ends = starts + running.mul_f64(0.5 + chance.share());
        let end = match chance.below(100) {
            _ if all_succeed => ActionStatus::Succeeded,
            0..4 => ActionStatus::Failed,
            4..6 => ActionStatus::TimeOut,
            6..8 => ActionStatus::Cancelled,
            _ => ActionStatus::Succeeded,
        };
        let starts_after = (end != ActionStatus::TimeOut).then_some(starts);
        Self { starts_after, ends_after: ends, end }
    }

    /// Stays Pending all the time, then succeeds: a scan that somebody else has started.
    pub(super) const fn pending_for(duration: Duration) -> Self {
        Self { starts_after: None, ends_after: duration, end: ActionStatus::Succeeded }
    }

    /// The machine stays away.
    pub(super) const fn of_an_absent_machine(times_out_after: Duration) -> Self {
        Self { starts_after: None, ends_after: times_out_after, end: ActionStatus::TimeOut }
    }
}

#[derive(Clone, Debug)]
struct Cancellation {
    at: Ticks,
    requestor: String,
    comment: String,
}

/// An action that exists.
#[derive(Clone, Debug)]
pub(super) struct SimulatedAction {
    pub(super) id: String,
    machine_id: String,
    machine_name: String,
    asked: Asked,
    created_at: Wall,
    created: Ticks,
    first_update: Ticks,
    starts: Option<Ticks>,
    ends: Ticks,
    end: ActionStatus,
    cancellation: Option<Cancellation>,
}

impl SimulatedAction {
    /// Creates the action. `chance` gives its id, its fate was drawn before.
    pub(super) fn new(chance: &mut Chance, now: Wall, machine: (String, String), asked: Asked, fate: Fate) -> Self {
        let created = Ticks::at(now).and(chance.below(9_000));
        Self {
            id: chance.uuid().to_string(),
            machine_id: machine.0,
            machine_name: machine.1,
            asked,
            created_at: now,
            created,
            // The update trails the creation by less than a microsecond in fresh actions (observed).
            first_update: created.and(1 + chance.below(9)),
            starts: fate.starts_after.map(|after| created.after(after)),
            ends: created.after(fate.ends_after),
            end: fate.end,
            cancellation: None,
        }
    }

    pub(super) const fn created_at(&self) -> Wall {
        self.created_at
    }

    /// Whether a client of the public API asked for it.
    pub(super) fn is_public(&self) -> bool {
        self.asked.source == "PublicApi"
    }

    /// Ends it now, if it has not ended.
    pub(super) fn cancel(&mut self, now: Wall, requestor: &str, comment: &str) -> Result<(), ActionStatus> {
        let status = self.seen(now).status;
        if status.is_final() {
            return Err(status);
        }
        let at = Ticks::at(now).max(self.first_update);
        self.cancellation = Some(Cancellation { at, requestor: requestor.to_owned(), comment: comment.to_owned() });
        Ok(())
    }

    /// The action as it stands at this time.
    pub(super) fn seen(&self, now: Wall) -> Seen<'_> {
        let now = Ticks::at(now);
        let (status, updated) = if let Some(cancellation) = &self.cancellation {
            (ActionStatus::Cancelled, cancellation.at)
        } else if self.ends <= now {
            (self.end.clone(), self.ends)
        } else if let Some(starts) = self.starts.filter(|starts| *starts <= now) {
            (ActionStatus::InProgress, starts)
        } else {
            (ActionStatus::Pending, self.first_update)
        };
        Seen { action: self, status, updated }
    }
}

/// An action at one moment.
#[derive(Debug)]
pub(super) struct Seen<'tenant> {
    pub(super) action: &'tenant SimulatedAction,
    pub(super) status: ActionStatus,
    updated: Ticks,
}

impl Seen<'_> {
    /// The object as lists have it: the 20 fields of every capture.
    pub(super) fn json(&self) -> Value {
        let action = self.action;
        let (by, why, when) = match (&action.cancellation, &self.status) {
            (Some(c), _) => (Some(c.requestor.as_str()), Some(c.comment.as_str()), Some(c.at.rfc3339())),
            (None, ActionStatus::Cancelled) => {
                (Some("analyst@contoso.example"), Some("no longer needed"), Some(self.updated.rfc3339()))
            }
            _ => (None, None, None),
        };
        let result = match self.status {
            ActionStatus::TimeOut => TIMED_OUT,
            ActionStatus::Cancelled => ABORTED,
            ActionStatus::Failed => FAILED,
            _ => 0,
        };
        json!({
            "id": action.id,
            "type": SCAN,
            "title": null,
            "requestor": action.asked.requestor,
            "requestorComment": action.asked.comment,
            "status": self.status.as_str(),
            "machineId": action.machine_id,
            "computerDnsName": action.machine_name,
            "creationDateTimeUtc": action.created.rfc3339(),
            "lastUpdateDateTimeUtc": self.updated.rfc3339(),
            "cancellationRequestor": by,
            "cancellationComment": why,
            "cancellationDateTimeUtc": when,
            "errorHResult": result,
            "scope": action.asked.scan.as_str(),
            "externalId": null,
            "requestSource": action.asked.source,
            "relatedFileInfo": null,
            "commands": [],
            "troubleshootInfo": null,
        })
    }

    /// The object as single answers have it: with its context, and for one just created without
    /// its scope (observed by SEKOIA; later reads have it).
    pub(super) fn entity(&self, fresh: bool) -> Value {
        let mut object = self.json();
        if let Some(fields) = object.as_object_mut() {
            fields.insert("@odata.context".to_owned(), json!(format!("{METADATA}#MachineActions/$entity")));
            if fresh {
                fields.insert("scope".to_owned(), Value::Null);
            }
        }
        object
    }
}

/// Where contexts point, whatever host was called (observed).
pub(super) const METADATA: &str = "https://api.securitycenter.microsoft.com/api/$metadata";

impl Row for Seen<'_> {
    fn cell(&self, column: &'static str) -> Cell<'_> {
        match column {
            "id" => Cell::Text(&self.action.id),
            "status" => Cell::Text(self.status.as_str()),
            "machineId" => Cell::Text(&self.action.machine_id),
            "type" => Cell::Text(SCAN),
            "requestor" => Cell::Text(&self.action.asked.requestor),
            "creationDateTimeUtc" => Cell::Time(self.action.created),
            "lastUpdateDateTimeUtc" => Cell::Time(self.updated),
            _ => Cell::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(fate: Fate) -> SimulatedAction {
        let asked = Asked {
            requestor: "app".to_owned(),
            comment: "weekly".to_owned(),
            source: "PublicApi",
            scan: ScanType::Full,
        };
        SimulatedAction::new(&mut Chance::new(1), Wall(0), ("m".to_owned(), "pc".to_owned()), asked, fate)
    }

    fn fate(end: ActionStatus) -> Fate {
        Fate { starts_after: Some(Duration::from_secs(5)), ends_after: Duration::from_secs(20), end }
    }

    #[test]
    fn an_action_goes_its_way_and_says_when() {
        let action = action(fate(ActionStatus::Failed));
        let at = |ms| action.seen(Wall(ms));
        assert_eq!(at(0).status, ActionStatus::Pending);
        assert_eq!(at(5_001).status, ActionStatus::InProgress);
        assert_eq!(at(5_001).updated, at(19_999).updated);
        let ended = at(20_001);
        assert_eq!(ended.status, ActionStatus::Failed);
        assert_eq!(ended.updated, at(9_999_999).updated);
        assert!(at(0).updated < at(5_001).updated && at(5_001).updated < ended.updated);
        assert_eq!(ended.json()["errorHResult"], FAILED);
    }

    #[test]
    fn a_fresh_entity_has_the_21_fields_of_the_captures() {
        let action = action(fate(ActionStatus::Succeeded));
        let fresh = action.seen(Wall(0)).entity(true);
        assert_eq!(fresh.as_object().unwrap().len(), 21);
        assert_eq!(fresh["scope"], Value::Null);
        assert_eq!(action.seen(Wall(1)).entity(false)["scope"], "Full");
        for column in COLUMNS {
            assert_ne!(action.seen(Wall(0)).cell(column.name), Cell::Null, "{}", column.name);
        }
    }

    #[test]
    fn only_what_has_not_ended_is_cancelled() {
        let mut action = action(fate(ActionStatus::Succeeded));
        assert_eq!(action.clone().cancel(Wall(30_000), "a", "b"), Err(ActionStatus::Succeeded));
        action.cancel(Wall(6_000), "who", "why").unwrap();
        let object = action.seen(Wall(99_000)).json();
        assert_eq!(object["status"], "Cancelled");
        assert_eq!(object["cancellationRequestor"], "who");
        assert_eq!(object["errorHResult"], ABORTED);
        assert!(action.cancel(Wall(7_000), "a", "b").is_err());
    }

    #[test]
    fn fates_are_scattered_by_half_and_every_end_occurs() {
        let mut chance = Chance::new(3);
        let durations = (Duration::from_secs(10), Duration::from_secs(100));
        let fates: Vec<Fate> = (0..1000).map(|_| Fate::draw(&mut chance, durations, false)).collect();
        for fate in &fates {
            let starts = fate.starts_after.unwrap_or(Duration::from_secs(10));
            assert!((5.0..15.0).contains(&starts.as_secs_f64()));
            assert!((55.0..165.0).contains(&fate.ends_after.as_secs_f64()));
        }
        for end in [ActionStatus::Succeeded, ActionStatus::Failed, ActionStatus::TimeOut, ActionStatus::Cancelled] {
            assert!(fates.iter().any(|fate| fate.end == end), "{end}");
        }
        assert!((0..200).all(|_| Fate::draw(&mut chance, durations, true).end == ActionStatus::Succeeded));
    }
}
