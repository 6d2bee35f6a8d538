//! A tenant in the same process, on a virtual clock, behind a network that does what networks do:
//! it delays, it stalls and lets go all at once, it refuses connections, it loses.
//!
//! A request that has left is out of its sender's hands. It arrives whether or not anybody still
//! waits for the answer: the caller may have given up, or have been killed. One thing holds, the
//! assumption of the ledger's proof: nothing arrives later than `unknown_grace` after it was given
//! up. A request that would, arrives exactly then.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use secrecy::ExposeSecret;

use super::calls::Call;
use super::chance::Chance;
use super::exchange::{Delivery, Manner, Request, Response, form_pairs, query_of};
use super::tenant::Tenant;
use crate::clock::VirtualClock;
use crate::defender::{self, Body, Failure, IN_MILLISECONDS, Reply, Wire};
use crate::domain::ledger::{CallKind, HOUR};
use crate::domain::time::Wall;

/// What the network does.
#[derive(Clone, Debug)]
pub struct Network {
    /// How long a call takes there and back, at least and at most; how much of that passes before
    /// it arrives is drawn for each.
    pub latency: (Duration, Duration),
    /// The share of calls that get no connection.
    pub refused: f64,
    /// The share of calls that leave and never arrive.
    pub lost: f64,
    /// When nothing gets through; in order, and apart.
    pub stalls: Vec<Stall>,
    /// After this a client that gets no connection gives up.
    pub connect_timeout: Duration,
    /// After this a client gives up waiting for an answer.
    pub call_timeout: Duration,
    /// So long after a call was given up it may still arrive.
    pub unknown_grace: Duration,
}

/// A time in which nothing gets through in either direction. What was under way gets through at
/// its end, all at once.
#[derive(Clone, Copy, Debug)]
pub struct Stall {
    /// When it begins.
    pub from: Wall,
    /// When it ends.
    pub until: Wall,
    /// Whether connections are still made, as by a proxy on this side of it.
    pub connects: bool,
}

/// What left this machine, of one kind of call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests that left.
    pub sent: u64,
    /// Requests that got no connection: not a byte has left.
    pub not_sent: u64,
    /// Of those that left, how many will never arrive.
    pub lost: u64,
}

/// A wire to a tenant. Cheap to clone.
#[derive(Clone)]
pub struct InProcess(Arc<Inner>);

struct Inner {
    clock: Arc<VirtualClock>,
    network: Network,
    state: Mutex<State>,
}

struct State {
    tenant: Tenant,
    chance: Chance,
    traffic: BTreeMap<CallKind, Traffic>,
}

impl std::fmt::Debug for InProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InProcess").field("network", &self.0.network).finish_non_exhaustive()
    }
}

/// How one call will travel.
struct Fate {
    /// When it arrives, if it does.
    arrives: Option<Wall>,
    /// How long its answer takes.
    back: Duration,
    /// When a connection stands; never is also possible.
    connects: Option<Wall>,
}

impl InProcess {
    /// A tenant that is reached over `network`. Everything random follows from `seed`.
    pub fn new(clock: Arc<VirtualClock>, tenant: Tenant, network: Network, seed: u64) -> Self {
        let state = State { tenant, chance: Chance::of(seed, b"network"), traffic: BTreeMap::new() };
        Self(Arc::new(Inner { clock, network, state: Mutex::new(state) }))
    }

    /// Does something to the tenant, or asks it, between two requests.
    pub fn with_tenant<T>(&self, act: impl FnOnce(&mut Tenant) -> T) -> T {
        act(&mut self.0.lock().tenant)
    }

    /// What left this machine so far.
    pub fn traffic(&self, kind: CallKind) -> Traffic {
        self.0.lock().traffic.get(&kind).copied().unwrap_or_default()
    }

    /// From now on somebody else who uses the same app registration makes so many calls an hour,
    /// whatever the answer: evenly, or at random times.
    pub fn add_stranger(&self, kind: CallKind, per_hour: u32, evenly: bool) {
        let mean = HOUR / per_hour.max(1);
        let wait = if evenly { mean } else { mean.mul_f64(-(1.0 - self.0.lock().chance.share()).ln()) };
        let next = self.clone();
        self.0.clock.at(self.0.clock.world() + wait, move || {
            let now = next.0.clock.world();
            next.with_tenant(|tenant| tenant.call_by_a_stranger(now, kind));
            next.add_stranger(kind, per_hour, evenly);
        });
    }

