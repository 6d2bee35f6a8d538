//! The sign-in: client credentials at Entra (v2 endpoint), one in flight for each tenant.
//!
//! A failing sign-in, a wrong secret included, is tried again after 5 s, doubling to 5 min: never a
//! storm. A token is renewed ahead of its end, and once when Defender refuses it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{Body, Failure, Reply, Request, Wire, http_date};
use crate::clock::Clock;
use crate::domain::time::{Boot, ServerTime, Wall};

/// Renewed so long before its end, or at nine tenths of a short life.
const AHEAD: Duration = Duration::from_mins(5);
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LAST_PAUSE: Duration = Duration::from_mins(5);
const ANSWER_AT_MOST: usize = 256 * 1024;

/// A right to call Defender, for a while.
#[derive(Clone, Debug)]
pub struct Token {
    pub(super) secret: SecretString,
    generation: u64,
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
}

/// The sign-in of one tenant.
pub struct SignIn {
    wire: Arc<dyn Wire>,
    clock: Arc<dyn Clock>,
    url: String,
    client_id: String,
    client_secret: SecretString,
    scope: String,
    /// Locked while one is in flight: the others wait for its result.
    state: Mutex<State>,
}

/// What Entra answers; numbers come as strings from some endpoints.
#[derive(Deserialize)]
struct WireToken {
    access_token: SecretString,
    expires_in: serde_json::Value,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireRefusal {
    error: String,
    error_description: String,
    error_codes: Vec<u64>,
}

/// What is known to be behind an error code (Entra's reference; observed in the field).
const REMEDIES: [(u64, &str); 7] = [
    (
        7_000_215,
        "the client secret is wrong; check that its value was copied, not the secret's id, and that it belongs to this app",
    ),
    (
        7_000_222,
        "the client secret has expired; make a new one, then restart sweepd (SIGHUP reads a secret again unless systemd loads it)",
    ),
    (700_016, "the app registration is not in this tenant; check client_id and tenant_id"),
    (90_002, "there is no such tenant; check tenant_id"),
    (700_027, "the certificate is not registered with the app; upload it"),
    (70_011, "the scope is not valid in this cloud; check `cloud`"),
    (7_000_112, "the app registration is disabled; enable it in Entra"),
];

impl SignIn {
    /// A sign-in at `authority` for one tenant and app.
    pub fn new(
        wire: Arc<dyn Wire>,
        clock: Arc<dyn Clock>,
        authority: &str,
        tenant_id: uuid::Uuid,
        client_id: &str,
        client_secret: SecretString,
        scope: &str,
    ) -> Self {
        Self {
            wire,
            clock,
            url: format!("{authority}/{tenant_id}/oauth2/v2.0/token"),
            client_id: client_id.to_owned(),
            client_secret,
            scope: scope.to_owned(),
            state: Mutex::new(State::default()),
        }
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
        match self.ask().await {
            Ok((secret, lives, server_time)) => {
                let now = self.clock.boot();
                state.generations += 1;
                let token = Token { secret, generation: state.generations };
                let renew = now + lives.saturating_sub(AHEAD.min(lives / 10));
                state.live = Some(Live { token: token.clone(), renew, ends: now + lives });
                state.failed = None;
                Ok(SignedIn { token, fresh_for: Some(lives), server_time })
            }
            Err((message, unreachable)) => {
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

    /// An operator's word: what failed is tried again at once.
    pub async fn try_again(&self) {
        self.state.lock().await.failed = None;
    }

    /// What our own wall clock has.
    pub fn wall(&self) -> Wall {
        self.clock.wall()
    }

    async fn ask(&self) -> Result<(SecretString, Duration, Option<ServerTime>), (String, bool)> {
        let asked = self.clock.boot();
        let request = Request {
            post: true,
            url: self.url.clone(),
            bearer: None,
            body: Body::Form(vec![
                ("client_id", self.client_id.clone().into()),
                ("client_secret", self.client_secret.clone()),
                ("grant_type", "client_credentials".to_owned().into()),
                ("scope", self.scope.clone().into()),
            ]),
            at_most: ANSWER_AT_MOST,
        };
        match self.wire.send(request).await {
            Err(Failure::NotSent(why) | Failure::Lost(why)) => {
                Err((format!("{} cannot be reached: {why}; check network, proxy and firewall", self.url), true))
            }
            Ok(reply) => {
                let answered = self.clock.boot();
                let (secret, lives) = self.read(&reply).map_err(|message| (message, reply.status >= 500))?;
                let date = reply.date.as_deref().and_then(http_date);
                Ok((secret, lives, date.map(|date| ServerTime { asked, answered, date })))
            }
        }
    }

    fn read(&self, reply: &Reply) -> Result<(SecretString, Duration), String> {
        if reply.status == 200 && reply.cut.is_none() {
            let token: WireToken =
                serde_json::from_str(&reply.text).map_err(|_| format!("{} answered 200 without a token", self.url))?;
            let seconds = match &token.expires_in {
                serde_json::Value::String(text) => text.parse().ok(),
                number => number.as_u64(),
            };
            let lives = Duration::from_secs(seconds.unwrap_or(3599).clamp(1, 86_400));
            return Ok((token.access_token, lives));
        }
        let refusal: WireRefusal = serde_json::from_str(&reply.text).unwrap_or_default();
        Err(self.explain(reply.status, &refusal))
    }

    fn explain(&self, status: u16, refusal: &WireRefusal) -> String {
        let known = refusal
            .error_codes
            .iter()
            .find_map(|code| REMEDIES.iter().find(|(known, _)| known == code).map(|(_, remedy)| (code, remedy)));
        let secret = self.client_secret.expose_secret();
        let said = refusal.error_description.lines().next().unwrap_or_default().replace(secret, "[redacted]");
        match known {
            Some((code, remedy)) => format!("AADSTS{code}: {remedy}"),
            None if said.is_empty() => {
                format!("{} answered {status} {}; is authority_url right?", self.url, refusal.error).replace("  ", " ")
            }
            None => format!("{status} {}: {said}", refusal.error),
        }
    }
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignIn").field("url", &self.url).field("client_id", &self.client_id).finish_non_exhaustive()
    }
}
