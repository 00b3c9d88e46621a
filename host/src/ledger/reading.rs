//! Reading all rows at one instant, the once-a-second sample, and putting away rows nobody needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::engine::{EngineTotals, ThreadReading};
use super::objects::GraphReading;
use super::rows::RowId;
use super::totals::Totals;
use super::windows::Windows;
use super::{Ledger, held};
use crate::names::{ModelName, VersionName};

/// Everything the ledger has counted, at one instant.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) at_ns: u64,
    /// The sum of the models, but with every object counted once.
    pub(super) host: Totals,
    pub(super) engine: EngineTotals,
    pub(super) threads: Vec<ThreadReading>,
    pub(super) models: Vec<ModelReading>,
    pub(super) versions: Vec<VersionReading>,
    pub(super) graphs: Vec<GraphReading>,
}

#[derive(Debug)]
pub(super) struct ModelReading {
    pub(super) id: RowId,
    pub(super) name: ModelName,
    pub(super) totals: Totals,
}

#[derive(Debug)]
pub(super) struct VersionReading {
    pub(super) id: RowId,
    pub(super) model: ModelName,
    pub(super) name: VersionName,
    pub(super) totals: Totals,
    pub(super) instances: u64,
}

impl Reading {
    /// The totals of every model and version.
    pub(super) fn rows(&self) -> impl Iterator<Item = (RowId, Totals)> {
        let models = self.models.iter().map(|model| (model.id, model.totals));
        models.chain(self.versions.iter().map(|version| (version.id, version.totals)))
    }

    /// Live instances by version.
    pub(super) fn instances(&self) -> BTreeMap<RowId, u64> {
        self.versions.iter().map(|version| (version.id, version.instances)).collect()
    }
}

impl Ledger {
    /// Remembers all totals, for the windows. The host calls this every
    /// [`SAMPLE_INTERVAL`](super::SAMPLE_INTERVAL).
    pub fn sample(&self) {
        let mut windows = held(&self.windows);
        windows.record(&self.read());
        self.retire_rows(&mut windows);
    }

    /// Lets the windows begin with what is counted now.
    pub(super) fn begin_windows(&self) {
        let mut windows = held(&self.windows);
        *windows = Windows::begin(&self.read());
    }

    pub(super) fn read(&self) -> Reading {
        let at_ns = self.clock.now_ns();
        let (mut models, mut versions, mut host) = (Vec::new(), Vec::new(), Totals::default());
        for (name, entry) in held(&self.models).iter() {
            let mut sum = entry.row.retired();
            for row in &entry.versions {
                let (totals, instances) = row.totals(at_ns);
                sum = sum.plus(totals);
                versions.push(VersionReading {
                    id: row.id(),
                    model: name.clone(),
                    name: row.version().clone(),
                    totals,
                    instances,
                });
            }
            host = host.plus(sum);
            models.push(ModelReading { id: entry.row.id(), name: name.clone(), totals: sum });
        }
        let data = self.objects.read(at_ns);
        let of = |id| data.rows.get(&id).copied().unwrap_or_default();
        models.iter_mut().for_each(|row| row.totals.data = of(row.id));
        versions.iter_mut().for_each(|row| row.totals.data = of(row.id));
        host.data = data.host;
        let (threads, engine) = self.engine.read(at_ns);
        Reading { at_ns, host, engine, threads, models, versions, graphs: data.graphs }
    }

    /// Folds versions into their models when nobody refers to them and no window needs them.
    fn retire_rows(&self, windows: &mut Windows) {
        let mut models = held(&self.models);
        for entry in models.values_mut() {
            let model = entry.row.clone();
            entry.versions.retain(|row| {
                // Only this list refers to it, and new references are made under its lock.
                let wanted = Arc::strong_count(row) > 1 || windows.is_active(row.id());
                if !wanted {
                    model.retire(row.totals(0).0);
                    windows.forget(row.id());
                    self.objects.forget(row.id());
                }
                wanted
            });
        }
    }
}
