//! What a graph gains from rows that share a run, learned from its runs: how many of those that wait
//! are taken at once.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::rows::MAX_ROWS;
use crate::tensor::NamedTensor;

/// The most rows of each step: numbers of rows that are learned together.
const STEPS: [usize; 6] = [1, 2, 4, 8, 16, MAX_ROWS];

/// Classes of shapes that are learned apart; with more, all is learned anew, so that callers who choose
/// shapes cannot fill memory.
const CLASSES: usize = 64;

/// Runs of a step before it is judged, by the best of them: the first prepare what later ones find, and
/// any may be disturbed.
const TRIES: u32 = 5;

/// More rows are tried if fewer took at most this much of the time that they take alone: what more of
/// them gain may show with many only.
const TOLERABLE: f64 = 1.15;

/// Of so many choices one is another than the best, because loads change.
const AGAIN: u32 = 256;

/// A shared run must take at most this share of the time that its rows take alone: below it, what is
/// gained pays for putting rows together.
const WORTH: f64 = 0.97;

/// The weight of what was known, in a moving average.
const WEIGHT: f64 = 7.0;

/// What is learned of one graph.
#[derive(Default)]
pub(super) struct Gain(Mutex<HashMap<Class, Learned>>);

/// Inputs that differ in the number of rows only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Class(u64);

impl Class {
    /// The class of `inputs`. Of two that are taken for one, by a chance of one in 2^64, only times are
    /// mixed up.
    pub(super) fn of(inputs: &[NamedTensor]) -> Self {
        let mut hasher = DefaultHasher::new();
        for (_, tensor) in inputs {
            tensor.shape().get(1..).hash(&mut hasher);
        }
        Self(hasher.finish())
    }
}

#[derive(Clone, Copy, Default)]
struct Learned {
    steps: [Step; STEPS.len()],
    choices: u32,
}

#[derive(Clone, Copy, Default)]
struct Step {
    ns_per_row: f64,
    runs: u32,
}

impl Gain {
    /// How many of `waiting` rows to take into the next run.
    pub(super) fn choose(&self, class: Class, waiting: usize) -> usize {
        let mut classes = self.lock();
        if classes.len() >= CLASSES && !classes.contains_key(&class) {
            classes.clear();
        }
        let learned = classes.entry(class).or_default();
        learned.choices = learned.choices.wrapping_add(1);
        learned.choose(waiting)
    }

    /// A run of `rows` rows took this long.
    pub(super) fn learn(&self, class: Class, rows: usize, took: Duration) {
        if let Some(learned) = self.lock().get_mut(&class)
            && let Some(step) = learned.steps.get_mut(step_of(rows))
        {
            step.learn(took.as_nanos() as f64 / rows.max(1) as f64);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Class, Learned>> {
        // Numbers, whole whatever a panicking holder was doing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn step_of(rows: usize) -> usize {
    STEPS.iter().position(|most| rows <= *most).unwrap_or(STEPS.len() - 1)
}

impl Learned {
    fn choose(&self, waiting: usize) -> usize {
        let reachable = self.steps.get(..=step_of(waiting)).unwrap_or(&self.steps);
        let rows = |step: usize| STEPS.get(step).copied().unwrap_or(1).min(waiting.max(1));
        let untried = reachable.iter().position(|step| step.runs < TRIES);
        // A slow graph is not run with many rows where few do harm already.
        let before = untried.and_then(|step| self.steps.get(step.checked_sub(1)?));
        if let Some(untried) = untried.filter(|_| before.is_none_or(|step| self.is_tolerable(step)))
        {
            return rows(untried);
        }
        if self.choices.is_multiple_of(AGAIN) {
            return rows((self.choices / AGAIN) as usize % reachable.len());
        }
        let paying = reachable.iter().enumerate();
        let paying = paying.filter(|(_, step)| step.runs >= TRIES && self.pays(step));
        let best =
            paying.min_by(|(_, one), (_, other)| one.ns_per_row.total_cmp(&other.ns_per_row));
        best.map_or(1, |(step, _)| rows(step))
    }

    fn pays(&self, step: &Step) -> bool {
        step.ns_per_row <= self.alone() * WORTH
    }

    fn is_tolerable(&self, step: &Step) -> bool {
        step.ns_per_row <= self.alone() * TOLERABLE
    }

    fn alone(&self) -> f64 {
        self.steps.first().map_or(0.0, |step| step.ns_per_row)
    }
}

impl Step {
    fn learn(&mut self, ns_per_row: f64) {
        self.ns_per_row = match self.runs {
            0 => ns_per_row,
            1..TRIES => self.ns_per_row.min(ns_per_row),
            _ => (self.ns_per_row * WEIGHT + ns_per_row) / (WEIGHT + 1.0),
        };
        self.runs = self.runs.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASS: Class = Class(1);

    /// Learns from runs in which a row takes `ns` alone and `ns_together` in company.
    fn learned(ns: u64, ns_together: u64) -> Gain {
        let gain = Gain::default();
        for _ in 0..100 {
            let rows = gain.choose(CLASS, MAX_ROWS);
            let each = if rows == 1 { ns } else { ns_together };
            gain.learn(CLASS, rows, Duration::from_nanos(each * rows as u64));
        }
        gain
    }

    #[test]
    fn every_step_is_tried_before_one_is_chosen() {
        let gain = Gain::default();
        let tried: Vec<_> = (0..STEPS.len() * TRIES as usize)
            .map(|_| {
                let rows = gain.choose(CLASS, MAX_ROWS);
                gain.learn(CLASS, rows, Duration::from_micros(rows as u64));
                rows
            })
            .collect();
        assert!(STEPS.iter().all(|step| tried.contains(step)), "{tried:?}");
    }

    #[test]
    fn rows_share_a_run_where_that_is_faster_and_only_there() {
        let gain = learned(1000, 400);
        assert!(gain.choose(CLASS, MAX_ROWS) > 1);
        assert!(gain.choose(CLASS, 3) <= 3, "no more than wait");
        for together in [990, 1000, 2000] {
            let gain = learned(1000, together);
            assert_eq!(gain.choose(CLASS, MAX_ROWS), 1);
        }
    }

    #[test]
    fn many_rows_are_not_tried_where_few_do_harm() {
        let gain = Gain::default();
        for _ in 0..AGAIN - 1 {
            let rows = gain.choose(CLASS, MAX_ROWS);
            assert!(rows <= 2, "{rows}");
            gain.learn(CLASS, rows, Duration::from_micros(if rows == 1 { 10 } else { 30 }));
        }
    }

    #[test]
    fn what_changed_is_noticed() {
        let gain = learned(1000, 2000);
        for _ in 0..AGAIN * 60 {
            let rows = gain.choose(CLASS, MAX_ROWS);
            gain.learn(
                CLASS,
                rows,
                Duration::from_nanos(rows as u64 * if rows == 1 { 1000 } else { 300 }),
            );
        }
        assert!(gain.choose(CLASS, MAX_ROWS) > 1);
    }

    #[test]
    fn callers_who_choose_shapes_fill_no_memory() {
        let gain = Gain::default();
        (0..10_000).for_each(|class| _ = gain.choose(Class(class), 4));
        assert!(gain.lock().len() <= CLASSES);
    }
}
