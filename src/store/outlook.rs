//! What a forecast has to know of a tenant beside its queue: what is spent, what calls take, and
//! what its lane waits for.

use std::time::Duration;

use sqlx::Row;

use super::tenants::TenantRow;
use super::{Doing, StoreError, View, marks};
use crate::domain::lane::Hold;
use crate::domain::ledger::CallKind;
use crate::domain::time::{Boot, Wall};

/// What keeps a lane from calling, whatever the budget allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standstill {
    /// The end of the silence that Defender asked for, by this boot's clock.
    pub silent_until: Option<Boot>,
    /// What else holds the lane, and until when.
    pub hold: Option<(Hold, Boot)>,
    /// Until when the lane of a running daemon waits, though a job is ready.
    pub waits_until: Option<Wall>,
    /// Since when every sign-in has failed.
    pub sign_in_fails_since: Option<Wall>,
    /// The lane is held for marks that the database did not write.
    pub waits_for_reconcile: bool,
}

impl Standstill {
    /// What stands in the way of calls until somebody mends it, in words: nobody knows when they go on. A
    /// daemon that is not `running` tries all of it anew when it starts.
    pub fn without_end(self, running: bool) -> Option<String> {
        if !running {
            return None;
        }
        let signed_out = self.sign_in_fails_since.map(|since| format!("the sign-in fails since {since}"));
        let held = self.hold.map(|(why, _)| match why {
            Hold::SignedOut => "Defender answers 401 to fresh tokens",
            Hold::Forbidden => "Defender answers 403 to scan calls",
            Hold::Malformed => "Defender calls our requests malformed (400)",
            Hold::Down => "Defender does not answer",
            Hold::NotThere => "404 is all that is answered: check api_url, cloud and region",
        });
        let marks = self.waits_for_reconcile.then_some("held until `sweepd reconcile`");
        signed_out.or_else(|| marks.or(held).map(ToOwned::to_owned))
    }

    /// No call before this time; no silence is longer than `longest`. A daemon that starts probes at
    /// once, except in a silence; what a lane waited for has gone with it.
    pub fn not_before(self, at: Wall, boot: Boot, running: bool, longest: Duration) -> Option<Boot> {
        let silence = self.silent_until.map(|until| until.min(boot + longest));
        let wait = self.waits_until.map(|until| boot + until.since(at));
        let alive = [self.hold.map(|(_, until)| until), wait].into_iter().flatten().filter(|_| running);
        silence.into_iter().chain(alive).filter(|until| *until > boot).max()
    }
}

impl View {
    /// What keeps the lane of a tenant from calling.
    pub async fn standstill(&self, tenant: TenantRow) -> Result<Standstill, StoreError> {
        let row = sqlx::query(
            "SELECT hold, hold_until_boot, sign_in_fails_since, waiting_for = ?3 AS waits_for_reconcile,
                 (SELECT until_boot FROM silences WHERE silences.budget_id = tenants.budget_id AND kind = ?1) AS silent_until,
                 -- Without a ready job a lane waits for the time of one, which keeps no other back.
                 CASE WHEN EXISTS (SELECT 1 FROM jobs WHERE tenant_id = tenants.id AND state = 'queued'
                                   AND parked_until IS NULL) THEN waiting_until END AS waits_until
             FROM tenants WHERE id = ?2",
        )
        .bind(CallKind::Scan.as_str())
        .bind(tenant)
        .bind(marks::WAITING)
        .fetch_one(&mut *self.reader().await?)
        .await
        .doing("read what a tenant waits for")?;
        let read = || {
            let silent_until: Option<i64> = row.try_get("silent_until")?;
            let word: Option<String> = row.try_get("hold")?;
            let held_until: Option<i64> = row.try_get("hold_until_boot")?;
            let waits_until: Option<i64> = row.try_get("waits_until")?;
            Ok(Standstill {
                silent_until: silent_until.map(Boot),
                hold: word.and_then(|word| word.parse().ok()).zip(held_until.map(Boot)),
                waits_until: waits_until.map(Wall),
                waits_for_reconcile: row.try_get("waits_for_reconcile")?,
                sign_in_fails_since: row.try_get::<Option<i64>, _>("sign_in_fails_since")?.map(Wall),
            })
        };
        read().doing("read what a tenant waits for")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Wall = Wall(1_000_000);
    const BOOT: Boot = Boot(50_000);
    const MINUTE: Duration = Duration::from_mins(1);
    const LONGEST: Duration = Duration::from_mins(61);

    #[test]
    fn the_longer_of_hold_and_wait_counts_while_the_daemon_runs() {
        let hold = Some((Hold::Down, BOOT + MINUTE));
        let both = Standstill { hold, waits_until: Some(AT + MINUTE * 3), ..Standstill::default() };
        assert_eq!(both.not_before(AT, BOOT, true, LONGEST), Some(BOOT + MINUTE * 3));
        assert_eq!(both.not_before(AT + MINUTE * 5, BOOT, true, LONGEST), Some(BOOT + MINUTE));
        assert_eq!(both.not_before(AT, BOOT, false, LONGEST), None, "a start probes at once");
        assert_eq!(Standstill::default().not_before(AT, BOOT, true, LONGEST), None);
    }

    #[test]
    fn a_pause_that_defender_asked_for_counts_for_a_daemon_that_is_down() {
        let hold = |until| Standstill { silent_until: Some(until), ..Standstill::default() };
        assert_eq!(hold(BOOT + MINUTE).not_before(AT, BOOT, false, LONGEST), Some(BOOT + MINUTE));
        assert_eq!(hold(BOOT).not_before(AT, BOOT, false, LONGEST), None, "it is over");
        assert_eq!(hold(Boot(i64::MAX)).not_before(AT, BOOT, true, LONGEST), Some(BOOT + LONGEST));
    }

    #[test]
    fn only_a_silence_that_defender_asked_for_has_an_end_that_is_known() {
        let silent = Standstill { silent_until: Some(BOOT), ..Standstill::default() };
        assert_eq!(silent.without_end(true), None);
        for why in Hold::ALL {
            let held = Standstill { hold: Some((*why, BOOT)), ..Standstill::default() };
            assert!(held.without_end(true).is_some(), "{why}");
            assert_eq!(held.without_end(false), None, "a start tries again");
        }
        let signed_out = Standstill { sign_in_fails_since: Some(AT), ..Standstill::default() };
        let told = signed_out.without_end(true).unwrap();
        assert_eq!(told, "the sign-in fails since 1970-01-01T00:16:40.000Z");
        let marked = Standstill { waits_for_reconcile: true, ..Standstill::default() };
        assert_eq!(marked.without_end(true).as_deref(), Some("held until `sweepd reconcile`"));
        assert_eq!(Standstill::default().without_end(true), None);
    }
}