    async fn exchange(&self, request: defender::Request) -> Result<Reply, Failure> {
        let at_most = request.at_most;
        let request = arriving(request)?;
        let kind = Call::of(&request).ok().and_then(|call| call.kind());
        let (clock, network) = (&self.0.clock, &self.0.network);
        let now = clock.world();
        let fate = self.0.fate(now, kind);
        let passage = Arc::new(Passage {
            inner: Arc::clone(&self.0),
            request,
            at_most,
            back: fate.back,
            progress: Mutex::new(Progress { gone: fate.arrives.is_none(), ended: false, end: None, waker: None }),
        });
        // From here on the call is under way, and this future only waits.
        if fate.connects.is_none() {
            let passage = Arc::clone(&passage);
            let late = Failure::NotSent("timed out: connecting".to_owned());
            clock.here_at(now + network.connect_timeout, move || passage.end(Err(late)));
        } else {
            let own = Arc::clone(&passage);
            clock.here_at(now + network.call_timeout, move || own.give_up());
        }
        if let Some(at) = fate.arrives {
            let passage = Arc::clone(&passage);
            clock.at(at, move || passage.arrive());
        }
        Waiting(passage).await
    }
}

impl Wire for InProcess {
    fn send(&self, request: defender::Request) -> BoxFuture<'_, Result<Reply, Failure>> {
        Box::pin(self.exchange(request))
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stall(&self, at: Wall) -> Option<&Stall> {
        self.network.stalls.iter().find(|stall| stall.from <= at && at < stall.until)
    }

    /// When what reaches the network at `at` gets through.
    fn through(&self, at: Wall) -> Wall {
        self.stall(at).map_or(at, |stall| stall.until)
    }

    fn fate(&self, now: Wall, kind: Option<CallKind>) -> Fate {
        let mut state = self.lock();
        let (least, most) = self.network.latency;
        let latency = whole(least + most.saturating_sub(least).mul_f64(state.chance.share()));
        // The extremes as often as what lies between: all of it on the way there, or all on the way back.
        let there = match state.chance.below(3) {
            0 => Duration::ZERO,
            1 => latency,
            _ => whole(latency.mul_f64(state.chance.share())),
        };
        let (refused, lost) = (state.chance.share(), state.chance.share());
        let in_time = |at: &Wall| at.since(now) < self.network.connect_timeout;
        let connects = match self.stall(now) {
            _ if refused < self.network.refused => None,
            Some(stall) if !stall.connects => Some(stall.until).filter(in_time),
            _ => Some(now),
        };
        let arrives = connects.filter(|_| lost >= self.network.lost).map(|at| self.through(at + there));
        if let Some(kind) = kind {
            let traffic = state.traffic.entry(kind).or_default();
            traffic.sent += u64::from(connects.is_some());
            traffic.not_sent += u64::from(connects.is_none());
            traffic.lost += u64::from(connects.is_some() && arrives.is_none());
        }
        Fate { arrives, back: latency.saturating_sub(there), connects }
    }
}

