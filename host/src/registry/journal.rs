//! The journal's file: frames of records, one after the other, each durable before the next begins.
//!
//! A frame is four magic bytes, the length of its payload (32 bits, little-endian), the SHA-256 of
//! length and payload, and the payload: records, one line each. The first magic byte never stands
//! in UTF-8, so no payload can hold what looks like a frame. There is one file that grows; a
//! thousand changes take about a megabyte.

use std::io;

use sha2::{Digest as _, Sha256};

use super::disk::{DiskFile, SyncSite};
use super::limits::MAX_FRAME_BYTES;

const MAGIC: [u8; 4] = [0xFF, b'M', b'J', b'1'];
const LENGTH_BYTES: usize = 4;
const CHECKSUM_BYTES: usize = 32;
/// Bytes of a frame before its payload.
pub(super) const HEADER_BYTES: usize = MAGIC.len() + LENGTH_BYTES + CHECKSUM_BYTES;

/// The open journal, at whose end frames are added.
pub(super) struct Journal {
    file: Box<dyn DiskFile>,
    /// Where the next frame begins: the length of all good frames, in bytes.
    end: u64,
}

/// What a scan found behind the good frames.
#[derive(Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing.
    Clean,
    /// Bytes that can only be a last frame whose write was cut short.
    Torn,
    /// Something that a cut-short write does not explain.
    Damaged(String),
}

/// What a journal holds.
#[derive(Debug)]
pub(super) struct Scan {
    /// Where the good frames end, in bytes.
    pub(super) end: u64,
    /// Where the last good frame begins, if there is one.
    pub(super) last_frame: Option<u64>,
    /// What follows.
    pub(super) tail: Tail,
}

/// One step of a scan.
enum Step {
    Frame(Vec<u8>),
    End,
    Bad(&'static str),
}

impl Journal {
    /// The journal in `file`, of which the first `end` bytes are good frames.
    pub(super) fn new(file: Box<dyn DiskFile>, end: u64) -> Self {
        Self { file, end }
    }

    /// Adds a frame and makes it durable; answers where its payload begins. After an error nothing
    /// may be added any more: what is on the disk is not known.
    pub(super) fn append(&mut self, payload: &[u8]) -> io::Result<u64> {
        let frame = frame(payload)?;
        self.file.write_at(self.end, &frame)?;
        self.file.sync_data(SyncSite::JournalFrame)?;
        let begin = self.end + HEADER_BYTES as u64;
        self.end += frame.len() as u64;
        Ok(begin)
    }

    /// Cuts off what stands behind the good frames and makes all that is left durable.
    ///
    /// The last frame is written again: if its sync failed before the server stopped, the kernel may
    /// hold it as clean though the disk lacks it, and only new writes reach the disk. No earlier
    /// frame can be like that, for after a failed sync nothing is added.
    pub(super) fn settle(&mut self, last_frame: Option<u64>) -> io::Result<()> {
        self.file.truncate(self.end)?;
        if let Some(at) = last_frame {
            let bytes = self.file.read_at(at, usize_of(self.end.saturating_sub(at))?)?;
            self.file.write_at(at, &bytes)?;
        }
        self.file.sync_data(SyncSite::JournalTail)
    }
}

/// Walks the frames of a file and gives each payload, with its place, to `visit`, which answers
/// what is wrong with it.
pub(super) fn scan(
    file: &dyn DiskFile,
    mut visit: impl FnMut(&[u8], u64) -> Result<(), String>,
) -> io::Result<Scan> {
    let size = file.size()?;
    let mut scan = Scan { end: 0, last_frame: None, tail: Tail::Clean };
    loop {
        match read_frame(file, scan.end, size)? {
            Step::End => return Ok(scan),
            Step::Bad(problem) => {
                scan.tail = judge_tail(file, scan.end, size, problem)?;
                return Ok(scan);
            }
            Step::Frame(payload) => {
                let begin = scan.end + HEADER_BYTES as u64;
                if let Err(problem) = visit(&payload, begin) {
                    scan.tail = Tail::Damaged(format!("frame at byte {}: {problem}", scan.end));
                    return Ok(scan);
                }
                scan.last_frame = Some(scan.end);
                scan.end = begin + payload.len() as u64;
            }
        }
    }
}

/// The payload's frame.
pub(super) fn frame(payload: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?.to_le_bytes();
    let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&length);
    frame.extend_from_slice(&checksum(length, payload));
    frame.extend_from_slice(payload);
    Ok(frame)
}

fn checksum(length: [u8; LENGTH_BYTES], payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    Sha256::new().chain_update(length).chain_update(payload).finalize().into()
}

