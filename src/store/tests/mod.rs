//! The store on a real SQLite in a folder of its own, at fixed times.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::claims::{Ask, Claim, Claimed};
use super::incarnations::{Birth, Inheritance};
use super::lists::{JobLine, Wanted};
use super::settle::{Policy, Settlement};
use super::slots::{BudgetRow, Stamp};
use super::sweeps::{Chunk, Completion, Counts, NewJob, NewSweep, SweepRow};
use super::tenants::{Operator, Sending, TenantRow};
use super::throttles::SilenceNote;
use super::{Doing, Store, StoreError};
use crate::domain::action::{Action, ActionStatus, Origin, Seen};
use crate::domain::eligibility::{Inactive, PendingTypes, Rules};
use crate::domain::id::{AttemptId, Epoch, MachineId, SlotId, SweepId};
use crate::domain::job::State;
use crate::domain::ledger::{CallKind, Limits};
use crate::domain::outcome::{Denial, Outcome};
use crate::domain::silence::{self, Silence};
use crate::domain::sweep::{OnPending, Priority, ScanType, Source};
use crate::domain::throttle::Told;
use crate::domain::time::{Boot, BootId, Wall};

mod archiving;
mod budgeting;
mod cancelling;
mod claiming;
mod counting;
mod ending;
mod errands;
mod feeding;
mod foreign;
mod landmark;
mod listing;
mod long_files;
mod looking;
mod marking;
mod migrating;
mod ordering;
mod privacy;
mod recording;
mod settling;
mod silences;
mod starting;
mod sweeping;
mod unasked;
mod watching;
mod withdrawing;
mod writing;

const GRACE: Duration = Duration::from_mins(1);
const RISE_AFTER: Duration = Duration::from_hours(24);
const HORIZON: Duration = Duration::from_mins(10);

/// Seconds after the beginning of every test, on the wall clock.
fn at(seconds: i64) -> Wall {
    Wall(1_700_000_000_000 + seconds * 1000)
}

/// The same moment on the boot clock.
fn boot(seconds: i64) -> Boot {
    Boot(10_000_000 + seconds * 1000)
}

fn this_boot() -> BootId {
    BootId("boot-1".to_owned())
}

fn machine(n: u8) -> MachineId {
    MachineId::from_bytes([n; 20])
}

fn limits(per_minute: u32, per_hour: u32) -> Limits {
    Limits::new(NonZeroU32::new(per_minute).unwrap(), NonZeroU32::new(per_hour).unwrap()).unwrap()
}

fn rules() -> Rules {
    Rules {
        pending_types: PendingTypes::These(vec!["RunAntiVirusScan".to_owned()]),
        scanned_since: None,
        inactive: Inactive::Send,
    }
}

fn policy() -> Policy {
    Policy { rules: rules(), max_attempts: NonZeroU32::new(3).unwrap(), lookup_horizon: HORIZON, unknown_grace: GRACE }
}

fn birth(seconds: i64) -> Birth {
    Birth {
        at: at(seconds),
        boot: boot(seconds),
        boot_id: this_boot(),
        unknown_grace: GRACE,
        lookup_horizon: HORIZON,
        version: "test",
    }
}

fn operator() -> Operator {
    Operator { uid: 0, login_uid: Some(1000), host: "console".to_owned() }
}

fn job(line: u64, machine: MachineId) -> NewJob {
    NewJob {
        line,
        machine,
        name: None,
        scan: ScanType::Quick,
        priority: Priority::Normal,
        not_before: None,
        on_pending: OnPending::Skip,
        comment: Arc::from("weekly"),
    }
}

/// A line for each machine, numbered from one.
fn quick(machines: &[u8]) -> Vec<NewJob> {
    (1..).zip(machines).map(|(line, n)| job(line, machine(*n))).collect()
}

