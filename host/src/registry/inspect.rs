//! A journal's bytes read without a data directory: of a backup, or of anything that may be one.
//!
//! It is the reader that opening a registry goes through, frame by frame and record by record, over
//! bytes in memory. Nothing is repaired and nothing is written.

use std::io;

use super::disk::{DiskFile, SyncSite};
use super::index::IndexPosition;
use super::journal::{Tail, frame, scan};
use super::replay::Replay;
use super::snapshot::Snapshot;

/// What the bytes of a journal hold.
#[derive(Debug)]
pub struct JournalContents {
    /// The payload of every good frame in order: records, one line of JSON each.
    pub payloads: Vec<Vec<u8>>,
    /// How many bytes the good frames take together.
    pub good_bytes: u64,
    /// What follows them.
    pub tail: Tail,
    /// The state that their records give.
    pub snapshot: Snapshot,
}

impl JournalContents {
    /// Reads a journal. Whatever the bytes are, this is an answer: what is wrong is in the tail.
    pub fn read(bytes: &[u8]) -> Self {
        let mut replay = Replay::new(IndexPosition::default());
        let mut payloads = Vec::new();
        let read = scan(&InMemory(bytes), |payload, at| {
            replay.frame(payload, at)?;
            payloads.push(payload.to_vec());
            Ok(())
        });
        let (good_bytes, tail) = match read {
            Ok(scan) => (scan.end, scan.tail),
            // Memory refuses nothing; what an address space cannot hold is no journal either.
            Err(error) => (0, Tail::Damaged(error.to_string())),
        };
        Self { payloads, good_bytes, tail, snapshot: replay.state }
    }

    /// The frame of a payload, as a journal holds it.
    ///
    /// # Errors
    /// When the payload is longer than a frame's length can say.
    pub fn frame(payload: &[u8]) -> io::Result<Vec<u8>> {
        frame(payload)
    }
}

/// A file that is bytes in memory and takes none.
struct InMemory<'a>(&'a [u8]);

impl DiskFile for InMemory<'_> {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let from = usize::try_from(at).map_err(io::Error::other)?;
        let rest = self.0.get(from..).unwrap_or_default();
        Ok(rest.get(..bytes).unwrap_or(rest).to_vec())
    }

    fn write_at(&mut self, _at: u64, _bytes: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn truncate(&mut self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&mut self, _site: SyncSite) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}
