//! The token of a lane, and the time that comes with it: by the sign-in server's clock the ledger knows how old
//! calls are, so there is no token before it does.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Lane, lock};
use crate::defender::{SignInError, Token};
use crate::domain::time::{Boot, Wall, Witness, seconds_left};
use crate::domain::trouble::Trouble;

/// The dispatcher goes round every 30 s; and no window that Defender counts by is shorter.
const GAP: Duration = Duration::from_mins(1);
/// So far the dates of two servers' answers may lie apart, network and rounding included.
const DOUBTFUL: Duration = Duration::from_secs(10);
/// The server's time is written down again after this, if it could not be.
const UNWRITTEN: Duration = Duration::from_secs(5);

/// Why there is no token.
#[derive(Clone, Debug)]
pub struct SignedOut {
    pub since: Wall,
    pub why: String,
    /// When it is tried again.
    pub until: Boot,
}

impl SignedOut {
    /// Sign-ins failed already before this lane began, which is to try one at once.
    pub(super) const fn before(since: Wall) -> Self {
        Self { since, why: String::new(), until: Boot(i64::MIN) }
    }
}

impl Lane {
    /// Why there is no token, and until when none is asked for.
    pub fn signed_out(&self) -> Option<SignedOut> {
        let now = self.now();
        lock(&self.signed_out).clone().filter(|signed_out| signed_out.until > now)
    }

    /// Whether this lane has signed in: if its server tells the time, it is known since.
    pub fn has_signed_in(&self) -> bool {
        self.has_signed_in.load(Ordering::SeqCst)
    }

    /// A token; a failure is on record, in the log and in the health, once.
    pub async fn token(&self) -> Result<Token, SignInError> {
        // Whoever comes second must not make a call before the first one's time has aged the slots.
        let _turn = self.signing_in.lock().await;
        self.sign_in_after_a_gap().await;
        let began = self.now();
        let outcome = self.client.token().await;
        let took = self.now().since(began);
        let name = self.name.as_str();
        match &outcome {
            Ok(signed_in) => {
                self.shared.health.token(name, Ok(()));
                if let Some(seen) = signed_in.server_time {
                    *lock(&self.unwritten_time) = Some(seen);
                } else if signed_in.fresh_for.is_some() {
                    self.shared.signals.told_no_time();
                }
                self.know_the_time().await?;
                *lock(&self.signed_out) = None;
                let is_first = !self.has_signed_in.swap(true, Ordering::SeqCst);
                if let Some(lives) = signed_in.fresh_for {
                    if let Err(error) = self.shared.store.forget_old_slots(self.budget, self.now()).await {
                        self.database_fails("slots that are too old to matter", &error);
                    }
                    self.shared.metrics.call(name, "sign_in", "ok", took);
                    self.tell_token(lives, is_first);
                    self.record_sign_in(None).await;
                }
            }
            Err(error) => {
                self.shared.health.token(name, Err(error.message.clone()));
                self.be_signed_out(error);
                self.wake.notify_one();
                if error.fresh {
                    self.shared.metrics.call(name, "sign_in", "failed", took);
                    let again = seconds_left(error.until.since(self.now()));
                    if let Some(told) = self.met(Trouble::SignIn) {
                        tracing::error!(tenant = name, %error, times = told.times, "the sign-in failed; it is tried again in {again} s, or on SIGHUP{told}");
                    }
                    self.record_sign_in(Some(error.message.clone())).await;
                }
            }
        }
        outcome.map(|signed_in| signed_in.token)
    }

    /// The first token of a lane tells that tenant, application and secret are right; those that follow tell nothing.
    fn tell_token(&self, lives: Duration, is_first: bool) {
        let (tenant, lives_seconds) = (self.name.as_str(), lives.as_secs());
        if let Some(told) = self.over(Trouble::SignIn) {
            tracing::info!(tenant, lives_seconds, times = told.times, "signed in, after it had failed{told}");
        } else if is_first {
            tracing::info!(tenant, lives_seconds, "signed in");
        } else {
            tracing::debug!(tenant, lives_seconds, "signed in anew");
        }
    }

    fn be_signed_out(&self, error: &SignInError) {
        let now = self.wall();
        let mut signed_out = lock(&self.signed_out);
        let since = signed_out.as_ref().map_or(now, |before| before.since);
        *signed_out = Some(SignedOut { since, why: error.message.clone(), until: error.until });
    }

