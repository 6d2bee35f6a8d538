//! How long the queue of each tenant has been: measured now and then, kept in memory, so that the page can
//! draw it burning down. It begins anew with the daemon, and with each time that the queue was empty.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Shown;
use crate::domain::id::TenantName;
use crate::domain::time::{Boot, Wall};

/// How often it is measured at first.
const EVERY: Duration = Duration::from_secs(5);
/// So many points are kept of a tenant. When there are more, every second one goes, and it is measured half as often:
/// a queue of days takes no more room than one of minutes.
const POINTS: usize = 240;

/// How long a queue was, and when: milliseconds since 1970, machines.
pub type Point = (i64, u64);

#[derive(Clone, Debug)]
struct Track {
    every: Duration,
    last: Boot,
    points: Vec<Point>,
}

impl Track {
    fn begin(at: Wall, now: Boot, n: u64) -> Self {
        Self { every: EVERY, last: now, points: vec![(at.0, n)] }
    }

    fn add(&mut self, at: Wall, now: Boot, n: u64) {
        let (before, last) = self.points.last().copied().unwrap_or_default();
        if at.0 < before || (last == 0 && n > 0) {
            // The wall clock was set back, or there is work again.
            *self = Self::begin(at, now, n);
        } else if last == 0 {
            self.last = now;
        } else if n == 0 || now.since(self.last) >= self.every {
            self.last = now;
            self.points.push((at.0, n));
        }
        if self.points.len() > POINTS {
            let mut keep = false;
            self.points.retain(|_| {
                keep = !keep;
                keep
            });
            self.every *= 2;
        }
    }
}

/// The queues of all tenants. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Burndown {
    tracks: Arc<Mutex<BTreeMap<TenantName, Track>>>,
}

impl Burndown {
    /// Measures until `stop`.
    pub async fn watch(shown: Shown, stop: CancellationToken) {
        loop {
            match shown.view.unsent_by_tenant().await {
                Ok(queues) => shown.burndown.measured(queues, shown.clock.wall(), shown.clock.boot()),
                // Whoever looks at the page is told by the page's own reads.
                Err(error) => tracing::debug!(%error, "the queues could not be measured"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = shown.clock.sleep_until(shown.clock.boot() + EVERY) => {}
            }
        }
    }

    /// So long are the queues now.
    pub fn measured(&self, queues: Vec<(TenantName, u64)>, at: Wall, now: Boot) {
        let mut tracks = self.tracks.lock().unwrap_or_else(PoisonError::into_inner);
        for (tenant, n) in queues {
            tracks.entry(tenant).or_insert_with(|| Track::begin(at, now, n)).add(at, now, n);
        }
    }

    /// How long the queue of a tenant has been, oldest first.
    pub fn of(&self, tenant: &str) -> Vec<Point> {
        let tracks = self.tracks.lock().unwrap_or_else(PoisonError::into_inner);
        let track = tracks.iter().find(|(name, _)| name.as_str() == tenant);
        track.map(|(_, track)| track.points.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> (Wall, Boot) {
        (Wall(1_000_000 + seconds * 1000), Boot(seconds * 1000))
    }

    #[test]
    fn a_queue_of_days_takes_no_more_room_than_one_of_minutes() {
        let (wall, boot) = at(0);
        let mut track = Track::begin(wall, boot, 50_000);
        for step in 1..40_000_i64 {
            let (wall, boot) = at(step * 5);
            track.add(wall, boot, 50_000 - u64::try_from(step).unwrap());
            assert!(track.points.len() <= POINTS);
        }
        assert_eq!(track.points[0], (1_000_000, 50_000), "the beginning is kept");
        assert!(track.points.len() > POINTS / 3);
        assert!(track.points.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 > pair[1].1));
        let (wall, boot) = at(200_001);
        track.add(wall, boot, 0);
        assert_eq!(track.points.last(), Some(&(wall.0, 0)), "the end is kept, however soon it comes");
        track.add(at(200_300).0, at(200_300).1, 0);
        assert_eq!(track.points.last(), Some(&(wall.0, 0)), "an empty queue stays as it was");
        track.add(at(200_400).0, at(200_400).1, 7);
        assert_eq!(track.points, [(at(200_400).0.0, 7)], "new work begins a new picture");
    }

    #[test]
    fn a_wall_clock_that_is_set_back_draws_no_line_backwards() {
        let mut track = Track::begin(at(1000).0, at(0).1, 9);
        track.add(at(10).0, at(10).1, 8);
        assert_eq!(track.points, [(at(10).0.0, 8)]);
    }
}
