//! Windows: the difference between what is counted now and what was counted a while ago.
//!
//! Samples of the last five minutes stand a second apart, those of the last hour ten seconds. A row
//! has samples only while it changed within the hour; before and after, its last totals are enough.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use super::engine::EngineTotals;
use super::reading::Reading;
use super::rows::RowId;
use super::totals::Totals;

/// How often the host is to call `sample`.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// Samples that come sooner after the last are left out, so that a caller in a hurry cannot make the
/// rings longer; half the interval, so that a late sample does not cost the next one its place.
const MIN_STEP_NS: u64 = SECOND_NS / 2;
/// The step of samples for the hour.
const COARSE_STEP_NS: u64 = 10 * SECOND_NS;
/// How far back the fine samples reach.
const FINE_SPAN_NS: u64 = 300 * SECOND_NS;
/// How far back the coarse samples reach.
const COARSE_SPAN_NS: u64 = 3600 * SECOND_NS;
/// Rows with samples at once. Each takes up to 140 kB, so some hundred megabytes at the very most;
/// rows beyond have lifetime figures only.
const MAX_RINGS: usize = 1024;
const SECOND_NS: u64 = 1_000_000_000;

// The fine samples must cover the longest window that is read from them.
const _: () = assert!(FINE_SPAN_NS < COARSE_SPAN_NS && MIN_STEP_NS < COARSE_STEP_NS);

/// How far back a report looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub enum Window {
    /// One minute.
    #[serde(rename = "1m")]
    OneMinute,
    /// Five minutes.
    #[default]
    #[serde(rename = "5m")]
    FiveMinutes,
    /// One hour.
    #[serde(rename = "1h")]
    OneHour,
    /// All that was ever counted.
    #[serde(rename = "lifetime")]
    Lifetime,
}

/// Text that is not a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a window: use 1m, 5m, 1h or lifetime")]
pub struct WindowError;

impl FromStr for Window {
    type Err = WindowError;
    fn from_str(text: &str) -> Result<Self, WindowError> {
        match text {
            "1m" => Ok(Self::OneMinute),
            "5m" => Ok(Self::FiveMinutes),
            "1h" => Ok(Self::OneHour),
            "lifetime" => Ok(Self::Lifetime),
            _ => Err(WindowError),
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneMinute => "1m",
            Self::FiveMinutes => "5m",
            Self::OneHour => "1h",
            Self::Lifetime => "lifetime",
        })
    }
}

/// The samples of a host.
#[derive(Debug, Default)]
pub(super) struct Windows {
    started_ns: u64,
    last_ns: u64,
    last_coarse_ns: u64,
    host: Ring<HostSample>,
    rows: BTreeMap<RowId, RowHistory>,
    /// How many of `rows` have a ring.
    rings: usize,
}

/// What was added in a window.
#[derive(Debug)]
pub(super) struct Difference {
    pub(super) start_ns: u64,
    pub(super) host: Totals,
    /// Of the whole engine at the window's start; threads may have ended since.
    pub(super) engine_before: EngineTotals,
    pub(super) threads_before: Vec<(u64, EngineTotals)>,
    /// Rows that were active within the hour; all for the lifetime.
    pub(super) rows: BTreeMap<RowId, Totals>,
}

#[derive(Debug, Clone, Default)]
struct HostSample {
    totals: Totals,
    engine: EngineTotals,
    threads: Vec<(u64, EngineTotals)>,
}

#[derive(Debug, Default)]
struct RowHistory {
    last: Totals,
    changed_ns: u64,
    ring: Option<Ring<Totals>>,
}

/// Samples, oldest first, each with its time.
#[derive(Debug, Default)]
struct Ring<T> {
    fine: VecDeque<(u64, T)>,
    coarse: VecDeque<(u64, T)>,
}

impl Windows {
    /// No past: every window but the lifetime begins with what `reading` says.
    pub(super) fn begin(reading: &Reading) -> Self {
        let history = |totals| RowHistory { last: totals, changed_ns: 0, ring: None };
        Self {
            started_ns: reading.at_ns,
            last_ns: reading.at_ns,
            last_coarse_ns: reading.at_ns,
            host: Ring::begin(reading.at_ns, HostSample::of(reading)),
            rows: reading.rows().map(|(id, totals)| (id, history(totals))).collect(),
            rings: 0,
        }
    }

    pub(super) fn record(&mut self, reading: &Reading) {
        let at_ns = reading.at_ns;
        if at_ns.saturating_sub(self.last_ns) < MIN_STEP_NS {
            return;
        }
        let coarse = at_ns.saturating_sub(self.last_coarse_ns) >= COARSE_STEP_NS;
        self.host.push(at_ns, HostSample::of(reading), coarse);
        for (id, totals) in reading.rows() {
            let row = self.rows.entry(id).or_default();
            if row.last != totals {
                row.changed_ns = at_ns;
                if row.ring.is_none() && self.rings < MAX_RINGS {
                    row.ring = Some(Ring::begin(self.last_ns, row.last));
                    self.rings += 1;
                }
            }
            row.last = totals;
            let quiet_ns = at_ns.saturating_sub(row.changed_ns);
            // The hour's window may begin up to a step before the hour.
            if quiet_ns > COARSE_SPAN_NS + COARSE_STEP_NS {
                self.rings -= usize::from(row.ring.take().is_some());
            } else if let Some(ring) = &mut row.ring {
                ring.push(at_ns, totals, coarse);
            }
        }
        self.last_ns = at_ns;
        if coarse {
            self.last_coarse_ns = at_ns;
        }
    }

