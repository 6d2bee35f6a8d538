//! A world in which time is made: hours of it in seconds, and the same hours again from the same
//! seed.
//!
//! World time never steps: it is what a server's clock says. Beside it stand the two clocks of *this
//! machine*, which have troubles of their own: the wall clock may be stepped, the boot clock begins
//! anew with a reboot, and a process that is stopped (or a machine that sleeps) wakes up late.
//!
//! Time moves only when nothing can run. tokio calls [`VirtualClock::move_on`] from
//! `on_thread_park`, which is when its run queue is empty; work that is under way on another thread
//! (SQLite's) has to be ruled out by whoever knows of it. So no virtual time passes while something
//! is computed or written, however slow the computer: see [`VirtualClock::runtime`].

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::Runtime;

use super::Clock;
use crate::domain::time::{Boot, Wall, millis};

/// When something is due, and which of those that are due together was asked for first.
type Due = (i64, u64);
type Event = Box<dyn FnOnce() + Send>;

enum Here {
    Wake(Waker),
    Happen(Event),
}

struct World {
    /// World time, in milliseconds since 1970.
    now: i64,
    /// The machine's wall clock is ahead of world time by this.
    wall_ahead: i64,
    /// When the machine booted.
    booted: i64,
    /// Until then nothing on this machine happens.
    frozen_until: i64,
    asked: u64,
    /// What happens elsewhere, whatever this machine does.
    elsewhere: BTreeMap<Due, Event>,
    /// What happens on this machine.
    here: BTreeMap<Due, Here>,
}

impl World {
    fn due(&mut self, at: i64) -> Due {
        self.asked += 1;
        (at.max(self.now), self.asked)
    }

    /// Moves on to what is due next, and takes it out. Nothing when nothing is.
    fn next(&mut self) -> (Vec<Event>, Vec<Waker>) {
        let elsewhere = self.elsewhere.first_key_value().map(|(due, _)| due.0);
        let here = self.here.first_key_value().map(|(due, _)| due.0.max(self.frozen_until));
        let (mut events, mut wakers) = (Vec::new(), Vec::new());
        let Some(now) = elsewhere.into_iter().chain(here).min() else { return (events, wakers) };
        self.now = self.now.max(now);
        while let Some(due) = self.elsewhere.first_entry().filter(|due| due.key().0 <= self.now) {
            events.push(due.remove());
        }
        if self.now >= self.frozen_until {
            while let Some(due) = self.here.first_entry().filter(|due| due.key().0 <= self.now) {
                match due.remove() {
                    Here::Happen(event) => events.push(event),
                    Here::Wake(waker) => wakers.push(waker),
                }
            }
        }
        (events, wakers)
    }
}

/// The clocks of one simulated machine, and of the world around it.
pub struct VirtualClock(Mutex<World>);

impl fmt::Debug for VirtualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VirtualClock({})", self.world())
    }
}

impl VirtualClock {
    /// A world that begins at `now`, with a machine that has been up for `uptime` and whose wall
    /// clock is right.
    pub const fn new(now: Wall, uptime: Duration) -> Self {
        #[allow(clippy::cast_possible_truncation, reason = "292 million years of uptime are enough")]
        let uptime = uptime.as_millis() as i64;
        Self(Mutex::new(World {
            now: now.0,
            wall_ahead: 0,
            booted: now.0.saturating_sub(uptime),
            frozen_until: i64::MIN,
            asked: 0,
            elsewhere: BTreeMap::new(),
            here: BTreeMap::new(),
        }))
    }

    /// A runtime of one thread on which this clock moves by itself, whenever no task can run and
    /// `is_idle` says that none waits for something outside of the runtime but the clock.
    pub fn runtime(self: &Arc<Self>, is_idle: impl Fn() -> bool + Send + Sync + 'static) -> std::io::Result<Runtime> {
        let clock = Arc::clone(self);
        tokio::runtime::Builder::new_current_thread()
            // sqlx has timeouts of its own. They run on real time, and only ever pass when it hangs.
            .enable_all()
            .on_thread_park(move || {
                if is_idle() && clock.move_on() {
                    // What happened may have woken nobody. A task of no duration keeps the thread
                    // from parking for ever: it looks again at once.
                    drop(tokio::spawn(std::future::ready(())));
                }
            })
            .build()
    }

