//! What a loop works with, for tests of its rounds: a database of its own, and clocks that stand still until they are
//! set.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::clock::Clock;
use crate::defender::HttpWire;
use crate::defender::http::Options;
use crate::domain::time::{Boot, BootId, Wall, millis};
use crate::engine::{RandomIds, Shared, Signals};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::store::incarnations::Birth;

/// Clocks that stand still.
#[derive(Debug)]
pub struct Still {
    wall: AtomicI64,
    boot: AtomicI64,
}

impl Still {
    /// Time goes by.
    pub fn pass(&self, time: Duration) {
        self.boot.fetch_add(millis(time), Ordering::SeqCst);
        self.jump(time);
    }

    /// The wall clock alone is set ahead.
    pub fn jump(&self, by: Duration) {
        self.wall.fetch_add(millis(by), Ordering::SeqCst);
    }
}

impl Clock for Still {
    fn wall(&self) -> Wall {
        Wall(self.wall.load(Ordering::SeqCst))
    }

    fn boot(&self) -> Boot {
        Boot(self.boot.load(Ordering::SeqCst))
    }

    fn sleep_until(&self, _: Boot) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

/// A daemon that has just started, at `at`.
pub async fn shared(at: Wall) -> (Shared, Arc<Still>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let still = Arc::new(Still { wall: AtomicI64::new(at.0), boot: AtomicI64::new(3_600_000) });
    let clock: Arc<dyn Clock> = Arc::<Still>::clone(&still);
    let store = Store::open(folder.path(), at).await.unwrap();
    let (second, boot_id) = (Duration::from_secs(1), BootId("boot".to_owned()));
    let birth = Birth {
        at,
        boot: clock.boot(),
        boot_id: boot_id.clone(),
        unknown_grace: second,
        lookup_horizon: second,
        version: "still",
    };
    let epoch = store.begin_incarnation(birth).await.unwrap().epoch;
    let options =
        Options { proxy: None, ca_file: None, connect_timeout: second, call_timeout: second, unknown_grace: second };
    let shared = Shared {
        store,
        clock: Arc::clone(&clock),
        ids: Arc::new(RandomIds),
        wire: Arc::new(HttpWire::new(&options).unwrap()),
        epoch,
        boot_id,
        health: Health::new(clock, second),
        metrics: Metrics::default(),
        signals: Signals::default(),
    };
    (shared, still, folder)
}
