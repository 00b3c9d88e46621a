//! Replay: the state that a journal's records give, checked link by link.

use std::collections::{BTreeMap, HashMap};

use super::apply::{Delta, apply};
use super::index::{IndexPosition, ModelUpdate};
use super::record::{Record, Tip};
use super::snapshot::Snapshot;
use crate::names::ModelName;

/// Where a record's line stands in the journal's file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// Its first byte.
    pub(super) at: u64,
    /// Its length in bytes, without the end of the line.
    pub(super) bytes: u32,
}

/// Where each model's records stand, oldest first: history is read from the journal itself.
pub(super) type Spans = HashMap<ModelName, Vec<Span>>;

/// The state so far, and what the index lacks of it.
pub(super) struct Replay {
    /// The state after the last record.
    pub(super) state: Snapshot,
    /// What the next record must follow.
    pub(super) tip: Tip,
    /// Where the records stand.
    pub(super) spans: Spans,
    /// How far the index is.
    index: IndexPosition,
    /// Whether the index follows another history than this journal's.
    pub(super) index_strayed: bool,
    /// What the records after the index's position changed.
    behind: BTreeMap<ModelName, ModelUpdate>,
}

impl Replay {
    /// A replay from nothing, which keeps what an index at `index` lacks.
    pub(super) fn new(index: IndexPosition) -> Self {
        Self {
            state: Snapshot::default(),
            tip: Tip::default(),
            spans: Spans::new(),
            index,
            index_strayed: false,
            behind: BTreeMap::new(),
        }
    }

    /// Takes in a frame's payload, which begins at byte `at` of the journal.
    pub(super) fn frame(&mut self, payload: &[u8], at: u64) -> Result<(), String> {
        let mut begin = at;
        for line in payload.split_inclusive(|byte| *byte == b'\n') {
            let record = line.strip_suffix(b"\n").ok_or("its last record has no end")?;
            self.record(record, begin)
                .map_err(|problem| format!("record at byte {begin}: {problem}"))?;
            begin += line.len() as u64;
        }
        Ok(())
    }

    /// What an index at the position given lacks, one update per model.
    pub(super) fn behind(&self) -> Vec<ModelUpdate> {
        self.behind.values().cloned().collect()
    }

    fn record(&mut self, line: &[u8], at: u64) -> Result<(), String> {
        let record = Record::decode(line).map_err(|error| error.to_string())?;
        if record.epoch != self.state.epoch + 1 {
            let (found, last) = (record.epoch, self.state.epoch);
            return Err(format!("its epoch is {found}, and the one before has {last}"));
        }
        if record.prev != self.tip.chain {
            return Err(format!("it does not follow epoch {} of this journal", self.state.epoch));
        }
        let delta = apply(&self.state, &record).map_err(|error| error.to_string())?;
        self.tip = Tip::after(&record, line);
        self.keep_span(&delta.model, line, at)?;
        self.state.put(&delta.model, delta.after.clone());
        self.state.epoch = record.epoch;
        self.note_for_index(delta);
        Ok(())
    }

    fn keep_span(&mut self, model: &ModelName, line: &[u8], at: u64) -> Result<(), String> {
        let bytes = u32::try_from(line.len()).map_err(|error| error.to_string())?;
        self.spans.entry(model.clone()).or_default().push(Span { at, bytes });
        Ok(())
    }

    fn note_for_index(&mut self, delta: Delta) {
        let epoch = self.state.epoch;
        if epoch == self.index.epoch {
            self.index_strayed = self.tip.chain != self.index.chain;
        }
        if epoch > self.index.epoch {
            let update = ModelUpdate::from(delta);
            // Between the first change and the last, the index sees only where it ends.
            match self.behind.get_mut(&update.model) {
                Some(noted) => noted.after = update.after,
                None => {
                    self.behind.insert(update.model.clone(), update);
                }
            }
        }
    }
}
