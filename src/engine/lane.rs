//! A tenant's lane: what its dispatcher, follow-up and look-up share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Shared;
use crate::budget::Pace;
use crate::config::{Auth, Config, FollowUp, Tenant};
use crate::defender::{Client, SignIn, SignInError, Token};
use crate::domain::eligibility::Rules;
use crate::domain::id::TenantName;
use crate::domain::lane::Lane as Breakers;
use crate::domain::ledger::{CallKind, Limits, Pace as Spread};
use crate::domain::time::{Boot, Wall};
use crate::store::settle::Policy;
use crate::store::slots::Stamp;
use crate::store::tenants::{LaneMemory, TenantRow, Waiting};

/// Waits shorter than this are not worth telling.
const WORTH_TELLING: Duration = Duration::from_secs(1);

pub struct Lane {
    pub shared: Shared,
    pub name: TenantName,
    pub row: TenantRow,
    pub tenant: Tenant,
    pub follow_up: FollowUp,
    pub unknown_grace: Duration,
    pub client: Client,
    /// Calls on the wire.
    pub calls: TaskTracker,
    pub stop: CancellationToken,
    /// Wakes the dispatcher.
    pub wake: Notify,
    /// Wakes the follow-up.
    pub follow_soon: Notify,
    /// Wakes the look-up.
    pub look_soon: Notify,
    /// Whether sending goes on without knowing what is pending.
    pub feed_is_blind: AtomicBool,
    /// Whether the tenant refuses to list by last update.
    pub feed_refused: AtomicBool,
    /// When the tenant's pending actions were last read, or were found not to be readable.
    feed_at: Mutex<Option<Boot>>,
    /// Shared with the lane that a reload puts in this one's place: its calls may still be on the wire.
    breakers: Arc<Mutex<Breakers>>,
    paces: Arc<BTreeMap<CallKind, Mutex<Pace>>>,
    /// Reading calls that were throttled: not before.
    read_holds: Arc<Mutex<BTreeMap<CallKind, Boot>>>,
    told: Mutex<Option<Waiting>>,
    /// Why there is no token, and when it is tried again.
    signed_out: Mutex<Option<(String, Boot)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lane {
    #[allow(clippy::too_many_arguments, reason = "the parts of a lane, introduced to each other once")]
    pub fn new(
        shared: Shared,
        name: &TenantName,
        row: TenantRow,
        tenant: &Tenant,
        config: &Config,
        memory: &LaneMemory,
        before: Option<&Self>,
        calls: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let Auth::ClientSecret { client_id, secret } = &tenant.auth;
        let sign_in = SignIn::new(
            Arc::clone(&shared.wire),
            Arc::clone(&shared.clock),
            &tenant.authority_url,
            tenant.tenant_id,
            client_id,
            secret.clone(),
            &tenant.scope,
        );
        let client = Client::new(Arc::clone(&shared.wire), &tenant.api_url, Arc::new(sign_in));
        let now = shared.clock.boot();
        let breakers = before.map_or_else(
            || {
                let mut breakers = Breakers::new(tenant.limits.per_minute);
                if let Some((why, until)) = memory.hold {
                    breakers.resume_hold(why, now, until);
                }
                Arc::new(Mutex::new(breakers))
            },
            |before| {
                before.breakers().reload(tenant.limits.per_minute, now);
                Arc::clone(&before.breakers)
            },
        );
        let pace = |kind: CallKind| {
            let (limits, spread) = match kind {
                CallKind::Scan => (tenant.limits, tenant.pace),
                _ => (Limits::DOCUMENTED, Spread::Burst),
            };
            (kind, Mutex::new(Pace::new(Arc::clone(&shared.clock), limits, spread)))
        };
        // Under the same limits a reload changes nothing about the pace.
        let same = before.filter(|before| before.tenant.limits == tenant.limits && before.tenant.pace == tenant.pace);
        let paces = same.map_or_else(
            || Arc::new(CallKind::ALL.iter().copied().map(pace).collect()),
            |before| Arc::clone(&before.paces),
        );
        Self {
            name: name.clone(),
            row,
            tenant: tenant.clone(),
            follow_up: config.follow_up.clone(),
            unknown_grace: config.network.unknown_grace,
            client,
            calls,
            stop,
            wake: Notify::new(),
            follow_soon: Notify::new(),
            look_soon: Notify::new(),
            feed_at: Mutex::default(),
            feed_refused: AtomicBool::new(false),
            feed_is_blind: AtomicBool::new(false),
            breakers,
            paces,
            read_holds: before.map_or_else(Arc::default, |before| Arc::clone(&before.read_holds)),
            told: Mutex::default(),
            signed_out: Mutex::default(),
            shared,
        }
    }

    pub fn now(&self) -> Boot {
        self.shared.clock.boot()
    }

    /// Whether what is known to be pending is recent enough to send by.
    pub fn feed_is_fresh(&self) -> bool {
        let now = self.now();
        let old = (self.follow_up.interval * 3).max(Duration::from_mins(2));
        lock(&self.feed_at).is_some_and(|at| now.since(at) < old)
    }

    /// Whether the feed was ever read by this lane.
    pub fn feed_was_read(&self) -> bool {
        lock(&self.feed_at).is_some()
    }

    pub fn feed_read(&self) {
        *lock(&self.feed_at) = Some(self.now());
        self.feed_is_blind.store(false, Ordering::SeqCst);
    }

    /// Nobody reads the list while there is nothing to send and nothing to follow: whoever comes next
    /// has it read first.
    pub fn feed_idle(&self) {
        *lock(&self.feed_at) = Some(Boot(i64::MIN));
    }

    /// The list cannot be read: what was known to be pending is not trusted any more.
    pub fn feed_unreadable(&self) {
        *lock(&self.feed_at) = Some(self.now());
        self.feed_is_blind.store(true, Ordering::SeqCst);
    }

    pub fn stamp(&self) -> Stamp {
        Stamp {
            epoch: self.shared.epoch,
            boot_id: self.shared.boot_id.clone(),
            boot: self.shared.clock.boot(),
            at: self.shared.clock.wall(),
        }
    }

    pub fn limits(&self, kind: CallKind) -> Limits {
        if kind == CallKind::Scan { self.tenant.limits } else { Limits::DOCUMENTED }
    }

    pub fn policy(&self) -> Policy {
        Policy {
            rules: self.rules(),
            max_attempts: self.tenant.max_attempts,
            lookup_horizon: self.follow_up.lookup_horizon,
            unknown_grace: self.unknown_grace,
        }
    }

    pub fn rules(&self) -> Rules {
        Rules {
            pending_types: self.tenant.pending_types.clone(),
            skip_if_scanned_within: self.tenant.skip_if_scanned_within,
        }
    }

    pub fn breakers(&self) -> MutexGuard<'_, Breakers> {
        lock(&self.breakers)
    }

