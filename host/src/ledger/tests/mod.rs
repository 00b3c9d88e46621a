//! Tests of the ledger as its users see it, nearly all by a clock that is moved by hand.

mod checkpoint;
mod engine;
mod figures;
mod instance;
mod objects;
mod windows;

use super::*;

pub(super) const SECOND_NS: u64 = 1_000_000_000;

/// A ledger at time zero and the hand of its clock.
pub(super) fn ledger() -> (Ledger, ManualClock) {
    let (clock, hand) = Clock::manual();
    (Ledger::new(clock), hand)
}

pub(super) fn name(model: &str) -> ModelName {
    model.parse().unwrap()
}

/// Version 1 of a model.
pub(super) fn version(ledger: &Ledger, model: &str) -> Arc<VersionRow> {
    numbered(ledger, model, "1")
}

pub(super) fn numbered(ledger: &Ledger, model: &str, version: &str) -> Arc<VersionRow> {
    ledger.version(&name(model), &version.parse().unwrap(), Digest::of(version.as_bytes()))
}

/// A report with authentication off.
pub(super) fn report(ledger: &Ledger, window: Window, callable: &[&str]) -> EfficiencyReport {
    let names: Vec<_> = callable.iter().map(|model| name(model)).collect();
    ledger.efficiency(window, Callable::Models(&names))
}
