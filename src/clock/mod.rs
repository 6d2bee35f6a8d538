//! The two clocks, and the only place that reads them.
//!
//! Read through libc (std and `nix`): what paces a budget must be the clock that the operating
//! system, its container and its tests all agree on. Waiting is done on tokio's timer.
//!
//! [`VirtualClock`] is the other implementation: a world whose time moves when nothing else does.

mod virtual_time;

pub use virtual_time::VirtualClock;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use nix::time::{ClockId, clock_gettime};

use crate::domain::time::{Boot, BootId, Wall, millis};

/// Where times come from, and how one waits for them.
pub trait Clock: Send + Sync {
    /// What people and Defender would write down.
    fn wall(&self) -> Wall;
    /// What cannot be stepped.
    fn boot(&self) -> Boot;
    /// Returns once [`Clock::boot`] has reached `at`.
    fn sleep_until(&self, at: Boot) -> BoxFuture<'_, ()>;
}

/// The clocks of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// tokio's timer stands still in suspend, so long waits look at the clock in between.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    fn wall(&self) -> Wall {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => Wall(millis(after)),
            Err(before) => Wall(-millis(before.duration())),
        }
    }

    fn boot(&self) -> Boot {
        clock_gettime(ClockId::CLOCK_BOOTTIME)
            .map_or(Boot(0), |at| Boot(at.tv_sec().saturating_mul(1000).saturating_add(at.tv_nsec() / 1_000_000)))
    }

    fn sleep_until(&self, at: Boot) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            loop {
                let left = at.since(self.boot());
                if left.is_zero() {
                    return;
                }
                #[allow(clippy::disallowed_methods, reason = "this is the one place")]
                tokio::time::sleep(left.min(LOOK_AGAIN)).await;
            }
        })
    }
}

/// A time as people here read it, with the zone's offset: others may read it elsewhere. Of today without its date.
pub fn local(at: Wall, now: Wall) -> String {
    let zone = jiff::tz::TimeZone::system();
    let zoned = |at: Wall| jiff::Timestamp::from_millisecond(at.0).map(|at| at.to_zoned(zone.clone()));
    match (zoned(at), zoned(now)) {
        (Ok(at), Ok(now)) if at.date() == now.date() => at.strftime("%H:%M:%S %:z").to_string(),
        (Ok(at), _) => at.strftime("%Y-%m-%d %H:%M:%S %:z").to_string(),
        (Err(_), _) => at.rfc3339(),
    }
}

/// Which boot of this machine's kernel this is.
pub fn boot_id() -> std::io::Result<BootId> {
    Ok(BootId(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned()))
}
