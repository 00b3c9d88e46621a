//! What a run of a graph, or a call of a guest, is learned to cost, so that short ones need not wait
//! behind long ones.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A new value counts for one part in this many of the average: slow enough to pass over a single odd
/// one, fast enough to follow a model whose inputs change.
const WEIGHT: u64 = 8;

/// Moving averages over the runs of one graph, or the calls of one version.
#[derive(Debug, Default)]
pub struct Cost {
    /// Nanoseconds of a run; 0 before the first.
    ns: AtomicU64,
    /// Bytes of its inputs.
    bytes: AtomicU64,
}

impl Cost {
    /// A run over inputs of `bytes` bytes took this long.
    pub fn learn(&self, took: Duration, bytes: u64) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        blend(&self.ns, ns);
        blend(&self.bytes, bytes.max(1));
    }

    /// How long a run over inputs of `bytes` bytes will take: as long as those before it, and longer
    /// in proportion where its inputs are larger. None before the first run.
    pub fn estimate(&self, bytes: u64) -> Option<Duration> {
        let ns = self.ns.load(Ordering::Relaxed);
        let usual = self.bytes.load(Ordering::Relaxed).max(1);
        if ns == 0 {
            return None;
        }
        let scaled = u128::from(ns) * u128::from(bytes.max(usual)) / u128::from(usual);
        Some(Duration::from_nanos(u64::try_from(scaled).unwrap_or(u64::MAX)))
    }
}

/// Takes `new` into a moving average, which is 0 before its first value. Of two values that come at
/// once one may be lost: an average does not mind.
fn blend(average: &AtomicU64, new: u64) {
    let old = average.load(Ordering::Relaxed);
    let blended = match old {
        0 => new,
        _ => old - old / WEIGHT + new / WEIGHT,
    };
    average.store(blended.max(1), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_known_before_the_first_run() {
        assert_eq!(Cost::default().estimate(1), None);
    }

    #[test]
    fn larger_inputs_are_expected_to_take_longer_and_smaller_ones_no_less() {
        let cost = Cost::default();
        cost.learn(Duration::from_micros(100), 1000);
        assert_eq!(cost.estimate(1000), Some(Duration::from_micros(100)));
        assert_eq!(cost.estimate(8000), Some(Duration::from_micros(800)));
        assert_eq!(cost.estimate(10), Some(Duration::from_micros(100)));
    }

    #[test]
    fn a_slow_first_run_is_forgotten() {
        let cost = Cost::default();
        cost.learn(Duration::from_millis(50), 1000);
        for _ in 0..60 {
            cost.learn(Duration::from_micros(100), 1000);
        }
        assert!(cost.estimate(1000).unwrap() < Duration::from_micros(200));
    }
}