    pub fn pace(&self, kind: CallKind) -> Option<MutexGuard<'_, Pace>> {
        self.paces.get(&kind).map(lock)
    }

    /// When a reading call may be made again after it was throttled.
    pub fn read_hold(&self, kind: CallKind) -> Option<Boot> {
        let now = self.now();
        lock(&self.read_holds).get(&kind).copied().filter(|until| *until > now)
    }

    pub fn hold_reads(&self, kind: CallKind, until: Boot) {
        lock(&self.read_holds).insert(kind, until);
    }

    /// By the wall clock, what the boot clock says.
    pub fn wall_of(&self, at: Boot) -> Wall {
        self.shared.clock.wall() + at.since(self.now())
    }

    /// Waits until then, until something happens, or until the lane stops.
    pub async fn wait(&self, notice: &Notify, until: Option<Boot>) {
        let until = until.unwrap_or_else(|| self.now() + Duration::from_secs(30));
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = notice.notified() => {}
            () = self.shared.clock.sleep_until(until) => {}
        }
    }

    /// Why there is no token, and until when none is asked for.
    pub fn signed_out(&self) -> Option<(String, Boot)> {
        let now = self.now();
        lock(&self.signed_out).clone().filter(|(_, until)| *until > now)
    }

    /// A token; a failure is on record, in the log and in the health, once.
    pub async fn token(&self) -> Result<Token, SignInError> {
        let began = self.now();
        let outcome = self.client.token().await;
        let took = self.now().since(began);
        let name = self.name.as_str();
        match &outcome {
            Ok(signed_in) => {
                self.shared.health.token(name, Ok(()));
                *lock(&self.signed_out) = None;
                if let Some(lives) = signed_in.fresh_for {
                    self.shared.metrics.call(name, "sign_in", "ok", took);
                    tracing::info!(tenant = name, lives_seconds = lives.as_secs(), "signed in");
                    self.record_sign_in(serde_json::json!({ "call": "sign_in", "outcome": "ok" })).await;
                }
            }
            Err(error) => {
                self.shared.health.token(name, Err(error.message.clone()));
                *lock(&self.signed_out) = Some((error.message.clone(), error.until));
                self.wake.notify_one();
                if error.fresh {
                    self.shared.metrics.call(name, "sign_in", "failed", took);
                    let again = error.until.since(self.now()).as_secs();
                    tracing::error!(tenant = name, error = %error, "the sign-in failed; it is tried again in {again} s, or on SIGHUP");
                    let body = serde_json::json!({ "call": "sign_in", "outcome": "failed", "answer": error.message });
                    self.record_sign_in(body).await;
                }
            }
        }
        outcome.map(|signed_in| signed_in.token)
    }

    async fn record_sign_in(&self, body: serde_json::Value) {
        use crate::store::events::{Kind, Subject};
        let at = self.shared.clock.wall();
        let written = self.shared.store.record(at, Kind::CallMade, Subject::tenant(self.row), body).await;
        if let Err(error) = written {
            tracing::warn!(tenant = %self.name, %error, "a sign-in could not be recorded");
        }
    }

    /// Writes down what the lane waits for, if that has changed and will last.
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
            tracing::warn!(tenant = %self.name, %error, "what the tenant waits for could not be written");
        }
    }
}
