//! Statistics: what the protocol's clients ask of every version, counted as its requests end: how many
//! there were, of how many rows, and what their stages took.
//!
//! They begin with the process. What an instance did with every nanosecond is the ledger's.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::grpc::proto::{
    InferBatchStatistics, InferStatistics, MemoryUsage, ModelStatistics, StatisticDuration,
};

/// Sizes of batches that are told apart for a version; requests of further sizes count in the totals
/// alone. A load test uses ten.
const MAX_BATCH_SIZES: usize = 128;

/// What one request took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// Rows of its batch; 1 where the model takes no batches.
    pub rows: u64,
    /// Waiting for an instance, and for the version to be loaded.
    pub queue: Duration,
    /// Making tensors of the request.
    pub input: Duration,
    /// The guest and its graphs.
    pub infer: Duration,
    /// Making an answer of tensors.
    pub output: Duration,
    /// From the request's head to its answer.
    pub total: Duration,
}

/// The statistics of one version.
#[derive(Debug, Default)]
pub struct Statistics(Mutex<Totals>);

#[derive(Debug, Default)]
struct Totals {
    last_ms: u64,
    rows: u64,
    success: Sum,
    fail: Sum,
    queue: Sum,
    input: Sum,
    infer: Sum,
    output: Sum,
    batches: BTreeMap<u64, [Sum; 3]>,
}

/// A number of times, and how long they were together.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    count: u64,
    ns: u64,
}

impl Sum {
    fn add(&mut self, time: Duration) {
        self.count += 1;
        self.ns = self.ns.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    fn message(self) -> Option<StatisticDuration> {
        Some(StatisticDuration { count: self.count, ns: self.ns })
    }
}

impl Statistics {
    /// Counts a request that was answered.
    pub fn answered(&self, sample: &Sample) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut totals = self.lock();
        totals.last_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        totals.rows = totals.rows.saturating_add(sample.rows);
        totals.success.add(sample.total);
        totals.queue.add(sample.queue);
        totals.input.add(sample.input);
        totals.infer.add(sample.infer);
        totals.output.add(sample.output);
        let known = totals.batches.len();
        if known < MAX_BATCH_SIZES || totals.batches.contains_key(&sample.rows) {
            let [input, infer, output] = totals.batches.entry(sample.rows).or_default();
            input.add(sample.input);
            infer.add(sample.infer);
            output.add(sample.output);
        }
    }

    /// Counts a request that was not.
    pub fn failed(&self, total: Duration) {
        self.lock().fail.add(total);
    }

    /// What there is to tell of a version that has these statistics and so many bytes of graphs loaded.
    pub fn message(&self, name: &str, version: &str, graph_bytes: u64) -> ModelStatistics {
        let totals = self.lock();
        let never = Sum::default().message();
        let batch = |(rows, [input, infer, output]): (&u64, &[Sum; 3])| InferBatchStatistics {
            batch_size: *rows,
            compute_input: input.message(),
            compute_infer: infer.message(),
            compute_output: output.message(),
        };
        let memory = (graph_bytes > 0).then(|| MemoryUsage {
            r#type: "CPU".to_owned(),
            id: 0,
            byte_size: graph_bytes,
        });
        ModelStatistics {
            name: name.to_owned(),
            version: version.to_owned(),
            last_inference: totals.last_ms,
            inference_count: totals.rows,
            execution_count: totals.success.count,
            inference_stats: Some(InferStatistics {
                success: totals.success.message(),
                fail: totals.fail.message(),
                queue: totals.queue.message(),
                compute_input: totals.input.message(),
                compute_infer: totals.infer.message(),
                compute_output: totals.output.message(),
                // Answers are not cached.
                cache_hit: never,
                cache_miss: never,
            }),
            batch_stats: totals.batches.iter().map(batch).collect(),
            memory_usage: memory.into_iter().collect(),
            response_stats: BTreeMap::new(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Totals> {
        // Sums stay what they are whatever a panicking holder was doing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rows: u64, ms: u64) -> Sample {
        let stage = Duration::from_millis(ms);
        let (queue, input, infer, output) = (stage, stage * 2, stage * 3, stage * 4);
        Sample { rows, queue, input, infer, output, total: stage * 10 }
    }

    #[test]
    fn rows_are_inferences_and_requests_are_executions() {
        let statistics = Statistics::default();
        statistics.answered(&sample(4, 1));
        statistics.answered(&sample(4, 1));
        statistics.answered(&sample(1, 1));
        statistics.failed(Duration::from_millis(7));
        let told = statistics.message("m", "1", 5);
        assert_eq!((told.inference_count, told.execution_count), (9, 3));
        assert!(told.last_inference > 1_600_000_000_000);
        let stats = told.inference_stats.unwrap();
        assert_eq!(stats.success, Some(StatisticDuration { count: 3, ns: 30_000_000 }));
        assert_eq!(stats.fail, Some(StatisticDuration { count: 1, ns: 7_000_000 }));
        assert_eq!(stats.queue, Some(StatisticDuration { count: 3, ns: 3_000_000 }));
        assert_eq!(stats.compute_output, Some(StatisticDuration { count: 3, ns: 12_000_000 }));
        let sizes: Vec<_> = told.batch_stats.iter().map(|batch| batch.batch_size).collect();
        assert_eq!(sizes, [1, 4]);
        let infer = told.batch_stats[1].compute_infer;
        assert_eq!(infer, Some(StatisticDuration { count: 2, ns: 6_000_000 }));
        assert_eq!(told.memory_usage[0].byte_size, 5);
    }

    #[test]
    fn sizes_of_batches_are_bounded_and_the_totals_are_not() {
        let statistics = Statistics::default();
        for rows in 1..=2 * MAX_BATCH_SIZES as u64 {
            statistics.answered(&sample(rows, 0));
        }
        let told = statistics.message("m", "1", 0);
        assert_eq!(told.batch_stats.len(), MAX_BATCH_SIZES);
        assert_eq!(told.execution_count, 2 * MAX_BATCH_SIZES as u64);
        assert!(told.memory_usage.is_empty());
    }

    #[test]
    fn json_has_numbers_and_no_null() {
        let told = Statistics::default().message("m", "1", 0);
        let json = serde_json::to_string(&told).unwrap();
        assert!(json.contains(r#""success":{"count":0,"ns":0}"#), "{json}");
        assert!(json.contains(r#""batch_stats":[]"#) && !json.contains("null"), "{json}");
    }
}