    /// Has the ledger go by what the sign-in server's clock said last: for the age of slots over a reboot
    /// and where a clock of ours is wrong. Until it does, there is no token.
    async fn know_the_time(&self) -> Result<(), SignInError> {
        let Some(seen) = *lock(&self.unwritten_time) else { return Ok(()) };
        let first = lock(&self.server_time).replace(seen).is_none();
        let runs = !lock(&self.server_pace).is_wrong();
        self.shared.signals.told_time(if runs { Witness::Server(seen) } else { Witness::Mute });
        let (ours, theirs) = (self.shared.clock.wall(), seen.now(self.now()));
        let apart = theirs.since(ours).max(ours.since(theirs));
        if first && apart > Duration::from_mins(5) {
            tracing::warn!(tenant = %self.name, seconds = apart.as_secs(), "this machine's clock and the sign-in server's are {} s apart: check the time service; the budget does not depend on it", apart.as_secs());
        }
        let written = self.shared.store.server_time(&self.shared.boot_id, self.budget, seen, self.unknown_grace).await;
        let ahead = written.map_err(|error| {
            self.database_fails("the server's time, before which no call is made", &error);
            let message = format!("the database does not take the server's time: {error}; is the disk full?");
            let error = SignInError { message, until: self.now() + UNWRITTEN, fresh: false, unreachable: false };
            self.be_signed_out(&error);
            error
        })?;
        *lock(&self.unwritten_time) = None;
        if !ahead.is_zero() {
            self.spending.boot_went_ahead(ahead);
            let seconds = ahead.as_secs();
            tracing::warn!(tenant = %self.name, seconds, "this machine's boot clock went ahead of the sign-in server's by {seconds} s: calls count as made so much later; is a library or a snapshot setting clocks here?");
        }
        Ok(())
    }

    /// An answer has told the server's time: does its clock run as ours does?
    pub async fn server_answered(&self, at: Boot, date: Wall) {
        let verdict = lock(&self.server_pace).observe(at, date);
        self.doubt_the_boot_clock(at, date).await;
        let Some(runs) = verdict else { return };
        if !runs {
            self.shared.signals.told_time(Witness::Mute);
            tracing::warn!(tenant = %self.name, "the clock in Defender's answers does not run as this machine's does: it is not used to tell how old calls are");
        }
        if let Err(error) = self.shared.store.server_runs(&self.shared.boot_id, self.budget, runs).await {
            self.database_fails("the pace of the server's clock", &error);
        }
    }

    /// An answer shows our boot clock far ahead of where the last sign-in had it: the next call is not made
    /// before another sign-in has told the time. Once a minute at most, and of a clock that runs.
    async fn doubt_the_boot_clock(&self, at: Boot, date: Wall) {
        let told = lock(&self.server_time).filter(|_| !lock(&self.server_pace).is_wrong());
        let ahead = told.map(|told| at.since(told.answered).saturating_sub(date.since(told.date)));
        let lately = lock(&self.doubted).is_some_and(|doubted| at.since(doubted) < GAP);
        if ahead.is_some_and(|ahead| ahead > DOUBTFUL) && !lately {
            *lock(&self.doubted) = Some(at);
            self.client.sign_in_anew().await;
        }
    }

    /// After a gap in which nothing of this lane ran (a suspend, a stop, or a boot clock that jumped)
    /// the sign-in is asked for the time before the next call.
    pub async fn mind_the_gap(&self) {
        let _turn = self.signing_in.lock().await;
        self.sign_in_after_a_gap().await;
    }

    async fn sign_in_after_a_gap(&self) {
        let now = self.now();
        let before = *lock(&self.last_round);
        if before.is_some_and(|before| now.since(before) > GAP) {
            self.client.sign_in_anew().await;
        }
        *lock(&self.last_round) = Some(now);
    }

    async fn record_sign_in(&self, failed: Option<String>) {
        let is_refused = self.tokens_are_refused.load(Ordering::SeqCst);
        if let Err(error) = self.shared.store.record_sign_in(self.row, failed, is_refused, self.wall()).await {
            self.database_fails("the record of a sign-in", &error);
        }
    }

    /// Defender refuses a fresh token: no sign-in goes well until it accepts one, whatever Entra says.
    pub async fn tokens_refused(&self) {
        if !self.tokens_are_refused.swap(true, Ordering::SeqCst) {
            self.note_tokens(true).await;
        }
    }

    /// Defender has answered a call by more than a 401.
    pub async fn tokens_accepted(&self) {
        if self.tokens_are_refused.swap(false, Ordering::SeqCst) {
            self.note_tokens(false).await;
        }
    }

    async fn note_tokens(&self, are_refused: bool) {
        if let Err(error) = self.shared.store.note_tokens(self.row, are_refused, self.wall()).await {
            self.database_fails("whether Defender accepts tokens", &error);
        }
        self.wake.notify_one();
    }
}