fn read_frame(file: &dyn DiskFile, at: u64, size: u64) -> io::Result<Step> {
    if at >= size {
        return Ok(Step::End);
    }
    let header = file.read_at(at, HEADER_BYTES)?;
    let Some((length, wanted)) = parse_header(&header) else {
        return Ok(Step::Bad("its header is not that of a frame"));
    };
    let payload = file.read_at(at + HEADER_BYTES as u64, u32::from_le_bytes(length) as usize)?;
    if payload.len() < u32::from_le_bytes(length) as usize {
        return Ok(Step::Bad("it ends too early"));
    }
    if checksum(length, &payload) != wanted {
        return Ok(Step::Bad("its checksum does not fit"));
    }
    Ok(Step::Frame(payload))
}

/// The length and checksum that a header names, if it is a header.
fn parse_header(header: &[u8]) -> Option<([u8; LENGTH_BYTES], [u8; CHECKSUM_BYTES])> {
    let rest = header.strip_prefix(&MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<LENGTH_BYTES>()?;
    let (checksum, _) = rest.split_first_chunk::<CHECKSUM_BYTES>()?;
    (u32::from_le_bytes(*length) as usize <= MAX_FRAME_BYTES).then_some((*length, *checksum))
}

/// Tells a last frame that was cut short, which nobody was told of, from damage to frames that
/// were acknowledged: after damage, whole frames follow, or more bytes than one frame has.
fn judge_tail(file: &dyn DiskFile, at: u64, size: u64, problem: &str) -> io::Result<Tail> {
    let length = size - at;
    if length > (HEADER_BYTES + MAX_FRAME_BYTES) as u64 {
        let problem = format!("frame at byte {at}: {problem}, and {length} bytes follow");
        return Ok(Tail::Damaged(problem));
    }
    let tail = file.read_at(at, usize_of(length)?)?;
    let starts = tail.windows(MAGIC.len()).enumerate().skip(1).filter(|(_, w)| *w == MAGIC);
    for (offset, _) in starts {
        let begin = at + offset as u64;
        if let Step::Frame(_) = read_frame(file, begin, size)? {
            let problem =
                format!("frame at byte {at}: {problem}, and a whole one follows at byte {begin}");
            return Ok(Tail::Damaged(problem));
        }
    }
    Ok(Tail::Torn)
}

fn usize_of(length: u64) -> io::Result<usize> {
    usize::try_from(length).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::disk::{Disk, SimDisk};
    use super::*;

    const PAYLOADS: [&[u8]; 3] = [b"{\"one\":1}\n", b"{\"two\":2}\n", b"{\"three\":3}\n"];

    /// A journal of three frames whose bytes `edit` has changed, scanned.
    fn scanned(edit: impl Fn(&mut Vec<u8>)) -> (Vec<Vec<u8>>, Scan) {
        let mut bytes = PAYLOADS.map(|payload| frame(payload).unwrap()).concat();
        edit(&mut bytes);
        let mut file = SimDisk::new(0).create(Path::new("/journal")).unwrap();
        file.write_at(0, &bytes).unwrap();
        let mut seen = Vec::new();
        let visit = |payload: &[u8], _| {
            seen.push(payload.to_vec());
            Ok(())
        };
        let scan = scan(file.as_ref(), visit).unwrap();
        (seen, scan)
    }

    #[test]
    fn every_frame_reads_back() {
        let (seen, scan) = scanned(|_| ());
        assert_eq!(seen, PAYLOADS);
        assert_eq!(scan.tail, Tail::Clean);
    }

    #[test]
    fn a_last_frame_cut_anywhere_is_torn() {
        let last = HEADER_BYTES + PAYLOADS[2].len();
        for cut in 1..last {
            let (seen, scan) = scanned(|bytes| bytes.truncate(bytes.len() - cut));
            assert_eq!((seen.len(), scan.tail), (2, Tail::Torn), "cut {cut}");
        }
        // Its length was kept and its bytes were not.
        let (seen, scan) = scanned(|bytes| {
            let whole = bytes.len() - last;
            bytes[whole..].fill(0);
        });
        assert_eq!((seen.len(), scan.tail), (2, Tail::Torn));
    }

    #[test]
    fn any_changed_byte_of_an_inner_frame_is_damage() {
        for at in 0..HEADER_BYTES + PAYLOADS[0].len() {
            let (seen, scan) = scanned(|bytes| bytes[at] ^= 0x10);
            assert_eq!(seen.len(), 0, "byte {at}");
            assert!(matches!(scan.tail, Tail::Damaged(_)), "byte {at}: {:?}", scan.tail);
        }
    }

    #[test]
    fn more_bytes_than_a_frame_has_are_damage() {
        let (_, scan) = scanned(|bytes| {
            bytes[0] = 0;
            bytes.resize(HEADER_BYTES + MAX_FRAME_BYTES + 1, 0);
        });
        assert!(matches!(scan.tail, Tail::Damaged(_)));
    }
}
