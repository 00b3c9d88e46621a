//! Checkpoints: the cumulative totals as lines of JSON, so that a restart does not begin at zero.
//!
//! A line holds the host's figures and the models that changed since the line before; the last line
//! that names a model counts. The caller owns the files: it restores from the old one, writes the
//! [`Extent::Whole`] to a new one, puts that in its place, appends [`Extent::Changed`] every
//! [`CHECKPOINT_INTERVAL`], begins again when the file has passed [`CHECKPOINT_REWRITE_BYTES`], and
//! ends with [`Extent::Last`].

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read as _, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::engine::EngineTotals;
use super::rows::RowId;
use super::totals::{ByteTime, Totals};
use super::{Ledger, held};
use crate::names::ModelName;

/// How often the host is to write a checkpoint unless it is told otherwise; a crash costs what was
/// counted since the last.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);
/// The size at which a file of checkpoints is to be written anew: hours of a busy host, and read in
/// well under a second.
pub const CHECKPOINT_REWRITE_BYTES: u64 = 16 << 20;
/// The longest line that is read: some hundred thousand models.
const MAX_LINE_BYTES: u64 = 64 << 20;
/// The format of a line; a newer one is refused.
const FORMAT: u32 = 1;

/// How much a checkpoint writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Models that changed since the last checkpoint.
    Changed,
    /// All models, to begin a file with.
    Whole,
    /// What changed, and that the server stops here in good order: nothing will be missing.
    Last,
}

/// What a file of checkpoints gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restored {
    /// Lines that were read.
    pub checkpoints: u64,
    /// Lines that were not whole, and were left out; one at the end is what a crash leaves.
    pub damaged: u64,
    /// Milliseconds of work that crashes may have cost, this one included.
    pub unaccounted_ms: u64,
}

/// A checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file could not be read.
    #[error("could not read the ledger's checkpoints")]
    Read(#[source] io::Error),
    /// The file could not be written; the next checkpoint may be appended to it all the same.
    #[error("could not write a checkpoint of the ledger")]
    Write(#[source] io::Error),
    /// The file is of a later release.
    #[error(
        "the ledger's checkpoints have format {0}, this server reads up to {FORMAT}: start the \
         later release, or move the file away to count from zero"
    )]
    Newer(u32),
}

