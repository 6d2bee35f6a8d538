//! A tenant's lane: what its dispatcher, follow-up and look-up share.

mod call;
pub mod cancel;
mod denial;
pub mod dispatch;
mod feed;
pub mod follow;
pub mod inventory;
pub mod lookup;
pub mod reads;
pub mod spending;
mod token;

pub use token::SignedOut;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::budget::Budget;
use crate::config::{Config, FollowUp, Tenant, UnknownMarks};
use crate::defender::Client;
use crate::domain::cadence::Rest;
use crate::domain::eligibility::{Inactive, Rules};
use crate::domain::id::TenantName;
use crate::domain::lane::Lane as Breakers;
use crate::domain::ledger::{Admission, CallKind, Limits};
use crate::domain::refusals::Refusals;
use crate::domain::silence::Change;
use crate::domain::throttle::Told;
use crate::domain::time::{Boot, ServerPace, ServerTime, WRONG, Wall};
use crate::domain::trouble::Trouble;
use crate::engine::{Known, Shared, client_of};
use crate::health::Repeated;
use crate::store::StoreError;
use crate::store::settle::Policy;
use crate::store::slots::{BudgetRow, Stamp};
use crate::store::tenants::{TenantRow, Waiting};
use crate::store::throttles::SilenceNote;
use inventory::AtHand;
use spending::Spending;

/// Waits shorter than this are not worth telling.
const WORTH_TELLING: Duration = Duration::from_secs(1);

/// A wall clock that went back by more has been stepped.
const STEPPED_BACK: i64 = 2_000;

/// What came of a call, as far as its budget is concerned.
#[derive(Clone, Copy, Debug)]
pub enum Heard {
    /// A 429.
    Throttled(Told),
    /// Another answer, to a call that began then.
    Answer(Boot),
    /// None that can be read.
    Nothing,
}

/// When the list of pending actions was looked at.
#[derive(Clone, Copy)]
struct FeedAt {
    began: Boot,
    ended: Boot,
}

