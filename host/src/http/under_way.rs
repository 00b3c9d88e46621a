//! Under way: every request from its head to the last byte of its answer, which is what a drain waits
//! for and reports.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many requests there have been.
#[derive(Default)]
pub struct Requests(Arc<Counts>);

#[derive(Default)]
struct Counts {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// One request that is under way; it has ended when this is dropped.
pub struct UnderWay(Arc<Counts>);

impl Requests {
    /// A request begins.
    pub fn begin(&self) -> UnderWay {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(&self.0))
    }

    /// How many have ended.
    pub fn ended(&self) -> u64 {
        self.0.ended.load(Ordering::Relaxed)
    }

    /// How many are under way.
    pub fn under_way(&self) -> u64 {
        // Read in this order, one that ends in between counts as under way and never as minus one.
        let ended = self.0.ended.load(Ordering::Acquire);
        self.0.begun.load(Ordering::Relaxed).saturating_sub(ended)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_under_way_until_it_is_dropped() {
        let requests = Requests::default();
        let (first, second) = (requests.begin(), requests.begin());
        drop(first);
        assert_eq!((requests.under_way(), requests.ended()), (1, 1));
        drop(second);
        assert_eq!((requests.under_way(), requests.ended()), (0, 2));
    }
}