/// In milliseconds, in which the clocks count.
fn whole(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

struct Progress {
    /// Whether it has arrived, or never will.
    gone: bool,
    /// Whether its sender has an answer, or waits for none.
    ended: bool,
    end: Option<Result<Reply, Failure>>,
    waker: Option<Waker>,
}

/// A call on its way, there or back.
struct Passage {
    inner: Arc<Inner>,
    request: Request,
    at_most: usize,
    back: Duration,
    progress: Mutex<Progress>,
}

impl Passage {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server has it.
    fn arrive(self: Arc<Self>) {
        if std::mem::replace(&mut self.lock().gone, true) {
            return;
        }
        let clock = &self.inner.clock;
        let now = clock.world();
        let delivery = self.inner.lock().tenant.exchange(now, &self.request);
        let (sent, result) = match delivery {
            Delivery::Answer(answer) | Delivery::Stale(answer) => (now, Ok(reply(&answer, now))),
            Delivery::Late(after, answer) => (now + after, Ok(reply(&answer, now + after))),
            Delivery::Truncated(answer) => (now, Ok(half(reply(&answer, now)))),
            Delivery::Reset => (now, Err(Failure::Lost("the connection was reset".to_owned()))),
            Delivery::ByHand(answer, Manner::Gigabyte | Manner::GzipBomb) => {
                let text = " ".repeat(self.at_most + 1);
                (now, Ok(Reply { text, ..reply(&answer, now) }))
            }
            // However little of an answer comes in time, there is none.
            Delivery::Never | Delivery::ByHand(_, Manner::HeadTrickles | Manner::BodyTrickles | Manner::BodyHangs) => {
                return;
            }
        };
        let result = result.map(|reply| cut(reply, self.at_most));
        let back = self.inner.through(sent + self.back);
        let waiting = Arc::clone(&self);
        clock.here_at(back, move || waiting.end(result));
    }

    /// Its sender gets this, if nothing else before.
    fn end(&self, result: Result<Reply, Failure>) {
        let mut progress = self.lock();
        if std::mem::replace(&mut progress.ended, true) {
            return;
        }
        progress.end = Some(result);
        if let Some(waker) = progress.waker.take() {
            waker.wake();
        }
    }

    /// Its sender's patience has run out.
    fn give_up(self: Arc<Self>) {
        if !self.lock().ended {
            self.end(Err(Failure::Lost("timed out".to_owned())));
            self.abandoned();
        }
    }

    /// Nobody waits any more. What is still on its way arrives in a while at the latest.
    fn abandoned(self: Arc<Self>) {
        if !self.lock().gone {
            let clock = Arc::clone(&self.inner.clock);
            clock.at(clock.world() + self.inner.network.unknown_grace, move || self.arrive());
        }
    }
}

/// The sender's side of a call. Dropped before its end, the call is given up: by a task that was
/// cancelled, or with all others when a process is killed.
struct Waiting(Arc<Passage>);

impl Future for Waiting {
    type Output = Result<Reply, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut progress = self.0.lock();
        if let Some(end) = progress.end.take() {
            return Poll::Ready(end);
        }
        progress.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !std::mem::replace(&mut self.0.lock().ended, true) {
            Arc::clone(&self.0).abandoned();
        }
    }
}

/// What the server gets to see of a request.
fn arriving(request: defender::Request) -> Result<Request, Failure> {
    let url = url::Url::parse(&request.url).map_err(|error| Failure::NotSent(format!("{}: {error}", request.url)))?;
    let (content_type, body) = match request.body {
        Body::None => (None, Vec::new()),
        Body::Json(text) => (Some("application/json"), text.into_bytes()),
        Body::Form(fields) => {
            let pairs = fields.iter().map(|(name, value)| ((*name).to_owned(), value.expose_secret().to_owned()));
            (Some("application/x-www-form-urlencoded"), query_of(&pairs.collect::<Vec<_>>()).into_bytes())
        }
    };
    Ok(Request {
        method: if request.post { "POST" } else { "GET" }.to_owned(),
        path: url.path().to_owned(),
        query: form_pairs(url.query().unwrap_or_default()),
        authorization: request.bearer.map(|bearer| format!("Bearer {}", bearer.expose_secret())),
        content_type: content_type.map(str::to_owned),
        metadata: request.metadata.then(|| "true".to_owned()),
        body,
    })
}

fn reply(answer: &Response, now: Wall) -> Reply {
    let date = UNIX_EPOCH + Duration::from_millis(u64::try_from(now.0).unwrap_or(0));
    // A fault may have put a header of its own in the place of the server's.
    let header = |wanted: &str| {
        let found = answer.headers.iter().rfind(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.clone())
    };
    Reply {
        status: answer.status,
        retry_after: header("retry-after"),
        retry_after_ms: IN_MILLISECONDS.into_iter().find_map(&header),
        date: header("date").or_else(|| Some(httpdate::fmt_http_date(date))),
        text: String::from_utf8_lossy(&answer.body).into_owned(),
        cut: None,
    }
}

fn half(mut reply: Reply) -> Reply {
    let middle = (0..=reply.text.len() / 2).rev().find(|at| reply.text.is_char_boundary(*at)).unwrap_or(0);
    reply.text.truncate(middle);
    reply.cut = Some("the connection ended too early".to_owned());
    reply
}

fn cut(mut reply: Reply, at_most: usize) -> Reply {
    if reply.text.len() > at_most {
        let end = (0..=at_most).rev().find(|at| reply.text.is_char_boundary(*at)).unwrap_or(0);
        reply.text.truncate(end);
        reply.cut = Some(format!("the answer is larger than {at_most} bytes"));
    }
    reply
}
