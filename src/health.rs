//! Is the daemon alive, and is it ready? Told by the loops that matter, read by systemd's watchdog
//! and by the health endpoints.

mod troubles;

pub use troubles::{Ended, Repeated};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::domain::time::Boot;
use crate::domain::trouble::{Runs, Trouble};

/// A loop that has not come round for so long is stuck, if a call takes no longer.
pub const STUCK_AFTER: Duration = Duration::from_mins(3);

/// Unknown words of Defender's that one process logs, at most.
const MAX_UNKNOWN_WORDS: usize = 50;

#[derive(Debug, Default)]
struct Inner {
    beats: BTreeMap<String, Boot>,
    database: Option<String>,
    /// Who keeps the database from being written to.
    locked: Option<String>,
    watching: bool,
    /// Why no file is taken.
    intake_stopped: Option<String>,
    tokens: BTreeMap<String, Result<(), String>>,
    /// What goes wrong again and again, and whose it is.
    runs: Runs<(Trouble, String)>,
    /// Words of Defender's that nobody knows and that were logged, with whose they are.
    unknown_words: BTreeSet<(String, String)>,
}

/// What the loops say of themselves. Cheap to clone.
#[derive(Clone)]
pub struct Health {
    clock: Arc<dyn Clock>,
    patience: Duration,
    inner: Arc<Mutex<Inner>>,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Health")
    }
}

impl Health {
    /// Nothing is alive yet. A loop may wait for a call for as long as `call_timeout`, twice: a token may
    /// have to be asked for first.
    pub fn new(clock: Arc<dyn Clock>, call_timeout: Duration) -> Self {
        let patience = STUCK_AFTER.max(call_timeout.saturating_mul(2) + Duration::from_mins(1));
        Self { clock, patience, inner: Arc::default() }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The loop of this name has come round.
    pub fn beat(&self, name: &str) {
        let now = self.clock.boot();
        self.with(|inner| match inner.beats.get_mut(name) {
            Some(beat) => *beat = now,
            None => drop(inner.beats.insert(name.to_owned(), now)),
        });
    }

    /// The loop of this name has ended, in order.
    pub fn ended(&self, name: &str) {
        self.with(|inner| inner.beats.remove(name));
    }

    /// Whether the database takes writes; else why not.
    pub fn database(&self, trouble: Option<String>) {
        self.with(|inner| inner.database = trouble);
    }

    /// Whether somebody else holds the database's write lock, and has for longer than a write takes: who, and what follows.
    pub fn database_locked(&self, why: Option<String>) {
        self.with(|inner| inner.locked = why);
    }

    /// Why the database takes no writes, if it takes none.
    pub fn why_database_stopped(&self) -> Option<String> {
        self.with(|inner| inner.locked.clone().or_else(|| inner.database.clone()))
    }

    /// Whether the drop folder is watched.
    pub fn watching(&self, watching: bool) {
        self.with(|inner| inner.watching = watching);
    }

    /// Whether files are taken; else why not.
    pub fn intake_stopped(&self, why: Option<String>) {
        self.with(|inner| inner.intake_stopped = why);
    }

    /// Why no file is taken, if none is.
    pub fn why_intake_stopped(&self) -> Option<String> {
        self.with(|inner| inner.intake_stopped.clone())
    }

    /// Whether a word of Defender's that sweepd does not know is to be logged: once, and of many words the first.
    pub fn is_new_word(&self, tenant: &str, word: &str) -> bool {
        self.with(|inner| {
            let known = &mut inner.unknown_words;
            known.len() < MAX_UNKNOWN_WORDS && known.insert((tenant.to_owned(), word.to_owned()))
        })
    }

    /// Whether this tenant has a token; else why not.
    pub fn token(&self, tenant: &str, outcome: Result<(), String>) {
        self.with(|inner| drop(inner.tokens.insert(tenant.to_owned(), outcome)));
    }

    /// Forgets who is signed in: the tenants may be others after a reload.
    pub fn forget_tokens(&self) {
        self.with(|inner| inner.tokens.clear());
    }

    /// Loops that are stuck. None is while the database takes no writes: they wait for the disk,
    /// with answers in memory that a restart would lose.
    pub fn stuck(&self) -> Vec<String> {
        let now = self.clock.boot();
        self.with(|inner| {
            if inner.database.is_some() || inner.locked.is_some() {
                return Vec::new();
            }
            inner.beats.iter().filter(|(_, at)| now.since(**at) > self.patience).map(|(name, _)| name.clone()).collect()
        })
    }

    /// What is missing to be ready; empty when nothing is.
    pub fn missing(&self) -> Vec<String> {
        self.with(|inner| {
            let mut missing = Vec::new();
            let stopped = inner.locked.iter().chain(&inner.database).take(1);
            missing.extend(stopped.map(|why| format!("the database takes no writes: {why}")));
            if !inner.watching {
                missing.push("the drop folder cannot be read (the log says why), or was not yet".to_owned());
            }
            missing.extend(inner.intake_stopped.iter().map(|why| format!("no file is taken: {why}")));
            if !inner.tokens.values().any(Result::is_ok) {
                let whys: Vec<_> = inner
                    .tokens
                    .iter()
                    .filter_map(|(tenant, token)| token.as_ref().err().map(|why| format!("{tenant}: {why}")))
                    .collect();
                missing.push(if whys.is_empty() {
                    "no tenant has signed in yet".to_owned()
                } else {
                    format!("no tenant is signed in: {}", whys.join("; "))
                });
            }
            missing
        })
    }
}
