//! The sign-in: client credentials at Entra (v2 endpoint), or the identity of this machine; one in
//! flight for each tenant.
//!
//! A failing sign-in, a wrong secret included, is tried again after 5 s, doubling to 5 min: never a
//! storm. A token is renewed ahead of its end, and once when Defender refuses it.

mod answer;
mod certificate;
mod claims;
mod credential;
mod managed;
#[cfg(test)]
mod tests;
mod workload;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use secrecy::zeroize::Zeroize as _;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{Body, Failure, Reply, Wire, http_date};
use crate::clock::Clock;
use crate::domain::time::{Boot, ServerTime, Wall};

use answer::Refusal;
pub use claims::Claims;
pub use credential::{Authority, Credential};

/// Renewed so long before its end, or at nine tenths of a short life.
const AHEAD: Duration = Duration::from_mins(5);
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LAST_PAUSE: Duration = Duration::from_mins(5);
/// Where our clock and the sign-in server's are further apart, assertions go by the server's.
const APART: Duration = Duration::from_mins(1);

/// A right to call Defender, for a while.
#[derive(Clone, Debug)]
pub struct Token {
    pub(super) secret: SecretString,
    generation: u64,
    /// Whether Defender has accepted a machine with it; one for all copies.
    accepted: Arc<AtomicBool>,
}

impl Token {
    /// Defender has accepted a machine with it.
    pub fn note_accepted(&self) {
        self.accepted.store(true, Ordering::SeqCst);
    }

    /// Whether Defender has accepted a machine with it.
    pub fn was_accepted(&self) -> bool {
        self.accepted.load(Ordering::SeqCst)
    }

    /// What it says of itself, if that can be read. For telling only: nothing verifies it, and Entra
    /// promises nothing about it.
    pub fn claims(&self) -> Option<Claims> {
        Claims::read(self.secret.expose_secret())
    }
}

/// A token, and whether it was signed in for just now: then that is on record.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// The token.
    pub token: Token,
    /// How long it lives, if it is new.
    pub fresh_for: Option<Duration>,
    /// What time it is at the authority, if it was asked and told.
    pub server_time: Option<ServerTime>,
}

/// Why there is no token, what to do about it, and when it is tried again.
#[derive(Clone, Debug)]
pub struct SignInError {
    /// In words, with Entra's code.
    pub message: String,
    /// Not tried before.
    pub until: Boot,
    /// Whether this is a new failure, or the last one told again.
    pub fresh: bool,
    /// Whether the authority could not be reached at all.
    pub unreachable: bool,
}

impl fmt::Display for SignInError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

struct Live {
    token: Token,
    renew: Boot,
    ends: Boot,
}

struct Failed {
    message: String,
    until: Boot,
    pause: Duration,
    unreachable: bool,
}

#[derive(Default)]
struct State {
    live: Option<Live>,
    failed: Option<Failed>,
    generations: u64,
    /// What Entra's answers said last, refusals included.
    server_time: Option<ServerTime>,
}

/// Where ids come from that must not repeat: an argument, so that a seed replays.
pub type Guids = Arc<dyn Fn() -> Uuid + Send + Sync>;

/// The sign-in of one tenant.
pub struct SignIn {
    wire: Arc<dyn Wire>,
    clock: Arc<dyn Clock>,
    guids: Guids,
    credential: Credential,
    /// Locked while one is in flight: the others wait for its result.
    state: Mutex<State>,
}

/// Why there is no token.
struct Trouble {
    message: String,
    unreachable: bool,
}

/// What came of asking once.
struct Asked {
    token: Result<(SecretString, Duration), Trouble>,
    server_time: Option<ServerTime>,
}

impl Asked {
    fn failed(message: String, unreachable: bool) -> Self {
        Self { token: Err(Trouble { message, unreachable }), server_time: None }
    }
}

impl SignIn {
    /// The sign-in with this credential.
    pub fn new(wire: Arc<dyn Wire>, clock: Arc<dyn Clock>, guids: Guids, credential: Credential) -> Self {
        Self { wire, clock, guids, credential, state: Mutex::new(State::default()) }
    }

    /// The same, with what a sign-in before it has learnt of the server's clock.
    #[must_use]
    pub fn knowing(mut self, server_time: Option<ServerTime>) -> Self {
        self.state.get_mut().server_time = server_time;
        self
    }

    /// A token that is good for a while: the one there is, or a new one.
    pub async fn token(&self) -> Result<SignedIn, SignInError> {
        let mut state = self.state.lock().await;
        let now = self.clock.boot();
        let usable = state.live.as_ref().filter(|live| now < live.ends).map(|live| (live.token.clone(), live.renew));
        if let Some((token, renew)) = &usable
            && (now < *renew || state.failed.as_ref().is_some_and(|failed| now < failed.until))
        {
            return Ok(SignedIn { token: token.clone(), fresh_for: None, server_time: None });
        }
        if let Some(failed) = state.failed.as_ref().filter(|failed| now < failed.until) {
            return Err(SignInError {
                message: failed.message.clone(),
                until: failed.until,
                fresh: false,
                unreachable: failed.unreachable,
            });
        }
        let Asked { token, server_time } = self.ask(state.server_time).await;
        state.server_time = server_time.or(state.server_time);
        match token {
            Ok((secret, lives)) => {
                let now = self.clock.boot();
                state.generations += 1;
                let token = Token { secret, generation: state.generations, accepted: Arc::default() };
                let renew = now + lives.saturating_sub(AHEAD.min(lives / 10));
                state.live = Some(Live { token: token.clone(), renew, ends: now + lives });
                state.failed = None;
                Ok(SignedIn { token, fresh_for: Some(lives), server_time })
            }
            Err(Trouble { message, unreachable }) => {
                let pause = state.failed.as_ref().map_or(FIRST_PAUSE, |failed| (failed.pause * 2).min(LAST_PAUSE));
                let until = self.clock.boot() + pause;
                state.failed = Some(Failed { message: message.clone(), until, pause, unreachable });
                // The old token is good for a while yet: that the renewal failed is told all the same.
                match usable {
                    Some((token, _)) => Ok(SignedIn { token, fresh_for: None, server_time: None }),
                    None => Err(SignInError { message, until, fresh: true, unreachable }),
                }
            }
        }
    }

