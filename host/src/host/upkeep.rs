//! What a host does beside the requests: samples, idle instances, old uploads, free memory, and the
//! ledger's counters on disk.

use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Host;
use crate::config::DataDir;
use crate::engine::memory::{Rest, return_free_memory};
use crate::ledger::{CHECKPOINT_REWRITE_BYTES, Extent, Ledger, SAMPLE_INTERVAL};

/// How often pools are looked after: the shortest idle timeout there is.
const TEND_INTERVAL: Duration = Duration::from_secs(1);

impl Host {
    /// Starts what runs beside the requests: samples, checkpoints, and the end of idle instances. The
    /// tasks end with the runtime.
    pub fn spawn_background(self: &Arc<Self>) {
        let host = Arc::clone(self);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                host.ledger.sample();
            }
        });
        let host = Arc::clone(self);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(TEND_INTERVAL);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut rest = Rest::default();
            loop {
                ticks.tick().await;
                host.deployments.tend().await;
                host.tend_uploads();
                if rest.begins(host.requests.ended()) {
                    tokio::task::spawn_blocking(return_free_memory);
                }
            }
        });
        let telemetry = Arc::clone(&self.controls.telemetry);
        tokio::spawn(async move { telemetry.export().await });
        let host = Arc::clone(self);
        tokio::spawn(async move {
            let every = Duration::from_secs(host.config.ledger.checkpoint_s.max(1));
            let mut ticks = tokio::time::interval(every);
            let mut extent = Extent::Whole;
            loop {
                ticks.tick().await;
                let host = Arc::clone(&host);
                let checkpoint = tokio::task::spawn_blocking(move || host.checkpoint(extent));
                extent = checkpoint.await.unwrap_or(Extent::Whole);
            }
        });
    }

    /// Lets go of uploads whose time is over, in the background.
    fn tend_uploads(self: &Arc<Self>) {
        let host = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            if host.uploads.expire(host.registry.blobs(), host.metrics.refusals()) {
                host.collect_soon();
            }
        });
    }

    /// Writes a checkpoint of the ledger; says how much the next one must write.
    pub(super) fn checkpoint(&self, extent: Extent) -> Extent {
        match write_checkpoint(&self.ledger, &self.data_dir, extent) {
            Ok(bytes) if bytes < CHECKPOINT_REWRITE_BYTES => Extent::Changed,
            Ok(_) => Extent::Whole,
            Err(error) => {
                tracing::warn!(%error, "the ledger's checkpoint could not be written");
                Extent::Whole
            }
        }
    }
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn checkpoint_file(data_dir: &DataDir) -> PathBuf {
    data_dir.counters().join("ledger.jsonl")
}

/// Adds what earlier processes counted. Counters that cannot be read are moved aside, never in the way
/// of serving.
pub(super) fn restore(ledger: &Ledger, data_dir: &DataDir) {
    let path = checkpoint_file(data_dir);
    let Ok(file) = std::fs::File::open(&path) else { return };
    match ledger.restore(BufReader::new(file), wall_ms()) {
        Ok(restored) if restored.damaged > 0 || restored.unaccounted_ms > 0 => {
            let (lines, ms) = (restored.damaged, restored.unaccounted_ms);
            tracing::warn!(damaged_lines = lines, unaccounted_ms = ms, "the ledger has gaps");
        }
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "the ledger's counters begin anew");
            let _ = std::fs::rename(&path, path.with_extension("unreadable"));
        }
    }
}

/// Appends a checkpoint, or begins a new file with a whole one; answers how long the file is now.
fn write_checkpoint(
    ledger: &Ledger,
    data_dir: &DataDir,
    extent: Extent,
) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
    let path = checkpoint_file(data_dir);
    std::fs::create_dir_all(data_dir.counters())?;
    if extent == Extent::Whole {
        let mut file = tempfile::NamedTempFile::new_in(data_dir.counters())?;
        ledger.checkpoint(&mut file, wall_ms(), extent)?;
        file.persist(&path)?;
    } else {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&path)?;
        ledger.checkpoint(&mut file, wall_ms(), extent)?;
    }
    Ok(std::fs::metadata(&path)?.len())
}
