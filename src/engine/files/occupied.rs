//! What files that are being taken keep for themselves meanwhile: the turn of their tenant, and their content.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::turns::Length;
use crate::domain::id::TenantName;

/// Something that one has at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// A tenant's turn: short files do not wait for long ones, its own included.
    Turn(TenantName, Length),
    /// A tenant's content, by its SHA-256: the second file with it is to see what became of the first.
    Content(TenantName, String),
}

/// The things that are taken.
#[derive(Debug, Default)]
pub struct Occupied(Mutex<BTreeSet<Thing>>);

/// One of them, until this is dropped.
#[derive(Debug)]
pub struct Held<'a> {
    among: &'a Occupied,
    thing: Thing,
}

impl Occupied {
    /// Takes a thing, unless another has it.
    pub fn take(&self, thing: Thing) -> Option<Held<'_>> {
        let new = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(thing.clone());
        new.then(|| Held { among: self, thing })
    }

    /// Whether somebody has it.
    pub fn is_taken(&self, thing: &Thing) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(thing)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.among.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.thing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_taken_once_until_it_is_given_back() {
        let all = Occupied::default();
        let turn = |length| Thing::Turn("a".parse().unwrap(), length);
        let held = all.take(turn(Length::Long)).unwrap();
        assert!(all.take(turn(Length::Long)).is_none() && all.is_taken(&turn(Length::Long)));
        let _short = all.take(turn(Length::Short)).unwrap();
        drop(held);
        assert!(all.take(turn(Length::Long)).is_some());
        assert!(!all.is_taken(&turn(Length::Long)), "the last one was given back at once");
    }
}