/// A scan as Defender shows it.
fn scan(id: &str, machine: MachineId, status: ActionStatus, comment: &str, updated: i64) -> Seen {
    let raw = serde_json::json!({
        "id": id, "status": status.as_str(), "requestorComment": comment, "lastUpdateDateTimeUtc": at(updated).rfc3339(),
    });
    Seen {
        action: Action {
            id: id.to_owned(),
            action_type: "RunAntiVirusScan".to_owned(),
            status,
            machine: Some(machine),
            origin: Origin::Foreign,
            scope: Some(ScanType::Quick),
            comment: Some(comment.to_owned()),
            created_at: at(0),
            updated_at: at(updated),
        },
        raw: raw.to_string(),
    }
}

/// A store with one tenant and a living incarnation.
struct Bench {
    store: Store,
    folder: tempfile::TempDir,
    tenant: TenantRow,
    budget: BudgetRow,
    epoch: Epoch,
    ids: Cell<u128>,
    limits: Limits,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), at(0)).await.unwrap();
        let tenant = store.tenant(&"contoso".parse().unwrap()).await.unwrap();
        let budget = store.budget(tenant, "directory/app").await.unwrap();
        let epoch = store.begin_incarnation(birth(0)).await.unwrap().epoch;
        Self { store, folder, tenant, budget, epoch, ids: Cell::new(0), limits: Limits::DOCUMENTED }
    }

    async fn with_machines(machines: &[u8]) -> Self {
        let bench = Self::new().await;
        bench.sweep(quick(machines)).await;
        bench
    }

    async fn restart(&mut self, birth: Birth) -> Inheritance {
        let inheritance = self.store.begin_incarnation(birth).await.unwrap();
        self.epoch = inheritance.epoch;
        inheritance
    }

    fn id(&self) -> Uuid {
        self.ids.set(self.ids.get() + 1);
        Uuid::from_u128(self.ids.get())
    }

    fn new_sweep(&self) -> NewSweep {
        let id = self.id();
        NewSweep {
            id: SweepId(id),
            tenant: self.tenant,
            name: "weekly".to_owned(),
            source: Source::File,
            file: "weekly.txt".to_owned(),
            sha256: format!("{:064x}", id.as_u128()),
            file_uid: Some(0),
            received_at: at(0),
        }
    }

    async fn take(&self, chunk: Chunk, held: bool) -> SweepRow {
        self.store.take_sweep(self.new_sweep(), chunk, at(0), move |_, _| completion(held)).await.unwrap()
    }

    async fn sweep(&self, jobs: Vec<NewJob>) -> SweepRow {
        self.take(Chunk { jobs, ..Chunk::default() }, false).await
    }

    async fn counts(&self, sweep: SweepRow) -> Counts {
        self.store.counts_of(sweep).await.unwrap()
    }

    fn stamp(&self, seconds: i64) -> Stamp {
        Stamp { epoch: self.epoch, boot_id: this_boot(), boot: boot(seconds), at: at(seconds) }
    }

    fn ask(&self, seconds: i64) -> Ask {
        Ask {
            tenant: self.tenant,
            budget: self.budget,
            stamp: self.stamp(seconds),
            limits: self.limits,
            rules: rules(),
            rise_after: RISE_AFTER,
            attempt: AttemptId(self.id()),
            probe: false,
            blind: false,
            minds_marks: true,
            looked: boot(seconds),
        }
    }

    async fn claim(&self, seconds: i64) -> Claimed {
        self.store.claim(self.ask(seconds)).await.unwrap()
    }

    /// Claims what must be there to be claimed.
    async fn call(&self, seconds: i64) -> Claim {
        match self.claim(seconds).await {
            Claimed::Call(claim) => *claim,
            other => panic!("a call was expected: {other:?}"),
        }
    }

    /// Makes ready what is parked until then, and claims it.
    async fn call_parked(&self, seconds: i64) -> Claim {
        self.store.unpark_due(self.tenant, at(seconds)).await.unwrap();
        self.call(seconds).await
    }

    /// Claims as a lane that is held does, to find out whether it may go on.
    async fn probe(&self, seconds: i64) -> Claim {
        match self.store.claim(Ask { probe: true, ..self.ask(seconds) }).await.unwrap() {
            Claimed::Call(claim) => *claim,
            other => panic!("a probe was expected: {other:?}"),
        }
    }

    fn settlement(&self, claim: &Claim, outcome: Outcome, seconds: i64) -> Settlement {
        Settlement {
            tenant: self.tenant,
            epoch: self.epoch,
            attempt: claim.attempt,
            slot: claim.slot,
            job: claim.job.id,
            probe: claim.probe,
            outcome,
            http_status: None,
            answer: String::new(),
            said: None,
            raw: Some("{}".to_owned()),
            silence: None,
            held: None,
            resumed: None,
            at: at(seconds),
            boot: boot(seconds),
        }
    }

    async fn settle(&self, claim: &Claim, outcome: Outcome, seconds: i64) -> State {
        self.store.settle(self.settlement(claim, outcome, seconds), policy()).await.unwrap()
    }

    /// A call that Defender throttles, and that asks for silence until then.
    async fn throttled(&self, seconds: i64, until: i64) {
        let claim = self.call(seconds).await;
        let mut silence = Silence::default();
        let change = silence.throttled(boot(seconds), Some(boot(until).since(boot(seconds))), Duration::MAX);
        let silence = Some(self.silence(CallKind::Scan, change, seconds));
        let settlement = self.settlement(&claim, Outcome::Throttled(Told::default()), seconds);
        self.store.settle(Settlement { silence, ..settlement }, policy()).await.unwrap();
    }

    /// The end of a call for the list of actions.
    async fn settle_read(&self, slot: SlotId, settles: Boot, seconds: i64) -> Result<(), StoreError> {
        let nothing = self.silence(CallKind::ListActions, silence::Change::None, seconds);
        self.store.settle_read(self.tenant, slot, settles, at(seconds), serde_json::json!({}), nothing).await
    }

    fn silence(&self, kind: CallKind, change: silence::Change, seconds: i64) -> SilenceNote {
        SilenceNote { budget: self.budget, kind, change, boot_id: this_boot(), boot: boot(seconds) }
    }

    /// A call that Defender accepts as the action `id`.
    async fn accepted(&self, id: &str, seconds: i64) -> Claim {
        let claim = self.call(seconds).await;
        let ours = scan(id, claim.job.machine, ActionStatus::Pending, &claim.attempt.mark("weekly"), seconds);
        assert_eq!(self.settle(&claim, Outcome::Created(ours.action), seconds + 1).await, State::Accepted);
        claim
    }

    /// A page of the feed.
    async fn feed(&self, seen: &[Seen], seconds: i64) {
        self.store.see_actions(self.tenant, seen.to_vec(), None, at(seconds)).await.unwrap();
    }

    /// The ids of what is believed to be open.
    async fn open(&self) -> Vec<String> {
        let open = self.store.open_actions(self.tenant, 10).await.unwrap();
        open.into_iter().map(|open| open.id).collect()
    }

    async fn jobs(&self) -> Vec<JobLine> {
        let mut jobs = Vec::new();
        let each = |line| {
            jobs.push(line);
            Ok(())
        };
        self.store.jobs(&Wanted::default(), each).await.unwrap().unwrap();
        jobs
    }

    /// The only job of a machine, or its newest.
    async fn job_of(&self, machine: MachineId) -> JobLine {
        self.jobs().await.into_iter().rfind(|job| job.machine_id == machine.to_string()).unwrap()
    }

    async fn number(&self, statement: &'static str) -> i64 {
        sqlx::query_scalar(statement).fetch_one(&mut *self.store.reader().await.unwrap()).await.unwrap()
    }

    /// Makes rows that would take long to come by.
    async fn change(&self, statement: &'static str, parameter: i64) {
        let change = self.store.write(move |connection| {
            Box::pin(async move {
                let done = sqlx::query(statement).bind(parameter).execute(connection).await;
                done.doing("change it by hand").map(drop)
            })
        });
        change.await.unwrap();
    }

    /// How SQLite goes about a statement, a line for each step.
    async fn plan(&self, statement: String) -> String {
        let mut reader = self.store.reader().await.unwrap();
        let explain = format!("EXPLAIN QUERY PLAN {statement}");
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sqlx::AssertSqlSafe(explain)).fetch_all(&mut *reader).await.unwrap();
        plan.into_iter().map(|(.., step)| step + "\n").collect()
    }

    async fn text(&self, statement: &'static str) -> String {
        sqlx::query_scalar(statement).fetch_one(&mut *self.store.reader().await.unwrap()).await.unwrap()
    }

    /// The kinds of the last `n` events, oldest first.
    async fn last_events(&self, n: i64) -> Vec<String> {
        sqlx::query_scalar("SELECT kind FROM (SELECT seq, kind FROM events ORDER BY seq DESC LIMIT ?) ORDER BY seq")
            .bind(n)
            .fetch_all(&mut *self.store.reader().await.unwrap())
            .await
            .unwrap()
    }

    /// What is kept beside the jobs says the same as the jobs, and the chain is whole.
    async fn assert_whole(&self) {
        let wrong = "SELECT count(*) FROM (
            SELECT tenant_id, state, n FROM job_counts WHERE n > 0
            EXCEPT SELECT tenant_id, state, count(*) FROM jobs GROUP BY tenant_id, state)";
        assert_eq!(self.number(wrong).await, 0, "job_counts says more than the jobs");
        let missing = "SELECT count(*) FROM (
            SELECT tenant_id, state, count(*) FROM jobs GROUP BY tenant_id, state
            EXCEPT SELECT tenant_id, state, n FROM job_counts)";
        assert_eq!(self.number(missing).await, 0, "the jobs say more than job_counts");
        let open = "SELECT count(*) FROM sweeps WHERE open <> (
            SELECT count(*) FROM jobs WHERE finished_at IS NULL AND (jobs.sweep_n = sweeps.n
                OR jobs.id IN (SELECT job_id FROM joins WHERE joins.sweep_n = sweeps.n)))";
        assert_eq!(self.number(open).await, 0, "a sweep counts its open jobs wrongly");
        let unsent = "SELECT count(*) FROM (
            SELECT sweep_n, priority, n FROM unsent WHERE n > 0
            EXCEPT SELECT * FROM (
                SELECT sweep_n, priority, count(*) FROM jobs WHERE state = 'queued' GROUP BY sweep_n, priority
                UNION ALL SELECT joins.sweep_n, -1, count(*) FROM joins JOIN jobs ON jobs.id = joins.job_id
                WHERE state = 'queued' GROUP BY joins.sweep_n))";
        assert_eq!(self.number(unsent).await, 0, "a sweep counts more unsent jobs than there are");
        let unsent = "SELECT count(*) FROM (
            SELECT * FROM (
                SELECT sweep_n, priority, count(*) FROM jobs WHERE state = 'queued' GROUP BY sweep_n, priority
                UNION ALL SELECT joins.sweep_n, -1, count(*) FROM joins JOIN jobs ON jobs.id = joins.job_id
                WHERE state = 'queued' GROUP BY joins.sweep_n)
            EXCEPT SELECT sweep_n, priority, n FROM unsent)";
        assert_eq!(self.number(unsent).await, 0, "there are more unsent jobs than a sweep counts");
        let keys = "SELECT (SELECT count(*) FROM open_jobs) - (SELECT count(*) FROM jobs WHERE finished_at IS NULL)";
        assert_eq!(self.number(keys).await, 0, "open_jobs is not the list of open jobs");
        assert_eq!(self.number("SELECT count(*) FROM sweeps WHERE state = 'open' AND open = 0").await, 0);
        assert_eq!(self.number("SELECT count(*) FROM sweeps WHERE state = 'done' AND open <> 0").await, 0);
        let lines = "SELECT count(*) FROM sweeps WHERE lines <> queued + joined + duplicates + not_eligible + refused";
        assert_eq!(self.number(lines).await, 0, "the lines of a sweep do not add up");
        assert!(self.store.verify_record().await.unwrap().is_ok(), "the chain is broken");
    }
}

fn completion(held: bool) -> Completion {
    Completion { receipt: "{}".to_owned(), held, filed_as: "processed/weekly.txt".to_owned(), unasked: None }
}