pub struct Lane {
    pub shared: Shared,
    pub name: TenantName,
    pub row: TenantRow,
    pub budget: BudgetRow,
    pub tenant: Tenant,
    pub follow_up: FollowUp,
    pub unknown_grace: Duration,
    pub client: Client,
    /// Calls on the wire.
    pub calls: TaskTracker,
    pub stop: CancellationToken,
    /// Wakes the dispatcher. Shared, like the breakers, with the lane that a reload puts in this one's
    /// place: calls of this one may still be on the wire.
    pub wake: Arc<Notify>,
    /// Wakes the follow-up.
    pub follow_soon: Notify,
    /// Wakes the look-up; shared in the same way.
    pub look_soon: Arc<Notify>,
    /// Wakes the cancelling.
    pub cancel_soon: Notify,
    /// Whether sending goes on without knowing what is pending.
    pub feed_is_blind: AtomicBool,
    /// When the tenant's pending actions were last read, or were found not to be readable.
    feed_at: Mutex<Option<FeedAt>>,
    /// When a call was last answered with a no that is not the machine's. Shared, like the breakers.
    refused_at: Arc<Mutex<Option<Boot>>>,
    breakers: Arc<Mutex<Breakers>>,
    spending: Arc<Spending>,
    /// What reading calls have met of 401.
    refusals: Mutex<Refusals>,
    machines: Mutex<AtHand>,
    /// Wakes the reading of machines.
    pub machines_soon: Notify,
    /// Whether a scan was asked for since the list was looked at.
    pub sent: AtomicBool,
    /// Since when the follow-up rests, and for how long.
    rest: Mutex<Option<(Boot, Rest)>>,
    told: Mutex<Option<Waiting>>,
    signed_out: Mutex<Option<SignedOut>>,
    /// What the last 403 of a scan call said.
    denied: Mutex<Option<denial::Denied>>,
    /// Whether Defender refuses fresh tokens.
    tokens_are_refused: AtomicBool,
    /// Whether this lane ever had a token.
    has_signed_in: AtomicBool,
    /// What time it is where the tokens come from.
    server_time: Arc<Mutex<Option<ServerTime>>>,
    /// Whether its clock runs as ours does.
    server_pace: Arc<Mutex<ServerPace>>,
    /// Held from asking for a token until the time that came with it is in the ledger.
    signing_in: tokio::sync::Mutex<()>,
    /// What time the server told with a token, until the ledger goes by it: no call is made before.
    unwritten_time: Mutex<Option<ServerTime>>,
    /// When an answer last showed our boot clock ahead of the server's.
    doubted: Mutex<Option<Boot>>,
    /// When a loop of this lane last ran.
    last_round: Mutex<Option<Boot>>,
    /// By how much the wall clock was ahead of the boot clock when it was asked last.
    wall_ahead: Mutex<Option<i64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lane {
    #[allow(clippy::too_many_arguments, reason = "the parts of a lane, introduced to each other once")]
    pub fn new(
        shared: Shared,
        name: &TenantName,
        known: &Known,
        spending: Arc<Spending>,
        tenant: &Tenant,
        config: &Config,
        before: Option<&Self>,
        calls: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let server_time = before.and_then(|before| *lock(&before.server_time));
        let client = client_of(tenant, &shared.wire, &shared.clock, &shared.ids, server_time);
        let now = shared.clock.boot();
        let per_minute = tenant.budgets.scan.most.per_minute;
        let breakers = before.map_or_else(
            || {
                let mut breakers = Breakers::new(per_minute);
                if let Some(why) = known.memory.hold {
                    breakers.resume_hold(why, now);
                }
                Arc::new(Mutex::new(breakers))
            },
            |before| {
                before.breakers().reload(per_minute, now);
                Arc::clone(&before.breakers)
            },
        );
        Self {
            name: name.clone(),
            row: known.row,
            budget: known.budget,
            tenant: tenant.clone(),
            follow_up: config.follow_up.clone(),
            unknown_grace: config.network.unknown_grace,
            client,
            calls,
            stop,
            wake: before.map_or_else(Arc::default, |before| Arc::clone(&before.wake)),
            follow_soon: Notify::new(),
            cancel_soon: Notify::new(),
            look_soon: before.map_or_else(Arc::default, |before| Arc::clone(&before.look_soon)),
            feed_at: Mutex::default(),
            refused_at: before.map_or_else(Arc::default, |before| Arc::clone(&before.refused_at)),
            feed_is_blind: AtomicBool::new(false),
            breakers,
            spending,
            refusals: Mutex::default(),
            machines: Mutex::default(),
            machines_soon: Notify::new(),
            sent: AtomicBool::new(false),
            rest: Mutex::default(),
            told: Mutex::default(),
            signed_out: Mutex::new(known.memory.sign_in_fails_since.map(SignedOut::before)),
            denied: Mutex::default(),
            tokens_are_refused: AtomicBool::new(false),
            has_signed_in: AtomicBool::new(false),
            server_time: before.map_or_else(Arc::default, |before| Arc::clone(&before.server_time)),
            server_pace: before.map_or_else(Arc::default, |before| Arc::clone(&before.server_pace)),
            signing_in: tokio::sync::Mutex::default(),
            unwritten_time: Mutex::default(),
            doubted: Mutex::default(),
            last_round: Mutex::default(),
            wall_ahead: Mutex::default(),
            shared,
        }
    }

    /// This has happened to the tenant. Returns what to log, if it is to be logged.
    pub fn met(&self, trouble: Trouble) -> Option<Repeated> {
        self.shared.health.met(trouble, self.name.as_str())
    }

    /// It is over. Returns what to log, if there was trouble and its end is to be logged.
    pub fn over(&self, trouble: Trouble) -> Option<Repeated> {
        self.shared.health.over(trouble, self.name.as_str())
    }

    /// The database failed in what a loop of this lane was about.
    pub fn database_fails(&self, what: &str, error: &StoreError) {
        self.shared.database_fails(self.name.as_str(), what, error);
    }

    pub fn now(&self) -> Boot {
        self.shared.clock.boot()
    }

    /// Whether what is known to be pending is recent enough to send by: a call that was refused goes back to the
    /// queue without a look-up, and one look shows whether it had its effect all the same.
    pub fn feed_is_fresh(&self) -> bool {
        let now = self.now();
        let old = (self.follow_up.interval * 3).max(Duration::from_mins(2));
        let refused = *lock(&self.refused_at);
        lock(&self.feed_at)
            .is_some_and(|at| now.since(at.ended) < old && refused.is_none_or(|refused| at.began >= refused))
    }

    /// A call was refused, and its job goes back to the queue: the list is read before the next one is made.
    pub fn was_refused(&self) {
        *lock(&self.refused_at) = Some(self.now());
        self.follow_soon.notify_one();
    }

    /// When the last look at the list began.
    pub fn feed_began(&self) -> Boot {
        lock(&self.feed_at).map_or(Boot(i64::MIN), |at| at.began)
    }

    /// Whether the feed was ever read by this lane.
    pub fn feed_was_read(&self) -> bool {
        lock(&self.feed_at).is_some()
    }

    /// The list was read, in a look that began then.
    pub fn feed_read(&self, began: Boot) {
        *lock(&self.feed_at) = Some(FeedAt { began, ended: self.now() });
        self.feed_is_blind.store(false, Ordering::SeqCst);
    }

    /// Nobody reads the list while there is nothing to send and nothing to follow: whoever comes next
    /// has it read first.
    pub fn feed_idle(&self) {
        *lock(&self.feed_at) = Some(FeedAt { began: Boot(i64::MIN), ended: Boot(i64::MIN) });
    }

    /// The list cannot be read: what was known to be pending is not trusted any more.
    pub fn feed_unreadable(&self) {
        let now = self.now();
        *lock(&self.feed_at) = Some(FeedAt { began: now, ended: now });
        self.feed_is_blind.store(true, Ordering::SeqCst);
    }

    pub fn stamp(&self) -> Stamp {
        Stamp {
            epoch: self.shared.epoch,
            boot_id: self.shared.boot_id.clone(),
            boot: self.shared.clock.boot(),
            at: self.wall(),
        }
    }

    /// What the ledger may admit now.
    pub fn limits(&self, kind: CallKind) -> Limits {
        self.budget(kind).map_or(self.tenant.budgets.of(kind).most, |mut budget| budget.limits())
    }

    pub fn policy(&self) -> Policy {
        Policy {
            rules: self.rules(),
            max_attempts: self.tenant.max_attempts,
            lookup_horizon: self.follow_up.lookup_horizon,
            unknown_grace: self.unknown_grace,
        }
    }

    pub fn minds_marks(&self) -> bool {
        self.tenant.unknown_marks == UnknownMarks::Hold
    }

    pub fn rules(&self) -> Rules {
        Rules {
            pending_types: self.tenant.pending_types.clone(),
            // Defender's times are compared with Defender's clock.
            scanned_since: Some(self.tenant.skip_if_scanned_within)
                .filter(|within| !within.is_zero())
                .map(|within| self.server_wall() - within),
            // By a list that cannot be read any more nobody is skipped.
            inactive: if self.machines().is_known() { self.tenant.inactive } else { Inactive::Send },
        }
    }

    /// The list of machines, as far as it is at hand.
    pub fn machines(&self) -> MutexGuard<'_, AtHand> {
        lock(&self.machines)
    }