    /// Moves world time to what is due next, and lets all happen that is due then. Returns whether
    /// anything was.
    pub fn move_on(&self) -> bool {
        let (events, wakers) = self.lock().next();
        let moved = !events.is_empty() || !wakers.is_empty();
        for event in events {
            event();
        }
        wakers.into_iter().for_each(Waker::wake);
        moved
    }

    /// The right time: a server's, not this machine's.
    pub fn world(&self) -> Wall {
        Wall(self.lock().now)
    }

    /// Something that happens out in the world at `at`, or next if that has passed: whether or not
    /// anybody here still waits for it.
    pub fn at(&self, at: Wall, event: impl FnOnce() + Send + 'static) {
        let mut world = self.lock();
        let due = world.due(at.0);
        world.elsewhere.insert(due, Box::new(event));
    }

    /// Something that happens on this machine at `at`, or once it runs again.
    pub fn here_at(&self, at: Wall, event: impl FnOnce() + Send + 'static) {
        let mut world = self.lock();
        let due = world.due(at.0);
        world.here.insert(due, Here::Happen(Box::new(event)));
    }

    /// Somebody sets the wall clock of this machine.
    pub fn set_wall(&self, wall: Wall) {
        let mut world = self.lock();
        world.wall_ahead = wall.0.saturating_sub(world.now);
    }

    /// The machine has just booted: its boot clock begins at zero.
    pub fn reboot(&self) {
        let mut world = self.lock();
        world.booted = world.now;
        world.frozen_until = i64::MIN;
    }

    /// Both clocks of this machine jump, as they do under a library that sets them.
    pub fn jump(&self, by: i64) {
        let mut world = self.lock();
        world.wall_ahead = world.wall_ahead.saturating_add(by);
        world.booted = world.booted.saturating_sub(by);
    }

