//! The reports: three efficiencies by host, model and version, what the engine threads did, the
//! bill, and the waste.
//!
//! A figure is a ratio of sums, never a mean of ratios, and `null` where nothing was counted.

use std::collections::BTreeMap;

use serde::Serialize;

use super::calls::{Callable, Used};
use super::engine::EngineTotals;
use super::objects::GraphReading;
use super::reading::Reading;
use super::rows::RowId;
use super::totals::{Buckets, Totals};
use super::windows::{Difference, Window};
use super::{Ledger, held};
use crate::names::{ModelName, VersionName};

/// The answer of `GET /api/v1/efficiency`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EfficiencyReport {
    /// The window that was asked for.
    pub window: Window,
    /// How long it really is: up to a sample's step longer, or shorter on a young host.
    pub seconds: f64,
    /// The host.
    pub host: Row,
    /// Models active in the last hour; all for the lifetime.
    pub models: Vec<ModelEfficiency>,
    /// Versions likewise.
    pub versions: Vec<VersionEfficiency>,
    /// The compute threads.
    pub engine: EngineReport,
    /// Seconds that crashes may have cost the lifetime figures; zero in other windows.
    pub unaccounted_s: f64,
    /// What to know before comparing rows, for people.
    pub note: String,
}

/// The figures of one host, model or version.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Row {
    /// Compute efficiency: busy / (busy + idle) instance time.
    pub eta: Option<f64>,
    /// Data efficiency: used / (used + idle) byte-seconds.
    pub rho: Option<f64>,
    /// Sharing efficiency: called / callable; `null` for a version.
    pub xi: Option<f64>,
    /// (guest + compute) / busy: the part of busy time that was not waiting.
    pub useful: Option<f64>,
    /// Bytes of graphs if every live instance had its own / bytes resident, at this moment.
    pub sharing_factor: Option<f64>,
    /// Calls that reached an instance.
    pub calls: u64,
    /// Instance time by bucket.
    pub buckets_ns: Buckets,
    /// Byte-seconds of leased objects, rounded down.
    pub used_byte_seconds: u64,
    /// Byte-seconds of resident objects that nobody leased, rounded down.
    pub idle_byte_seconds: u64,
}

/// A model's row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelEfficiency {
    /// Whose row it is.
    pub model: ModelName,
    /// The figures.
    #[serde(flatten)]
    pub row: Row,
}

/// A version's row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VersionEfficiency {
    /// The model.
    pub model: ModelName,
    /// Whose row it is.
    pub version: VersionName,
    /// The figures.
    #[serde(flatten)]
    pub row: Row,
}

/// What the compute threads did. `busy_ns` is the sum of the four lines after it, and all of it but
/// `under_way_ns` was charged to someone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct EngineReport {
    /// Threads alive now.
    pub threads: Vec<ThreadReport>,
    /// Busy time of all threads, also of those that ended.
    pub busy_ns: u64,
    /// Charged to versions.
    pub apportioned_ns: u64,
    /// For callers that had left.
    pub abandoned_ns: u64,
    /// For batch slots without a row.
    pub empty_slots_ns: u64,
    /// Of runs that have not ended. In a window that a longer run ended in it is negative: the run
    /// is charged whole when it ends, and this takes back what was before the window.
    pub under_way_ns: i64,
    /// Short jobs that ran on their callers' threads; charged to versions, not in `busy_ns`.
    pub inline_ns: u64,
}

/// One compute thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ThreadReport {
    /// Its name.
    pub thread: String,
    /// Time running jobs.
    pub busy_ns: u64,
    /// Time waiting for them.
    pub idle_ns: u64,
}

/// What a model's callers used. A batch is paid once: its engine time is split among its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BillLine {
    /// Whose instances worked.
    pub model: ModelName,
    /// Calls that reached an instance.
    pub calls: u64,
    /// Guest time.
    pub guest_ns: u64,
    /// Engine time.
    pub engine_ns: u64,
    /// What is billed: guest and engine time.
    pub billed_ns: u64,
}