    pub fn breakers(&self) -> MutexGuard<'_, Breakers> {
        lock(&self.breakers)
    }

    pub fn refusals(&self) -> MutexGuard<'_, Refusals> {
        lock(&self.refusals)
    }

    pub fn budget(&self, kind: CallKind) -> Option<MutexGuard<'_, Budget>> {
        self.spending.of(kind)
    }

    /// Whether the pace admits a call now; else when to ask again.
    pub fn paced(&self, kind: CallKind) -> Result<(), Boot> {
        self.budget(kind).map_or(Ok(()), |mut budget| budget.check())
    }

    /// A call that the pace admitted is not made: the next one goes for it.
    pub fn give_back(&self, kind: CallKind) {
        if let Some(mut budget) = self.budget(kind) {
            budget.give_back();
        }
    }

    /// The ledger refused because of this window: all that is ours of it is used.
    pub async fn bound(&self, kind: CallKind, admission: Admission) {
        let (Admission::NotBefore(_, window) | Admission::WhenSettled(window)) = admission else { return };
        if let Some(mut budget) = self.budget(kind) {
            budget.bound(window);
        }
        self.note_foreign(kind).await;
    }

    /// A 429: what was ours of the window that is full? The rest was somebody else's.
    pub async fn learn(&self, kind: CallKind, told: Told) {
        match self.shared.store.answered(self.budget, kind, self.now()).await {
            Ok(answered) => {
                if let Some(mut budget) = self.budget(kind) {
                    budget.measured(answered, told);
                }
                self.note_foreign(kind).await;
            }
            Err(error) => {
                self.database_fails("what others spend of the budget", &error);
            }
        }
    }

    /// Writes down what others are believed to spend, until it is on disk: an estimate is also forgotten
    /// in time.
    pub async fn note_foreign(&self, kind: CallKind) {
        let Some(seen) = self.budget(kind).and_then(|mut budget| budget.to_note()) else { return };
        let (foreign, last_429) = seen;
        let last_429 = self.wall() - self.now().since(last_429);
        if let Err(error) = self.shared.store.note_foreign(self.budget, kind, foreign, last_429).await {
            self.database_fails("what others spend of the budget", &error);
            return;
        }
        tracing::debug!(tenant = %self.name, call = kind.as_str(), minute = foreign.minute, hour = foreign.hour,
            "calls that others with the same app registration are believed to make");
        if let Some(mut budget) = self.budget(kind) {
            budget.noted(seen);
        }
    }

    /// Until when no call of this kind may be made, since Defender asked for that: whoever was told.
    pub fn silent_until(&self, kind: CallKind) -> Option<Boot> {
        self.budget(kind).and_then(|budget| budget.silent_until())
    }

    /// What an answer means for the silence of its kind of call; at once, since others are about to
    /// call. To be written down with the answer.
    pub fn heard(&self, kind: CallKind, heard: Heard) -> SilenceNote {
        let change = match (self.budget(kind), heard) {
            (Some(mut budget), Heard::Throttled(told)) => budget.throttled(told),
            (Some(mut budget), Heard::Answer(began)) => budget.answered(began),
            (None, _) | (_, Heard::Nothing) => Change::None,
        };
        SilenceNote { budget: self.budget, kind, change, boot_id: self.shared.boot_id.clone(), boot: self.now() }
    }

    /// Another process may have met a 429: what it has written down is kept here too.
    pub async fn hear_of_silences(&self) {
        match self.shared.store.learnt(self.budget).await {
            Ok(learnt) => self.spending.hear_of(&learnt),
            Err(error) => {
                self.database_fails("silences that other processes met", &error);
            }
        }
    }

    /// The wall clock; or the clock of the sign-in server, where ours is plainly wrong: a machine that
    /// boots in 1970 would wait for ever, and one that boots in 2036 give everything up.
    pub fn wall(&self) -> Wall {
        let ours = self.shared.clock.wall();
        let theirs = lock(&self.server_time).filter(|_| !lock(&self.server_pace).is_wrong());
        let theirs = theirs.map(|seen| seen.now(self.now()));
        theirs.filter(|theirs| theirs.since(ours) > WRONG || ours.since(*theirs) > WRONG).unwrap_or(ours)
    }

    /// What time it is at Defender, as far as we know: by the sign-in server's clock, else ours.
    pub fn server_wall(&self) -> Wall {
        // Not held meanwhile: our own wall clock is read by it too.
        let seen = *lock(&self.server_time);
        seen.map_or_else(|| self.wall(), |seen| seen.now(self.now()))
    }

    /// Whether the wall clock went back since this was asked last; before a start nobody knows.
    pub fn wall_went_back(&self) -> bool {
        let ahead = self.wall().0.saturating_sub(self.now().0);
        lock(&self.wall_ahead).replace(ahead).is_none_or(|before| ahead < before - STEPPED_BACK)
    }

    /// The follow-up rests from now on. Whoever waits for its next look may say so.
    pub fn rests(&self, rest: Rest) {
        *lock(&self.rest) = Some((self.now(), rest));
        // Whoever waits for the list itself would only ask for it again at once.
        if self.feed_is_fresh() {
            self.wake.notify_one();
        }
    }

    /// When the list is looked at next, if that is worth telling: not when it is about to be, or is being read.
    pub fn next_look(&self) -> Option<Boot> {
        let (since, rest) = (*lock(&self.rest))?;
        let next = since + if self.sent.load(Ordering::SeqCst) { rest.once_sent } else { rest.usual };
        (next.since(self.now()) >= WORTH_TELLING).then_some(next)
    }

    /// By the wall clock, what the boot clock says.
    pub fn wall_of(&self, at: Boot) -> Wall {
        self.wall() + at.since(self.now())
    }

    /// Waits until then, until something happens, or until the lane stops.
    pub async fn wait(&self, notice: &Notify, until: Option<Boot>) {
        let until = until.unwrap_or_else(|| self.now() + Duration::from_secs(30));
        tokio::select! {
            // In this order: a lane that has stopped takes no notice from the one in its place.
            biased;
            () = self.stop.cancelled() => {}
            () = notice.notified() => {}
            () = self.shared.clock.sleep_until(until) => {}
        }
    }

    /// Whether what was written down last begins so.
    pub fn has_told(&self, beginning: &str) -> bool {
        lock(&self.told).as_ref().is_some_and(|told| told.what.starts_with(beginning))
    }

    /// Writes down what the lane waits for, if that has changed and will last. `{until}` in the text
    /// stands for the time ([`Waiting::told`]).
    pub async fn tell(&self, what: String, until: Option<Boot>) {
        if until.is_some_and(|until| until.since(self.now()) < WORTH_TELLING) {
            return;
        }
        let until = until.map(|until| self.wall_of(until));
        let waiting = Waiting { what, until };
        {
            let mut told = lock(&self.told);
            // The wall clock of the same moment wobbles by a millisecond or two.
            let same = told.as_ref().is_some_and(|told| {
                told.what == waiting.what
                    && match (told.until, waiting.until) {
                        (Some(a), Some(b)) => a.since(b) < WORTH_TELLING && b.since(a) < WORTH_TELLING,
                        (a, b) => a == b,
                    }
            });
            if same {
                return;
            }
            *told = Some(waiting.clone());
        }
        if let Err(error) = self.shared.store.set_waiting(self.row, waiting).await {
            self.database_fails("what the tenant waits for", &error);
        }
    }
}
