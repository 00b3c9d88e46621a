//! Pace: how long the calls of a version hold an instance and how fast its queue moves, and so how long
//! the next call will wait.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A new measurement counts as much as all earlier ones together over this many: slow enough to pass
/// over a single odd call, fast enough to follow a model whose inputs change.
const MEMORY: u32 = 32;

/// What the calls of a version have taken so far.
#[derive(Debug, Default)]
pub struct Pace(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How long a call holds an instance; zero until one has.
    call: Duration,
    /// How long it takes from one call's end to the next one's while others wait; zero until known.
    /// More than the calls themselves explain where their threads are busy with something else.
    step: Duration,
    /// When the last call ended, if others were waiting then.
    ended: Option<Instant>,
}

impl Pace {
    /// A call has ended at `now`, after it held an instance for so long, with `waiting` others in the
    /// queue. One that was cut would have taken longer.
    pub fn record(&self, held: Duration, was_cut: bool, waiting: u32, now: Instant) {
        let mut state = self.lock();
        if !was_cut || held > state.call {
            average(&mut state.call, held);
        }
        let ended = if waiting > 0 { Some(now) } else { None };
        if let Some(before) = std::mem::replace(&mut state.ended, ended)
            && waiting > 0
        {
            average(&mut state.step, now.saturating_duration_since(before));
        }
    }

    /// How long a call holds an instance.
    pub fn call(&self) -> Duration {
        self.lock().call
    }

    /// How long a call waits behind `waiting` others for one of `instances`, all of which are taken.
    pub fn wait(&self, waiting: u32, instances: u32) -> Duration {
        let State { call, step, .. } = *self.lock();
        step.max(call / instances.max(1)).saturating_mul(waiting.saturating_add(1))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Averages stay averages whatever a panicking holder was doing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn average(of: &mut Duration, new: Duration) {
    *of = if of.is_zero() { new } else { *of - *of / MEMORY + new / MEMORY };
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_wait_grows_with_the_queue_and_shrinks_with_the_instances() {
        let (pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.wait(100, 1), Duration::ZERO);
        pace.record(ms(20), false, 0, now);
        assert_eq!(pace.call(), ms(20));
        assert_eq!(pace.wait(0, 1), ms(20));
        assert_eq!(pace.wait(99, 4), ms(500));
        assert_eq!(pace.wait(u32::MAX, 0), ms(20) * u32::MAX);
    }

    #[test]
    fn the_pace_follows_what_calls_take() {
        let (pace, now) = (Pace::default(), Instant::now());
        pace.record(ms(10), false, 0, now);
        (0..600).for_each(|_| pace.record(ms(40), false, 0, now));
        let call = pace.call().as_secs_f64();
        assert!((0.0399..0.0401).contains(&call), "{call}");
        // What was cut short says only that a call takes no less.
        pace.record(ms(1), true, 0, now);
        assert_eq!(pace.call().as_secs_f64(), call);
        pace.record(ms(400), true, 0, now);
        assert!(pace.call().as_secs_f64() > call);
        pace.record(Duration::MAX, false, 0, now);
        assert!(pace.wait(u32::MAX, 1) > Duration::from_secs(1));
    }

    #[test]
    fn a_queue_that_moves_slower_than_its_calls_explain_is_believed() {
        let (pace, begun) = (Pace::default(), Instant::now());
        for call in 1..100 {
            pace.record(ms(20), false, 5, begun + ms(30) * call);
        }
        assert_eq!(pace.wait(9, 2), ms(300));
        // A pause with nobody waiting is no step of the queue.
        pace.record(ms(20), false, 0, begun + ms(10_000));
        pace.record(ms(20), false, 5, begun + ms(20_000));
        assert_eq!(pace.wait(9, 2), ms(300));
    }
}
