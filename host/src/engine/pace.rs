//! Pace: how long the calls of a version hold an instance, and so how long the next one will wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::cost::blend;

/// A moving average of the time that calls hold an instance; zero until there was one.
#[derive(Debug, Default)]
pub struct Pace(AtomicU64);

impl Pace {
    /// Takes a call into account that held an instance for so long.
    pub fn record(&self, held: Duration) {
        blend(&self.0, u64::try_from(held.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How long a call holds an instance.
    pub fn call(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    /// How long a call waits behind `waiting` others for one of `instances`, all of which are taken.
    pub fn wait(&self, waiting: u32, instances: u32) -> Duration {
        self.call().saturating_mul(waiting.saturating_add(1)) / instances.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_grows_with_the_queue_and_shrinks_with_the_instances() {
        let pace = Pace::default();
        assert_eq!(pace.wait(100, 1), Duration::ZERO);
        pace.record(Duration::from_millis(20));
        assert_eq!(pace.call(), Duration::from_millis(20));
        assert_eq!(pace.wait(0, 1), Duration::from_millis(20));
        assert_eq!(pace.wait(99, 4), Duration::from_millis(500));
        assert_eq!(pace.wait(u32::MAX, 0), Duration::from_millis(20) * u32::MAX);
    }

    #[test]
    fn the_pace_follows_what_calls_take() {
        let pace = Pace::default();
        pace.record(Duration::from_millis(10));
        (0..100).for_each(|_| pace.record(Duration::from_millis(40)));
        let call = pace.call().as_secs_f64();
        assert!((0.0399..0.0401).contains(&call), "{call}");
        pace.record(Duration::MAX);
        assert!(pace.wait(u32::MAX, 1) > Duration::from_secs(1));
    }
}
