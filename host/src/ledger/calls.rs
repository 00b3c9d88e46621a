//! Who called what: for every pair of tenant and model, when it last called and how often.

use std::collections::{BTreeMap, HashMap};
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::{looked_at, written};
use crate::names::ModelName;

/// Pairs of tenant and model that are told apart; the calls of further pairs are not recorded. Some
/// hundred bytes each, so some megabytes at most.
pub const MAX_CALL_PAIRS: usize = 65_536;

/// Which pairs may call, at the moment of a report.
#[derive(Debug, Clone, Copy)]
pub enum Callable<'a> {
    /// Authentication is off: everyone may call these models, so models are counted, not pairs.
    Models(&'a [ModelName]),
    /// These tenants may call these models, every owner's own pair included.
    Pairs(&'a [(String, ModelName)]),
}

/// One line of who called what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CallerReport {
    /// The caller.
    pub tenant: String,
    /// What it called.
    pub model: ModelName,
    /// Calls in the life of this process.
    pub calls: u64,
    /// Nanoseconds since the last one.
    pub last_call_ago_ns: u64,
}

#[derive(Debug, Default)]
pub(super) struct Calls {
    /// By model, then by tenant: both can be looked up without making a key.
    pairs: RwLock<Pairs>,
}

#[derive(Debug, Default)]
struct Pairs {
    count: usize,
    by_model: HashMap<ModelName, BTreeMap<String, Pair>>,
}

#[derive(Debug, Default)]
struct Pair {
    calls: AtomicU64,
    last_ns: AtomicU64,
}

/// How many of the callable were called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Used {
    pub(super) used: u64,
    pub(super) callable: u64,
}

impl Calls {
    /// Counts a call. Only the first of a pair takes more than a shared lock.
    pub(super) fn called(&self, tenant: &str, model: &ModelName, now_ns: u64) {
        if looked_at(&self.pairs).pair(tenant, model).map(|pair| pair.call(now_ns)).is_some() {
            return;
        }
        let mut pairs = written(&self.pairs);
        if pairs.pair(tenant, model).is_none() {
            if pairs.count >= MAX_CALL_PAIRS {
                return;
            }
            pairs.count += 1;
        }
        let tenants = pairs.by_model.entry(model.clone()).or_default();
        tenants.entry(tenant.to_owned()).or_default().call(now_ns);
    }

    /// How many callable pairs called at or after `start_ns`: for every model, and in all.
    /// `called_before` adds models that are known to have been called by other accounts.
    pub(super) fn used_since(
        &self,
        start_ns: u64,
        callable: Callable<'_>,
        called_before: impl Fn(&ModelName) -> bool,
    ) -> (BTreeMap<ModelName, Used>, Used) {
        let pairs = looked_at(&self.pairs);
        let mut models = BTreeMap::<ModelName, Used>::new();
        let mut count = |model: &ModelName, used: bool| {
            let line = models.entry(model.clone()).or_default();
            line.callable += 1;
            line.used += u64::from(used);
        };
        match callable {
            Callable::Models(names) => {
                for name in names {
                    count(name, pairs.model_called(name, start_ns) || called_before(name));
                }
            }
            Callable::Pairs(known) => {
                for (tenant, model) in known {
                    let pair = pairs.pair(tenant, model);
                    count(model, pair.is_some_and(|pair| pair.called_since(start_ns)));
                }
            }
        }
        let host = models.values().fold(Used::default(), |sum, line| Used {
            used: sum.used + line.used,
            callable: sum.callable + line.callable,
        });
        (models, host)
    }

    pub(super) fn report(&self, now_ns: u64) -> Vec<CallerReport> {
        let pairs = looked_at(&self.pairs);
        let lines = pairs.by_model.iter().flat_map(|(model, tenants)| {
            tenants.iter().map(|(tenant, pair)| CallerReport {
                tenant: tenant.clone(),
                model: model.clone(),
                calls: pair.calls.load(Ordering::Relaxed),
                last_call_ago_ns: now_ns.saturating_sub(pair.last_ns.load(Ordering::Relaxed)),
            })
        });
        let mut lines: Vec<_> = lines.collect();
        lines.sort_by(|a, b| (&a.model, &a.tenant).cmp(&(&b.model, &b.tenant)));
        lines
    }
}

impl Pairs {
    fn pair(&self, tenant: &str, model: &ModelName) -> Option<&Pair> {
        self.by_model.get(model)?.get(tenant)
    }

    fn model_called(&self, model: &ModelName, start_ns: u64) -> bool {
        let tenants = self.by_model.get(model);
        tenants.is_some_and(|tenants| tenants.values().any(|pair| pair.called_since(start_ns)))
    }
}

impl Pair {
    fn call(&self, now_ns: u64) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.last_ns.fetch_max(now_ns, Ordering::Relaxed);
    }

    fn called_since(&self, start_ns: u64) -> bool {
        self.calls.load(Ordering::Relaxed) > 0 && self.last_ns.load(Ordering::Relaxed) >= start_ns
    }
}
