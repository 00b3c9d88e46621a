//! The registry's journal: whole frames are kept to the byte, and nothing changed is taken for a record.

use modelet_host::digest::Digest;
use modelet_host::registry::{JournalContents, JournalTail};
use serde_json::{Value, json};

use crate::{Outcome, first_line, hash};

/// The first line says how to read the rest: `lines` for records that are framed and chained here, so
/// that mutations reach what stands behind the checksums, anything else for a journal's bytes.
///
/// # Panics
/// When a property of the reader does not hold.
pub fn journal(data: &[u8]) -> Outcome {
    let (kind, rest) = first_line(data);
    let bytes = if kind == b"lines" { framed(rest) } else { rest.to_vec() };
    let contents = JournalContents::read(&bytes);
    check(&contents, &bytes);
    check_flipped(&contents, &bytes);
    check_cut(&contents, &bytes);
    match contents.tail {
        JournalTail::Clean => Outcome::Accepted,
        JournalTail::Torn | JournalTail::Damaged(_) => Outcome::Refused,
    }
}

fn check(contents: &JournalContents, bytes: &[u8]) {
    let good = usize::try_from(contents.good_bytes).expect("it is within the bytes");
    let frames = contents.payloads.iter().map(|payload| frame(payload));
    assert_eq!(frames.collect::<Vec<_>>().concat(), bytes.get(..good).unwrap_or_default());
    assert_eq!(good == bytes.len(), contents.tail == JournalTail::Clean);
    let mut before = None;
    let mut epoch = 0;
    for line in lines(contents) {
        epoch += 1;
        let record: Value = serde_json::from_slice(line).expect("it was read as a record");
        assert_eq!(record.get("epoch").and_then(Value::as_u64), Some(epoch));
        let prev = record.get("prev").cloned().unwrap_or_default();
        assert_eq!(prev, json!(before), "epoch {epoch} does not follow");
        before = Some(Digest::of(line));
    }
    check_snapshot(contents, epoch);
}

/// The state keeps its own rules. A frame that was refused in its middle may have left some records.
fn check_snapshot(contents: &JournalContents, epoch: u64) {
    let snapshot = &contents.snapshot;
    assert!(snapshot.epoch >= epoch, "{} records, and epoch {}", epoch, snapshot.epoch);
    assert!(contents.tail != JournalTail::Clean || snapshot.epoch == epoch);
    for model in snapshot.iter() {
        assert!(!model.versions.is_empty(), "{} has no version", model.name);
        assert!(model.aliases.contains_key("live"), "{} has no live", model.name);
        for (alias, held) in &model.aliases {
            assert!(!model.versions.contains_key(alias.as_str()), "{alias} is both");
            assert!(!held.targets.is_empty(), "{alias} points nowhere");
            for target in &held.targets {
                assert!(model.versions.contains_key(&target.version), "{alias} {target:?}");
                assert!(target.weight > 0, "{alias} {target:?}");
            }
        }
    }
}

/// One changed bit in a good frame ends the reading before that frame, and is noticed.
fn check_flipped(contents: &JournalContents, bytes: &[u8]) {
    if contents.good_bytes == 0 {
        return;
    }
    let choice = hash(bytes);
    let at = choice % contents.good_bytes;
    let mut flipped = bytes.to_vec();
    if let Some(byte) = flipped.get_mut(at as usize) {
        *byte ^= 1 << (choice >> 61);
    }
    let read = JournalContents::read(&flipped);
    let mut end = 0;
    let before = contents.payloads.iter().take_while(|payload| {
        end += frame(payload).len() as u64;
        end <= at
    });
    assert_eq!(read.payloads.len(), before.count(), "bit {} of byte {at}", choice >> 61);
    assert_eq!(read.payloads.iter().collect::<Vec<_>>(), {
        contents.payloads.iter().take(read.payloads.len()).collect::<Vec<_>>()
    });
    assert_ne!(read.tail, JournalTail::Clean, "bit {} of byte {at}", choice >> 61);
}

/// A cut good journal is whole frames and a torn one.
fn check_cut(contents: &JournalContents, bytes: &[u8]) {
    let good = bytes.get(..contents.good_bytes as usize).unwrap_or_default();
    let kept = (hash(bytes).rotate_left(32) % (good.len() as u64 + 1)) as usize;
    let read = JournalContents::read(good.get(..kept).unwrap_or_default());
    let whole = read.good_bytes as usize == kept;
    let expected = if whole { JournalTail::Clean } else { JournalTail::Torn };
    assert_eq!(read.tail, expected, "cut to {kept} of {} bytes", good.len());
    assert!(contents.payloads.starts_with(&read.payloads));
}

fn frame(payload: &[u8]) -> Vec<u8> {
    JournalContents::frame(payload).expect("it is no longer than the input")
}

fn lines(contents: &JournalContents) -> impl Iterator<Item = &[u8]> {
    let payloads = contents.payloads.iter();
    payloads.flat_map(|payload| {
        let lines = payload.split_inclusive(|byte| *byte == b'\n');
        lines.map(|line| line.strip_suffix(b"\n").unwrap_or(line))
    })
}

/// Frames records, one a line; an empty line ends a frame. Numbers and links are set to what they must
/// be, unless a record already says something else for its link: then that stays, to be refused.
fn framed(text: &[u8]) -> Vec<u8> {
    let mut journal = Vec::new();
    let mut payload = Vec::new();
    let mut before: Option<Digest> = None;
    let mut epoch = 0;
    for line in text.split(|byte| *byte == b'\n').chain([&b""[..]]) {
        if line.is_empty() {
            if !payload.is_empty() {
                journal.extend(frame(&std::mem::take(&mut payload)));
            }
            continue;
        }
        epoch += 1;
        let line = chained(line, epoch, before);
        before = Some(Digest::of(&line));
        payload.extend(line);
        payload.push(b'\n');
    }
    journal
}

fn chained(line: &[u8], epoch: u64, before: Option<Digest>) -> Vec<u8> {
    let Ok(mut record) = serde_json::from_slice::<Value>(line) else { return line.to_vec() };
    let Some(fields) = record.as_object_mut() else { return line.to_vec() };
    fields.insert("epoch".to_owned(), json!(epoch));
    fields.entry("prev").or_insert(json!(before));
    record.to_string().into_bytes()
}