/// What is known of the file.
#[derive(Debug, Default)]
pub(super) struct Saved {
    /// Totals of models as the last line that named them said.
    models: BTreeMap<RowId, Totals>,
    /// A write failed, so the file may end within a line.
    torn: bool,
    /// See [`Restored::unaccounted_ms`].
    unaccounted_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    format: u32,
    /// Wall time, in milliseconds since 1970.
    time_ms: u64,
    /// Whether the server stopped in good order after this line.
    #[serde(default)]
    last: bool,
    unaccounted_ms: u64,
    engine: EngineTotals,
    /// The host's objects, each counted once.
    data: ByteTime,
    models: Vec<ModelLine>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ModelLine {
    model: ModelName,
    totals: Totals,
}

/// The only part of a line that all formats share.
#[derive(Debug, Deserialize)]
struct Head {
    format: u32,
}

/// What a file says of earlier processes.
struct Past {
    /// The last line, with the latest totals of every model.
    line: Line,
    /// The longest time between two checkpoints: the usual one, or what the file shows where the
    /// host is set to another or a write had failed.
    interval_ms: u64,
    restored: Restored,
}

impl Saved {
    pub(super) fn unaccounted_ms(&self) -> u64 {
        self.unaccounted_ms
    }
}

impl Ledger {
    /// Writes a checkpoint and flushes it; `now_ms` is wall time since 1970. Answers how many bytes
    /// it wrote. Syncing the file is not worth its price: what a power failure takes is counted as
    /// a crash would be.
    ///
    /// # Errors
    /// When the file cannot be written. Nothing is lost by that: the next checkpoint names the same
    /// models again.
    pub fn checkpoint(
        &self,
        to: &mut impl Write,
        now_ms: u64,
        extent: Extent,
    ) -> Result<u64, CheckpointError> {
        let mut saved = held(&self.saved);
        let now = self.read();
        let is_due =
            |id, totals: &Totals| extent == Extent::Whole || saved.models.get(&id) != Some(totals);
        let due = now.models.iter().filter(|row| is_due(row.id, &row.totals));
        let line = Line {
            format: FORMAT,
            time_ms: now_ms,
            last: extent == Extent::Last,
            unaccounted_ms: saved.unaccounted_ms,
            engine: now.engine,
            data: now.host.data,
            models: due
                .map(|row| ModelLine { model: row.name.clone(), totals: row.totals })
                .collect(),
        };
        // A line that follows a torn one must not become part of it.
        let mut bytes = if saved.torn { vec![b'\n'] } else { Vec::new() };
        serde_json::to_writer(&mut bytes, &line)
            .map_err(|error| CheckpointError::Write(error.into()))?;
        bytes.push(b'\n');
        let written = to.write_all(&bytes).and_then(|()| to.flush());
        saved.torn = written.is_err();
        written.map_err(CheckpointError::Write)?;
        saved.models = now.models.iter().map(|row| (row.id, row.totals)).collect();
        Ok(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
    }

    /// Adds what an earlier process counted, to the lifetime figures only. Call it once, before
    /// anything is counted; `now_ms` is wall time since 1970.
    ///
    /// # Errors
    /// When the file cannot be read, or a later release wrote it; nothing is added then.
    pub fn restore(&self, from: impl BufRead, now_ms: u64) -> Result<Restored, CheckpointError> {
        let Some(Past { line, interval_ms, mut restored }) = read_lines(from)? else {
            return Ok(Restored::default());
        };
        restored.unaccounted_ms = line.unaccounted_ms;
        if !line.last {
            // When it crashed is not known, but a later checkpoint would be there if it had lived.
            let gap_ms = now_ms.saturating_sub(line.time_ms);
            restored.unaccounted_ms = line.unaccounted_ms.saturating_add(gap_ms.min(interval_ms));
        }
        self.add_past(line);
        held(&self.saved).unaccounted_ms = restored.unaccounted_ms;
        self.begin_windows();
        Ok(restored)
    }

    fn add_past(&self, past: Line) {
        let mut models = held(&self.models);
        let mut data = Vec::with_capacity(past.models.len());
        for line in past.models {
            let row = &self.model_entry(&mut models, &line.model).row;
            data.push((row.id(), line.totals.data));
            row.retire(line.totals);
        }
        self.objects.restore(past.data, data);
        self.engine.restore(past.engine);
    }
}

/// Reads all lines; none when no line is whole.
fn read_lines(mut from: impl BufRead) -> Result<Option<Past>, CheckpointError> {
    let mut restored = Restored::default();
    let mut interval_ms = u64::try_from(CHECKPOINT_INTERVAL.as_millis()).unwrap_or(u64::MAX);
    let mut models = BTreeMap::new();
    let mut newest: Option<Line> = None;
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let read = from.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut bytes);
        if read.map_err(CheckpointError::Read)? == 0 {
            break;
        }
        let text = bytes.trim_ascii();
        if let Ok(Head { format }) = serde_json::from_slice(text)
            && format > FORMAT
        {
            return Err(CheckpointError::Newer(format));
        }
        match serde_json::from_slice::<Line>(text) {
            Ok(mut line) => {
                let named = std::mem::take(&mut line.models).into_iter();
                models.extend(named.map(|line| (line.model, line.totals)));
                restored.checkpoints += 1;
                if let Some(before) = &newest {
                    interval_ms = interval_ms.max(line.time_ms.saturating_sub(before.time_ms));
                }
                newest = Some(line);
            }
            Err(_) => restored.damaged += u64::from(!text.is_empty()),
        }
    }
    Ok(newest.map(|mut line| {
        let models = models.into_iter().map(|(model, totals)| ModelLine { model, totals });
        line.models = models.collect();
        Past { line, interval_ms, restored }
    }))
}