/// Something that was spent without use, and what would spend less of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WasteLine {
    /// What was wasted.
    pub waste: &'static str,
    /// How much, in `unit`.
    pub amount: u64,
    /// `byte-seconds` or `ns`.
    pub unit: &'static str,
    /// The settings that would remove it, the likeliest first.
    pub settings: &'static [&'static str],
}

const SECOND_NS: u64 = 1_000_000_000;

impl Ledger {
    /// The efficiencies of a window that ends now. `callable` is who may call what at this moment.
    pub fn efficiency(&self, window: Window, callable: Callable<'_>) -> EfficiencyReport {
        let (now, difference) = self.difference(window);
        let lifetime = window == Window::Lifetime;
        let unaccounted_ms = held(&self.saved).unaccounted_ms();
        // The calls of earlier processes are in the totals, but not who made them.
        let called_before = |name: &ModelName| {
            let is_it = |row: &&super::reading::ModelReading| row.name == *name;
            lifetime && now.models.iter().find(is_it).is_some_and(|row| row.totals.calls > 0)
        };
        let used = self.calls.used_since(difference.start_ns, callable, called_before);
        let sharing = Sharing::of(&now);
        EfficiencyReport {
            window,
            seconds: now.at_ns.saturating_sub(difference.start_ns) as f64 / SECOND_NS as f64,
            host: Row::of(difference.host, Some(used.1), sharing.factor(None)),
            models: model_rows(&now, &difference, &used.0, &sharing),
            versions: version_rows(&now, &difference, &sharing),
            engine: engine_report(&now, &difference),
            unaccounted_s: if lifetime { unaccounted_ms as f64 / 1000.0 } else { 0.0 },
            note: note(callable, lifetime),
        }
    }

    /// The bill of a window that ends now, by model.
    pub fn bill(&self, window: Window) -> Vec<BillLine> {
        let (now, difference) = self.difference(window);
        let lines = now.models.iter().filter_map(|model| {
            let totals = difference.rows.get(&model.id)?;
            Some(BillLine {
                model: model.name.clone(),
                calls: totals.calls,
                guest_ns: totals.buckets.guest,
                engine_ns: totals.engine_ns,
                billed_ns: totals.buckets.guest.saturating_add(totals.engine_ns),
            })
        });
        lines.collect()
    }

    /// What the host spent without use in a window that ends now.
    pub fn waste(&self, window: Window) -> Vec<WasteLine> {
        let (now, difference) = self.difference(window);
        let engine = engine_report(&now, &difference);
        let line = |waste, amount, unit, settings| WasteLine { waste, amount, unit, settings };
        vec![
            line(
                "memory of idle instances and graphs",
                byte_seconds(difference.host.data.idle),
                "byte-seconds",
                &["pool.idle_instance_timeout_s", "pool.min_instances"],
            ),
            line(
                "cold starts",
                difference.host.buckets.cold,
                "ns",
                &["pool.min_instances", "pool.max_instance_reuse_count"],
            ),
            line("empty batch slots", engine.empty_slots_ns, "ns", &["max_batch_delay"]),
            line("abandoned work", engine.abandoned_ns, "ns", &["limits.request_timeout_ms"]),
        ]
    }

    fn difference(&self, window: Window) -> (Reading, Difference) {
        let windows = held(&self.windows);
        // Read under the lock, so that no sample can be newer than the window's end.
        let now = self.read();
        let difference = windows.difference(&now, window);
        (now, difference)
    }
}

impl Row {
    fn of(totals: Totals, used: Option<Used>, sharing_factor: Option<f64>) -> Self {
        let Totals { buckets, data, .. } = totals;
        let busy_ns = buckets.busy_ns();
        Self {
            eta: ratio(busy_ns.into(), buckets.total_ns().into()),
            rho: ratio(data.used, data.used.saturating_add(data.idle)),
            xi: used.and_then(|pairs| ratio(pairs.used.into(), pairs.callable.into())),
            useful: ratio(buckets.guest.saturating_add(buckets.compute).into(), busy_ns.into()),
            sharing_factor,
            calls: totals.calls,
            buckets_ns: buckets,
            used_byte_seconds: byte_seconds(data.used),
            idle_byte_seconds: byte_seconds(data.idle),
        }
    }
}

