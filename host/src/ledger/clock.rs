//! The ledger's clock: nanoseconds that only go forward, or that a test moves by hand.
//!
//! Not tokio's clock: compute threads live outside the runtime and do not see it pause.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Where every account takes its time from; clones read the same clock.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    /// Nanoseconds since this instant.
    Monotonic(Instant),
    /// Whatever the handle in the test says.
    Manual(Arc<AtomicU64>),
}

/// The hand that moves a manual clock.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicU64>);

impl Clock {
    /// The machine's monotonic clock, zero at this call.
    pub fn monotonic() -> Self {
        Self(Source::Monotonic(Instant::now()))
    }

    /// A clock that stands still at zero until its hand is moved.
    pub fn manual() -> (Self, ManualClock) {
        let now_ns = Arc::new(AtomicU64::new(0));
        (Self(Source::Manual(now_ns.clone())), ManualClock(now_ns))
    }

    /// Nanoseconds since the clock began; enough for 584 years.
    pub fn now_ns(&self) -> u64 {
        match &self.0 {
            Source::Monotonic(origin) => {
                u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
            }
            Source::Manual(now_ns) => now_ns.load(Ordering::SeqCst),
        }
    }
}

impl ManualClock {
    /// Moves the clock forward by nanoseconds.
    pub fn advance_ns(&self, by_ns: u64) {
        self.0.fetch_add(by_ns, Ordering::SeqCst);
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.advance_ns(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_by_hand() {
        let (clock, hand) = Clock::manual();
        let copy = clock.clone();
        assert_eq!(clock.now_ns(), 0);
        hand.advance(Duration::from_micros(2));
        hand.advance_ns(5);
        assert_eq!((clock.now_ns(), copy.now_ns()), (2_005, 2_005));
    }

    #[test]
    fn the_monotonic_clock_does_not_go_back() {
        let clock = Clock::monotonic();
        let earlier = clock.now_ns();
        assert!(clock.clone().now_ns() >= earlier);
    }
}