    /// Defender refused this token. Returns whether it was the current one, which is then dropped.
    pub async fn refused(&self, token: &Token) -> bool {
        let mut state = self.state.lock().await;
        let current = state.live.as_ref().is_some_and(|live| live.token.generation == token.generation);
        if current {
            state.live = None;
        }
        current
    }

    /// The next token is a new one, where that tells the time: no call is made before.
    pub async fn anew(&self) {
        let mut state = self.state.lock().await;
        if state.server_time.is_some() {
            state.live = None;
        }
    }

    /// An operator's word: what failed is tried again at once.
    pub async fn try_again(&self) {
        self.state.lock().await.failed = None;
    }

    /// What our own wall clock has.
    pub fn wall(&self) -> Wall {
        self.clock.wall()
    }

    /// What time it is where an assertion will be read: by our clock, unless that is known to be
    /// wrong.
    fn now(&self, known: Option<ServerTime>) -> Wall {
        let ours = self.clock.wall();
        let theirs = known.map_or(ours, |known| known.now(self.clock.boot()));
        if theirs.since(ours).max(ours.since(theirs)) > APART { theirs } else { ours }
    }

    async fn ask(&self, known: Option<ServerTime>) -> Asked {
        let request = match self.credential.request(self.now(known), &self.guids).await {
            Ok(request) => request,
            Err(message) => return Asked::failed(message, false),
        };
        let secrets = secrets(&request.body);
        let asked = self.clock.boot();
        match self.wire.send(request).await {
            Err(Failure::NotSent(why) | Failure::Lost(why)) => {
                let check = if self.credential.is_managed() {
                    "is this a machine in Azure, and may the service reach that address?"
                } else if why.contains("UnknownIssuer") {
                    "something on the way opens TLS, such as a proxy: name its CA in network.ca_file"
                } else {
                    "check network, proxy and firewall"
                };
                Asked::failed(format!("{} cannot be reached: {why}; {check}", self.credential.url()), true)
            }
            Ok(mut reply) => {
                let seen = |date| ServerTime { asked, answered: self.clock.boot(), date };
                let server_time = reply.date.as_deref().and_then(http_date).map(seen);
                let asked = self.read(&reply, server_time, &secrets);
                // The token is in it.
                reply.text.zeroize();
                asked
            }
        }
    }

    fn read(&self, reply: &Reply, server_time: Option<ServerTime>, secrets: &[SecretString]) -> Asked {
        // The metadata service is on the host of this machine, whose clock is nobody's measure.
        let server_time = server_time.filter(|_| !self.credential.is_managed());
        if let Some(token) = answer::token(reply, self.clock.wall()) {
            let token = match self.credential.foreign_directory(&token.0) {
                Some(message) => Err(Trouble { message, unreachable: false }),
                None => Ok(token),
            };
            return Asked { token, server_time };
        }
        // Before anything of it is cut, which could leave half a secret.
        let refusal = Refusal::read(reply).without(secrets);
        let message = self.explain(reply.status, &refusal);
        let passing = reply.status >= 500 || self.credential.is_managed() && matches!(reply.status, 404 | 410 | 429);
        Asked {
            token: Err(Trouble { message, unreachable: passing }),
            // A proxy on the way may answer too, and has a clock of its own.
            server_time: server_time.filter(|_| refusal.is_of_entra()),
        }
    }

    fn explain(&self, status: u16, refusal: &Refusal) -> String {
        let (url, error, said) = (self.credential.url(), refusal.name(), refusal.said());
        if let Some((code, remedy)) = refusal.remedy() {
            return format!("AADSTS{code}: {remedy}");
        }
        if let Some(remedy) = managed::remedy(status, refusal).filter(|_| self.credential.is_managed()) {
            return format!("{url} answered {status} {error}: {remedy}").replace(" :", ":");
        }
        match (status, said.is_empty(), refusal.explained_at()) {
            (200, ..) => format!("{url} answered 200 without a token"),
            (_, true, None) => format!("{url} answered {status} {error}; is authority_url right?").replace(" ;", ";"),
            (_, _, Some(page)) => format!("{status} {error}: {said}; what to do is told at {page}"),
            (_, false, None) => format!("{status} {error}: {said}"),
        }
    }
}

/// What of a request must not be shown, should an answer repeat it.
fn secrets(body: &Body) -> Vec<SecretString> {
    let Body::Form(fields) = body else { return Vec::new() };
    let secret = fields.iter().filter(|(name, _)| matches!(*name, "client_secret" | "client_assertion"));
    secret.map(|(_, value)| value.clone()).filter(|value| !value.expose_secret().is_empty()).collect()
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignIn").field("credential", &self.credential).finish_non_exhaustive()
    }
}