    /// Whether a window still needs a row.
    pub(super) fn is_active(&self, row: RowId) -> bool {
        self.rows.get(&row).is_some_and(|row| row.ring.is_some())
    }

    pub(super) fn forget(&mut self, row: RowId) {
        let history = self.rows.remove(&row);
        self.rings -= usize::from(history.is_some_and(|row| row.ring.is_some()));
    }

    pub(super) fn difference(&self, now: &Reading, window: Window) -> Difference {
        let (start_ns, before) = match self.host.before(now.at_ns, window) {
            Some((at_ns, sample)) => (*at_ns, sample.clone()),
            None => (self.started_ns, HostSample::default()),
        };
        let rows = now.rows().filter_map(|(id, totals)| {
            let added = self.row_difference(id, totals, start_ns, window)?;
            Some((id, added))
        });
        Difference {
            start_ns,
            host: now.host.since(before.totals),
            engine_before: before.engine,
            threads_before: before.threads,
            rows: rows.collect(),
        }
    }

    fn row_difference(
        &self,
        id: RowId,
        totals: Totals,
        start_ns: u64,
        window: Window,
    ) -> Option<Totals> {
        if window == Window::Lifetime {
            return Some(totals);
        }
        let Some(row) = self.rows.get(&id) else {
            // Made after the last sample.
            return Some(totals);
        };
        let before = match &row.ring {
            Some(ring) => ring.samples(window).and_then(|samples| newest(samples, start_ns)),
            None if row.last != totals && self.rings < MAX_RINGS => Some(&(0, row.last)),
            None => None,
        };
        before.map(|(_, before)| totals.since(*before))
    }
}

impl HostSample {
    fn of(reading: &Reading) -> Self {
        let threads = reading.threads.iter().map(|thread| (thread.id, thread.totals));
        Self { totals: reading.host, engine: reading.engine, threads: threads.collect() }
    }
}

impl<T: Clone> Ring<T> {
    fn begin(at_ns: u64, sample: T) -> Self {
        let first = VecDeque::from([(at_ns, sample)]);
        Self { fine: first.clone(), coarse: first }
    }

    fn push(&mut self, at_ns: u64, sample: T, coarse: bool) {
        if coarse {
            append(&mut self.coarse, at_ns, sample.clone(), COARSE_SPAN_NS);
        }
        append(&mut self.fine, at_ns, sample, FINE_SPAN_NS);
    }
}

impl<T> Ring<T> {
    /// Where a window begins; none for the lifetime.
    fn before(&self, now_ns: u64, window: Window) -> Option<&(u64, T)> {
        let span_ns = match window {
            Window::OneMinute => 60 * SECOND_NS,
            Window::FiveMinutes => FINE_SPAN_NS,
            Window::OneHour => COARSE_SPAN_NS,
            Window::Lifetime => return None,
        };
        newest(self.samples(window)?, now_ns.saturating_sub(span_ns))
    }

    fn samples(&self, window: Window) -> Option<&VecDeque<(u64, T)>> {
        match window {
            Window::OneMinute | Window::FiveMinutes => Some(&self.fine),
            Window::OneHour => Some(&self.coarse),
            Window::Lifetime => None,
        }
    }
}

/// Adds a sample and drops those that no window of `span_ns` begins at any more.
fn append<T>(samples: &mut VecDeque<(u64, T)>, at_ns: u64, sample: T, span_ns: u64) {
    samples.push_back((at_ns, sample));
    let oldest_start_ns = at_ns.saturating_sub(span_ns);
    while samples.get(1).is_some_and(|(second_ns, _)| *second_ns <= oldest_start_ns) {
        samples.pop_front();
    }
}

/// The newest sample at or before `at_ns`, or the oldest there is: a row's first sample is from
/// before its activity, so it is right for any earlier time.
fn newest<T>(samples: &VecDeque<(u64, T)>, at_ns: u64) -> Option<&(u64, T)> {
    let after = samples.partition_point(|(sample_ns, _)| *sample_ns <= at_ns);
    samples.get(after.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::super::{Clock, Digest, Ledger};
    use super::*;

    #[test]
    fn rings_stay_bounded_however_often_samples_come() {
        let (clock, hand) = Clock::manual();
        let ledger = Ledger::new(clock);
        let (model, version) = ("m".parse().unwrap(), "1".parse().unwrap());
        let row = ledger.version(&model, &version, Digest::of(b""));
        let _idle_so_it_changes = ledger.instance(&row);
        let mut windows = Windows::begin(&ledger.read());
        for _ in 0..80_000 {
            hand.advance_ns(SECOND_NS / 10);
            windows.record(&ledger.read());
        }
        let rows: Vec<_> = windows.rows.values().filter_map(|row| row.ring.as_ref()).collect();
        assert_eq!((rows.len(), windows.rings), (2, 2));
        let mut lengths: Vec<_> =
            rows.iter().map(|ring| (ring.fine.len(), ring.coarse.len())).collect();
        lengths.push((windows.host.fine.len(), windows.host.coarse.len()));
        for (fine, coarse) in lengths {
            assert!((600..=602).contains(&fine), "{fine}");
            assert!((360..=362).contains(&coarse), "{coarse}");
        }
    }
}