    /// Nothing on this machine runs for a while: SIGSTOP, or suspend. The world goes on.
    pub fn freeze(&self, time: Duration) {
        let mut world = self.lock();
        world.frozen_until = world.frozen_until.max(world.now.saturating_add(millis(time)));
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for VirtualClock {
    fn wall(&self) -> Wall {
        let world = self.lock();
        Wall(world.now.saturating_add(world.wall_ahead))
    }

    fn boot(&self) -> Boot {
        let world = self.lock();
        Boot(world.now.saturating_sub(world.booted))
    }

    fn sleep_until(&self, at: Boot) -> BoxFuture<'_, ()> {
        Box::pin(Sleep { clock: self, at, due: None })
    }
}

/// A sleeper. Whoever stops waiting is forgotten at once: else time would stop by for nobody.
struct Sleep<'clock> {
    clock: &'clock VirtualClock,
    at: Boot,
    due: Option<Due>,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut world = self.clock.lock();
        let at = world.booted.saturating_add(self.at.0);
        if at <= world.now {
            return Poll::Ready(());
        }
        let due = self.due.unwrap_or_else(|| world.due(at));
        world.here.insert(due, Here::Wake(cx.waker().clone()));
        drop(world);
        self.due = Some(due);
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        if let Some(due) = self.due {
            self.clock.lock().here.remove(&due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    const BEGIN: Wall = Wall(1_700_000_000_000);

    fn clock() -> Arc<VirtualClock> {
        Arc::new(VirtualClock::new(BEGIN, Duration::from_secs(10)))
    }

    /// What happened, each with the second of the world.
    #[derive(Clone, Default)]
    struct Diary(Arc<Mutex<Vec<(u64, &'static str)>>>);

    impl Diary {
        fn note(&self, clock: &VirtualClock, what: &'static str) {
            self.0.lock().unwrap().push((clock.world().since(BEGIN).as_secs(), what));
        }

        fn read(&self) -> Vec<(u64, &'static str)> {
            self.0.lock().unwrap().clone()
        }
    }

    async fn sleep(clock: &VirtualClock, seconds: u64) {
        clock.sleep_until(clock.boot() + Duration::from_secs(seconds)).await;
    }

    #[test]
    fn a_day_passes_as_soon_as_nothing_else_is_to_be_done() {
        let clock = clock();
        let diary = Diary::default();
        clock.runtime(|| true).unwrap().block_on(async {
            let (other, noted) = (Arc::clone(&clock), diary.clone());
            let sleeper = tokio::spawn(async move {
                sleep(&other, 86_400).await;
                noted.note(&other, "a day");
            });
            sleep(&clock, 60).await;
            diary.note(&clock, "a minute");
            sleeper.await.unwrap();
        });
        assert_eq!(diary.read(), [(60, "a minute"), (86_400, "a day")]);
        assert_eq!(clock.boot(), Boot(86_410_000));
    }

    #[test]
    fn no_time_passes_while_another_thread_works_for_a_task() {
        let clock = clock();
        let busy = Arc::new(AtomicBool::new(false));
        let looks = Arc::new(AtomicUsize::new(0));
        let (seen, looked) = (Arc::clone(&busy), Arc::clone(&looks));
        let is_idle = move || {
            looked.fetch_add(1, Ordering::SeqCst);
            !seen.load(Ordering::SeqCst)
        };
        clock.runtime(is_idle).unwrap().block_on(async {
            let (done, answer) = tokio::sync::oneshot::channel();
            busy.store(true, Ordering::SeqCst);
            let (looks, before) = (Arc::clone(&looks), looks.load(Ordering::SeqCst));
            let worker = std::thread::spawn(move || {
                // Until the runtime has gone to rest with this under way.
                while looks.load(Ordering::SeqCst) == before {
                    std::thread::yield_now();
                }
                done.send(()).unwrap();
            });
            tokio::select! {
                () = sleep(&clock, 1) => panic!("time passed"),
                answered = answer => answered.unwrap(),
            }
            busy.store(false, Ordering::SeqCst);
            worker.join().unwrap();
            assert_eq!(clock.world(), BEGIN);
            sleep(&clock, 1).await;
        });
        assert_eq!(clock.world(), BEGIN + Duration::from_secs(1));
    }

    #[test]
    fn a_frozen_machine_wakes_late_and_the_world_goes_on() {
        let clock = clock();
        let diary = Diary::default();
        let happens = |at: u64, what: &'static str, here: bool| {
            let (other, noted) = (Arc::clone(&clock), diary.clone());
            let event = move || noted.note(&other, what);
            let at = BEGIN + Duration::from_secs(at);
            if here { clock.here_at(at, event) } else { clock.at(at, event) }
        };
        happens(5, "out there", false);
        happens(6, "here", true);
        happens(5000, "much later", false);
        clock.freeze(Duration::from_mins(10));
        clock.runtime(|| true).unwrap().block_on(async {
            sleep(&clock, 1).await;
            diary.note(&clock, "woken");
            sleep(&clock, 1).await;
        });
        assert_eq!(diary.read(), [(5, "out there"), (600, "here"), (600, "woken")]);
        assert_eq!(clock.world(), BEGIN + Duration::from_secs(601));
    }

    #[test]
    fn a_stepped_wall_clock_moves_nothing_else() {
        let clock = clock();
        clock.set_wall(Wall(0));
        clock.runtime(|| true).unwrap().block_on(sleep(&clock, 60));
        assert_eq!(clock.wall(), Wall(60_000));
        assert_eq!(clock.boot(), Boot(70_000));
        assert_eq!(clock.world(), BEGIN + Duration::from_mins(1));
    }

    #[test]
    fn a_reboot_begins_the_boot_clock_anew() {
        let clock = clock();
        clock.runtime(|| true).unwrap().block_on(sleep(&clock, 60));
        clock.reboot();
        assert_eq!(clock.boot(), Boot(0));
        assert_eq!(clock.wall(), BEGIN + Duration::from_mins(1));
    }

    #[test]
    fn whoever_stops_waiting_is_forgotten() {
        let clock = clock();
        clock.runtime(|| true).unwrap().block_on(async {
            tokio::select! {
                () = sleep(&clock, 3600) => {}
                () = sleep(&clock, 1) => {}
            }
        });
        assert!(!clock.move_on());
        assert_eq!(clock.world(), BEGIN + Duration::from_secs(1));
    }
}
