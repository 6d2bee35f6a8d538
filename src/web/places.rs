//! How many connections are served at once, and whose: no client takes the listener from the others, and no flood
//! makes a probe fail.
//!
//! A request needs a place to be answered. A client without one waits. A probe (`/healthz`, `/readyz`) needs none: it is
//! answered from the waiting room, whose oldest connection is closed when a new one finds it full. So a probe fails only
//! if that many connections are opened between its connect and its first line.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Answered at once; more than any scraper needs.
const PLACES: usize = 62;
/// Of them for one client: a browser opens six. All programs of this machine are one client.
const PLACES_OF_A_PEER: usize = 8;
/// Connections without a place; beyond them the oldest is closed.
const WAITING: usize = 64;

/// The places of a listener.
#[derive(Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    peers: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
    waiting: Mutex<VecDeque<Ticket>>,
}

/// One in the waiting room; cancelled: closed for another.
type Ticket = Arc<CancellationToken>;

/// What a connection has: a place, or a ticket until it has one.
#[derive(Debug)]
pub struct Visit {
    places: Arc<Places>,
    peer: Arc<Semaphore>,
    ticket: Ticket,
    held: Mutex<Option<[OwnedSemaphorePermit; 2]>>,
}

impl Places {
    pub fn new() -> Arc<Self> {
        let all = Arc::new(Semaphore::new(PLACES));
        Arc::new(Self { all, peers: Mutex::default(), waiting: Mutex::default() })
    }

    /// A connection of this client: with a place if one is free, else in the waiting room.
    pub fn enter(self: &Arc<Self>, peer: IpAddr) -> Arc<Visit> {
        let visit =
            Visit { places: Arc::clone(self), peer: self.of(peer), ticket: Ticket::default(), held: Mutex::default() };
        let own = Arc::clone(&visit.peer).try_acquire_owned();
        match (own, Arc::clone(&self.all).try_acquire_owned()) {
            (Ok(own), Ok(place)) => *lock(&visit.held) = Some([own, place]),
            _ => self.wait(&visit.ticket),
        }
        Arc::new(visit)
    }

    #[cfg(test)]
    pub fn are_all_free(&self) -> bool {
        self.all.available_permits() == PLACES
    }

    fn wait(&self, ticket: &Ticket) {
        let mut waiting = lock(&self.waiting);
        if waiting.len() >= WAITING
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.cancel();
        }
        waiting.push_back(Arc::clone(ticket));
    }

    /// The places of one client.
    fn of(&self, peer: IpAddr) -> Arc<Semaphore> {
        let mut peers = lock(&self.peers);
        // As many as there are connections, at the most.
        peers.retain(|_, places| places.strong_count() > 0);
        let known = peers.entry(client(peer)).or_default();
        known.upgrade().unwrap_or_else(|| {
            let own = Arc::new(Semaphore::new(PLACES_OF_A_PEER));
            *known = Arc::downgrade(&own);
            own
        })
    }
}

impl Visit {
    /// Whether it has a place.
    pub fn has_place(&self) -> bool {
        lock(&self.held).is_some()
    }

    /// Waits for a place.
    pub async fn place(&self) {
        let own = Arc::clone(&self.peer).acquire_owned().await;
        let place = Arc::clone(&self.places.all).acquire_owned().await;
        // They are never closed.
        if let (Ok(own), Ok(place)) = (own, place) {
            self.leave_waiting_room();
            *lock(&self.held) = Some([own, place]);
        }
    }

    /// Returns when the connection is to be closed for another.
    pub async fn superseded(&self) {
        self.ticket.cancelled().await;
    }

    fn leave_waiting_room(&self) {
        lock(&self.places.waiting).retain(|ticket| !Arc::ptr_eq(ticket, &self.ticket));
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.leave_waiting_room();
    }
}

/// Who is one client: an IPv4 address, or the network of 64 bits that every IPv6 host has to itself.
fn client(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let network = u128::from(address) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address => address,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn peer(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn is_superseded(visit: &Visit) -> bool {
        visit.superseded().now_or_never().is_some()
    }

    #[test]
    fn one_client_has_eight_places_however_its_address_is_written() {
        for (one, same, other) in [
            ("10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"),
            ("2001:db8::1", "2001:db8::2:1", "2001:db8:0:1::1"),
            ("127.0.0.1", "127.0.0.1", "::1"),
        ] {
            let places = Places::new();
            let eight: Vec<_> = (0..8).map(|_| places.enter(peer(one))).collect();
            assert!(eight.iter().all(|visit| visit.has_place()));
            assert!(!places.enter(peer(same)).has_place(), "{same}");
            assert!(places.enter(peer(other)).has_place(), "{other}");
            drop(eight);
            assert!(places.enter(peer(same)).has_place(), "{same}");
        }
    }

    #[test]
    fn freed_place_goes_to_the_client_that_waits_longest() {
        let places = Places::new();
        let mut held: Vec<_> = (0..8).map(|_| places.enter(peer("10.0.0.1"))).collect();
        let (first, second) = (places.enter(peer("10.0.0.1")), places.enter(peer("10.0.0.1")));
        let (mut first_place, mut second_place) = (Box::pin(first.place()), Box::pin(second.place()));
        assert!((&mut first_place).now_or_never().is_none() && (&mut second_place).now_or_never().is_none());
        held.pop();
        assert!(!places.enter(peer("10.0.0.1")).has_place(), "a newcomer does not overtake");
        assert!((&mut second_place).now_or_never().is_none());
        assert!((&mut first_place).now_or_never().is_some() && first.has_place());
    }

    #[test]
    fn full_waiting_room_closes_the_oldest() {
        let places = Places::new();
        let address = |n: usize| IpAddr::from([10, 1, 0, u8::try_from(n / 8).unwrap()]);
        let held: Vec<_> = (0..PLACES).map(|n| places.enter(address(n))).collect();
        assert!(held.iter().all(|visit| visit.has_place()));
        let mut waiting: VecDeque<_> = (0..WAITING).map(|_| places.enter(peer("10.2.0.1"))).collect();
        assert!(!waiting.iter().any(|visit| visit.has_place() || is_superseded(visit)));
        let newcomer = places.enter(peer("10.3.0.1"));
        assert!(is_superseded(&waiting.pop_front().unwrap()));
        assert!(!waiting.iter().any(|visit| is_superseded(visit)) && !is_superseded(&newcomer));
        // One that has gone makes room by itself.
        drop(waiting.pop_back());
        drop(places.enter(peer("10.3.0.1")));
        assert!(!waiting.iter().any(|visit| is_superseded(visit)));
        assert!(!held.iter().any(|visit| is_superseded(visit)), "what has a place keeps it");
    }
}