/// Resident graphs and live instances, for the sharing factor.
struct Sharing<'a> {
    graphs: &'a [GraphReading],
    instances: BTreeMap<RowId, u64>,
}

impl<'a> Sharing<'a> {
    fn of(now: &'a Reading) -> Self {
        Self { graphs: &now.graphs, instances: now.instances() }
    }

    /// For a version or model, or for the host.
    fn factor(&self, row: Option<RowId>) -> Option<f64> {
        let is_of = |(version, model): &(RowId, RowId)| {
            row.is_none_or(|row| row == *version || row == *model)
        };
        let (mut summed, mut resident) = (0_u128, 0_u128);
        for graph in self.graphs {
            let bytes = u128::from(graph.bytes);
            let mut referring = graph.versions.iter().filter(|pair| is_of(pair)).peekable();
            if row.is_none() || referring.peek().is_some() {
                let live = |(version, _): &(RowId, RowId)| {
                    self.instances.get(version).copied().map_or(0, u128::from)
                };
                summed = summed.saturating_add(bytes.saturating_mul(referring.map(live).sum()));
                resident = resident.saturating_add(bytes);
            }
        }
        ratio(summed, resident)
    }
}

fn model_rows(
    now: &Reading,
    difference: &Difference,
    used: &BTreeMap<ModelName, Used>,
    sharing: &Sharing<'_>,
) -> Vec<ModelEfficiency> {
    let rows = now.models.iter().filter_map(|model| {
        let totals = *difference.rows.get(&model.id)?;
        let pairs = used.get(&model.name).copied();
        let row = Row::of(totals, pairs, sharing.factor(Some(model.id)));
        Some(ModelEfficiency { model: model.name.clone(), row })
    });
    rows.collect()
}

fn version_rows(
    now: &Reading,
    difference: &Difference,
    sharing: &Sharing<'_>,
) -> Vec<VersionEfficiency> {
    let rows = now.versions.iter().filter_map(|version| {
        let totals = *difference.rows.get(&version.id)?;
        let row = Row::of(totals, None, sharing.factor(Some(version.id)));
        Some(VersionEfficiency { model: version.model.clone(), version: version.name.clone(), row })
    });
    rows.collect()
}

fn engine_report(now: &Reading, difference: &Difference) -> EngineReport {
    let (after, before) = (now.engine, difference.engine_before);
    let threads = now.threads.iter().map(|thread| {
        let known = difference.threads_before.iter().find(|(id, _)| *id == thread.id);
        let before = known.map_or_else(EngineTotals::default, |(_, totals)| *totals);
        ThreadReport {
            thread: thread.name.clone(),
            busy_ns: thread.totals.busy_ns().saturating_sub(before.busy_ns()),
            idle_ns: thread.totals.idle_ns.saturating_sub(before.idle_ns),
        }
    });
    EngineReport {
        threads: threads.collect(),
        busy_ns: after.busy_ns().saturating_sub(before.busy_ns()),
        apportioned_ns: after.apportioned_ns.saturating_sub(before.apportioned_ns),
        abandoned_ns: after.abandoned_ns.saturating_sub(before.abandoned_ns),
        empty_slots_ns: after.empty_slots_ns.saturating_sub(before.empty_slots_ns),
        under_way_ns: after.under_way_ns.cast_signed() - before.under_way_ns.cast_signed(),
        inline_ns: difference.host.inline_ns,
    }
}

fn note(callable: Callable<'_>, lifetime: bool) -> String {
    let pairs = match callable {
        Callable::Models(_) => {
            "xi counts models called / models callable, because authentication is off"
        }
        Callable::Pairs(_) => "xi counts pairs of tenant and model",
    };
    let past = match lifetime {
        true => {
            "; host and models include earlier runs of this server, versions count since its start"
        }
        false => "",
    };
    format!(
        "{pairs}; models and versions count every object they refer to, so their byte-seconds do \
         not add up to the host's; the sharing factor is of this moment{past}"
    )
}

fn ratio(part: u128, whole: u128) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn byte_seconds(byte_ns: u128) -> u64 {
    u64::try_from(byte_ns / u128::from(SECOND_NS)).unwrap_or(u64::MAX)
}
