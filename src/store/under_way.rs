//! How much is under way: virtual time stands still until there is nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts what somebody waits for.
#[derive(Clone, Debug, Default)]
pub(super) struct UnderWay(Arc<AtomicUsize>);

/// Something that is under way until this is dropped.
#[derive(Debug)]
pub(super) struct Operation(Arc<AtomicUsize>);

impl UnderWay {
    /// From now on there is one more.
    pub(super) fn begin(&self) -> Operation {
        self.0.fetch_add(1, Ordering::SeqCst);
        Operation(Arc::clone(&self.0))
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
