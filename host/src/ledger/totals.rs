//! What accounts add up to: time by bucket, byte-seconds, and the totals of a row.

use serde::{Deserialize, Serialize};

/// What an instance is doing; always exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bucket {
    /// Being instantiated and initialised.
    Cold,
    /// Guest code is on a stack that is being polled.
    Guest,
    /// A job of its is running in an engine.
    Compute,
    /// Leased, and waiting on the host.
    Wait,
    /// In the pool.
    Idle,
    /// Being torn down.
    Drain,
}

/// Nanoseconds by bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is the time in the bucket of its name")]
pub struct Buckets {
    pub cold: u64,
    pub guest: u64,
    pub compute: u64,
    pub wait: u64,
    pub idle: u64,
    pub drain: u64,
}

impl Buckets {
    /// Time in which the instance worked for a caller: guest, compute and wait.
    pub fn busy_ns(&self) -> u64 {
        self.guest.saturating_add(self.compute).saturating_add(self.wait)
    }

    /// Time in which it did not: cold, idle and drain.
    pub fn idle_ns(&self) -> u64 {
        self.cold.saturating_add(self.idle).saturating_add(self.drain)
    }

    /// All of it, the lifetime so far.
    pub fn total_ns(&self) -> u64 {
        self.busy_ns().saturating_add(self.idle_ns())
    }

    /// Adds time to one bucket.
    pub(super) fn charge(&mut self, bucket: Bucket, ns: u64) {
        let slot = match bucket {
            Bucket::Cold => &mut self.cold,
            Bucket::Guest => &mut self.guest,
            Bucket::Compute => &mut self.compute,
            Bucket::Wait => &mut self.wait,
            Bucket::Idle => &mut self.idle,
            Bucket::Drain => &mut self.drain,
        };
        *slot = slot.saturating_add(ns);
    }

    fn zip(self, other: Self, with: fn(u64, u64) -> u64) -> Self {
        Self {
            cold: with(self.cold, other.cold),
            guest: with(self.guest, other.guest),
            compute: with(self.compute, other.compute),
            wait: with(self.wait, other.wait),
            idle: with(self.idle, other.idle),
            drain: with(self.drain, other.drain),
        }
    }
}

/// How long how many bytes were held: byte-nanoseconds, exact.
///
/// A gibibyte over an hour is 4e21 of them, past what 64 bits hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ByteTime {
    /// While at least one lease held the object.
    #[serde(with = "decimal")]
    pub used: u128,
    /// The rest of its residence.
    #[serde(with = "decimal")]
    pub idle: u128,
}

impl ByteTime {
    /// Adds `bytes` over `ns`.
    pub(super) fn charge(&mut self, used: bool, bytes: u64, ns: u64) {
        let slot = if used { &mut self.used } else { &mut self.idle };
        // The product of two 64-bit numbers always fits; the sum may not after some ages.
        *slot = slot.saturating_add(u128::from(bytes) * u128::from(ns));
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            used: self.used.saturating_add(other.used),
            idle: self.idle.saturating_add(other.idle),
        }
    }

    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            used: self.used.saturating_sub(earlier.used),
            idle: self.idle.saturating_sub(earlier.idle),
        }
    }
}

/// Everything the ledger counts for a version, a model or the host, since its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Instance time.
    pub buckets: Buckets,
    /// Leases of its instances: calls that reached one.
    pub calls: u64,
    /// Engine time of its jobs, a batch split by rows; inline runs included.
    pub engine_ns: u64,
    /// The part of `engine_ns` that ran on the caller's own thread instead of an engine thread.
    pub inline_ns: u64,
    /// Time spent compiling its component.
    pub compile_ns: u64,
    /// Time spent loading its compiled component.
    pub deserialize_ns: u64,
    /// Time spent loading its graphs into a backend.
    pub graph_load_ns: u64,
    /// Residence of the objects it refers to.
    pub data: ByteTime,
}

impl Totals {
    pub(super) fn plus(self, other: Self) -> Self {
        self.zip(other, u64::saturating_add, self.data.plus(other.data))
    }

    /// What was added after `earlier`.
    pub(super) fn since(self, earlier: Self) -> Self {
        self.zip(earlier, u64::saturating_sub, self.data.since(earlier.data))
    }

    fn zip(self, other: Self, with: fn(u64, u64) -> u64, data: ByteTime) -> Self {
        Self {
            buckets: self.buckets.zip(other.buckets, with),
            calls: with(self.calls, other.calls),
            engine_ns: with(self.engine_ns, other.engine_ns),
            inline_ns: with(self.inline_ns, other.inline_ns),
            compile_ns: with(self.compile_ns, other.compile_ns),
            deserialize_ns: with(self.deserialize_ns, other.deserialize_ns),
            graph_load_ns: with(self.graph_load_ns, other.graph_load_ns),
            data,
        }
    }
}

/// 128-bit numbers as decimal text: most JSON readers take a longer number for a float.
mod decimal {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(value: &u128, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u128, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_time_past_64_bits_survives_json() {
        let mut data = ByteTime::default();
        data.charge(true, u64::MAX, u64::MAX);
        let text = serde_json::to_string(&data).unwrap();
        assert_eq!(serde_json::from_str::<ByteTime>(&text).unwrap(), data);
    }

    #[test]
    fn a_difference_of_totals_added_back_is_the_total() {
        let earlier = Totals { calls: 2, engine_ns: 10, ..Totals::default() };
        let mut later = Totals { calls: 5, engine_ns: 15, ..Totals::default() };
        later.buckets.charge(Bucket::Drain, 7);
        later.data.charge(false, 3, 4);
        assert_eq!(earlier.plus(later.since(earlier)), later);
    }
}
