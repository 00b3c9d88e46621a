//! Crashes at any disk operation: what was acknowledged is there, whole, and nothing else is.
//!
//! A run is a registry's life in several parts. Each ends in a power loss, which loses what was not
//! synced, or in a kill, which loses nothing yet; in between any one operation may fail. After each
//! the state must be the last one that was answered, or the one of the frame that was under way.
//! `MODELET_SEED=N` runs one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use ulid::Ulid;

use super::super::apply::apply;
use super::super::blobs::{BlobLease, BlobStore as _, PartialError, PartialWriter};
use super::super::commit::{Committer, Shared};
use super::super::disk::{Disk as _, Fault, SimDisk, SyncSite};
use super::super::limits;
use super::super::open::{Opened, open};
use super::super::record::{Record, Tip};
use super::super::{Change, CommitErrorKind, Expect, Model, Op, Snapshot, Status};
use super::support::{
    MemoryIndex, Rng, StoppedClock, annotate, change, delete_version, publish, record, set_alias,
};
use crate::digest::Digest;
use crate::names::AliasName;
use crate::version::{BlobRef, VersionRecord};

/// Seeds of the long run; an unoptimised build takes ten times as long for each.
const SEEDS: u64 = if cfg!(debug_assertions) { 500 } else { 10_000 };
/// Seeds among which one must notice that a sync is missing.
const SEEDS_PER_SITE: u64 = 4_000;
/// Parts of a life.
const LIVES: u64 = 4;
/// Rounds of changes in a part, at most.
const ROUNDS: u64 = 8;
/// Operations within which a part's fault falls: about as many as a part has.
const FAULT_WITHIN: u64 = 90;

const MODELS: [&str; 2] = ["m", "n"];
const VERSIONS: [&str; 3] = ["1", "2", "3"];
const ALIASES: [&str; 3] = ["live", "canary", "a"];
const ROOT: &str = "/data";

/// What a run found wrong.
type Violation = String;

/// A registry's life, and what was promised in it.
struct World {
    rng: Rng,
    disk: SimDisk,
    index: MemoryIndex,
    clock: Arc<StoppedClock>,
    /// The state last answered.
    promised: Arc<Snapshot>,
    /// The state of a frame that was under way when something failed.
    possible: Option<Snapshot>,
    /// Torn tails that were reported as moved aside, with their bytes.
    torn: BTreeMap<String, Vec<u8>>,
}

#[test]
fn what_was_acknowledged_survives_every_crash() {
    if let Ok(seed) = std::env::var("MODELET_SEED") {
        let seed = seed.parse().expect("MODELET_SEED is a number");
        run(seed, None).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        return;
    }
    println!("seeds 0 to {}; MODELET_SEED=N runs one", SEEDS - 1);
    let (mut operations, mut epochs) = (0, 0);
    for seed in 0..SEEDS {
        match run(seed, None) {
            Ok(world) => {
                operations += world.disk.operations();
                epochs += world.promised.epoch;
            }
            Err(violation) => panic!("{violation}\nrun it again with MODELET_SEED={seed}"),
        }
    }
    println!("{operations} disk operations, {epochs} changes");
    // A registry that takes no changes loses none.
    assert!(epochs > 5 * SEEDS);
}

#[test]
fn leaving_out_any_sync_loses_something() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        seen.append(&mut run(seed, None).unwrap().disk.sites_seen());
    }
    assert_eq!(seen, BTreeSet::from(SyncSite::ALL), "a site is never reached, or not in ALL");
    for site in SyncSite::ALL {
        let caught = (0..SEEDS_PER_SITE).find_map(|seed| {
            let violation = run(seed, Some(site)).err()?;
            Some((seed, violation))
        });
        let Some((seed, violation)) = caught else {
            panic!("{SEEDS_PER_SITE} seeds do not miss the sync of {site:?}");
        };
        println!("{site:?}: seed {seed}: {violation}");
    }
}

/// Runs one seed, with the syncs of one site left out if one is named.
fn run(seed: u64, ignored: Option<SyncSite>) -> Result<World, Violation> {
    let mut world = World::new(seed, ignored);
    for _ in 0..LIVES {
        world.arm();
        world.live()?;
        world.end();
    }
    world.disk.disarm();
    world.open()?;
    Ok(world)
}

impl World {
    fn new(seed: u64, ignored: Option<SyncSite>) -> Self {
        let disk = SimDisk::new(seed);
        disk.ignore(ignored);
        Self {
            rng: Rng::new(seed),
            disk,
            index: MemoryIndex::default(),
            clock: Arc::default(),
            promised: Arc::default(),
            possible: None,
            torn: BTreeMap::new(),
        }
    }

    fn arm(&mut self) {
        let after = 1 + self.rng.below(FAULT_WITHIN);
        match self.rng.below(5) {
            0 => self.disk.disarm(),
            1 | 2 => self.disk.arm(after, Fault::Stop),
            _ => self.disk.arm(after, Fault::Fail),
        }
    }

    /// One part of the life, until its fault or its natural end.
    fn live(&mut self) -> Result<(), Violation> {
        let Some(mut opened) = self.open()? else { return Ok(()) };
        let mut leases = Vec::new();
        for _ in 0..self.rng.below(ROUNDS) {
            self.clock.set(self.rng.below(1_000));
            if self.rng.chance(15) {
                // A collection may fail; then the blobs it met are there or not, and unreferenced.
                let _ = opened.committer.shared.collect();
            }
            let changes = self.changes(&opened.committer.shared, &mut leases);
            if !self.commit(&mut opened.committer, &changes)? {
                return Ok(());
            }
            if self.rng.chance(50) {
                opened.committer.bring_index_up();
            }
            if self.rng.chance(50) {
                leases.clear();
            }
        }
        Ok(())
    }

    /// Ends the part: the power goes, or only the process.
    fn end(&mut self) {
        if self.rng.chance(60) {
            self.disk = self.disk.crash();
            self.index.crash(&mut self.rng);
        } else {
            self.disk.restart();
        }
    }

    /// Opens the registry and compares it with what was promised. None if a fault came between.
    fn open(&mut self) -> Result<Option<Opened>, Violation> {
        let (disk, clock) = (Arc::new(self.disk.clone()), self.clock.clone());
        let opened = match open(Path::new(ROOT), disk, clock, Box::new(self.index.clone())) {
            Ok(opened) => opened,
            Err(_) if self.disk.faulted() => return Ok(None),
            Err(error) => return Err(format!("it does not open: {error}")),
        };
        let shared = &opened.committer.shared;
        if let Some(reason) = &opened.report.read_only {
            return Err(format!("it is read-only: {reason}"));
        }
        if let Some(repair) = &opened.report.index_repair {
            return Err(format!("the index was repaired: {repair}"));
        }
        let state = shared.snapshot.load_full();
        let is_possible = || self.possible.as_ref() == Some(&without_ids(&state));
        if *state != *self.promised && !is_possible() {
            let (promised, found) = (self.promised.epoch, state.epoch);
            return Err(format!(
                "epoch {promised} was promised and epoch {found} found, or others"
            ));
        }
        check_blobs(shared, &state)?;
        check_history(shared, &state)?;
        self.check_torn(&opened)?;
        // What is served from here on is promised too.
        (self.promised, self.possible) = (state, None);
        Ok(Some(opened))
    }

    /// Commits a frame; answers whether the part goes on.
    fn commit(&mut self, committer: &mut Committer, changes: &[Change]) -> Result<bool, Violation> {
        let wanted = expected(&committer.shared, committer.tip, changes);
        let answers = committer.commit(changes);
        let found = committer.shared.snapshot.load_full();
        if *committer.shared.status.load_full() != Status::Writable {
            if !self.disk.faulted() {
                return Err("it became read-only without a fault".to_owned());
            }
            let refused = |answer: &Result<_, super::super::CommitError>| {
                answer.as_ref().is_err_and(|error| error.kind() == CommitErrorKind::ReadOnly)
            };
            if !answers.iter().all(refused) || found != self.promised {
                return Err("a failed frame was answered or is visible".to_owned());
            }
            self.possible = Some(wanted);
            return Ok(false);
        }
        if without_ids(&found) != wanted && !self.disk.faulted() {
            return Err("a frame did something else than its changes".to_owned());
        }
        self.promised = found;
        Ok(true)
    }

    /// A few changes, with the blobs they need; names are few, so that they meet.
    fn changes(&mut self, shared: &Shared, leases: &mut Vec<BlobLease>) -> Vec<Change> {
        let count = 1 + self.rng.below(3);
        (0..count).filter_map(|_| self.change(shared, leases)).collect()
    }

    fn change(&mut self, shared: &Shared, leases: &mut Vec<BlobLease>) -> Option<Change> {
        let model = *self.rng.pick(&MODELS);
        let (version, other) = (*self.rng.pick(&VERSIONS), *self.rng.pick(&VERSIONS));
        let alias = *self.rng.pick(&ALIASES);
        let alias_name: AliasName = alias.parse().unwrap();
        Some(match self.rng.below(20) {
            0..8 => {
                let record = self.upload(shared, leases).ok()?;
                let mut change = publish(model, version, record);
                if let (Op::Publish(publish), true) = (&mut change.op, self.rng.chance(30)) {
                    publish.alias = Some(alias_name);
                }
                change
            }
            8..12 => set_alias(
                model,
                alias,
                &[(version, 1), (other, 2)][..1 + usize::from(version != other)],
            ),
            12..16 => annotate(model, version, &"said ".repeat(self.rng.below(60) as usize)),
            16..18 => delete_version(model, version),
            18 => {
                let (model, expect) = (model.parse().unwrap(), Expect::Any);
                change(Op::RollbackAlias { model, alias: alias_name, expect })
            }
            _ => change(Op::DeleteModel { model: model.parse().unwrap() }),
        })
    }

    fn upload(
        &mut self,
        shared: &Shared,
        leases: &mut Vec<BlobLease>,
    ) -> Result<VersionRecord, PartialError> {
        let mut blobs = Vec::new();
        for _ in 0..1 + self.rng.below(2) {
            let bytes = content(self.rng.below(6));
            let digest = Digest::of(&bytes);
            let (blob, lease) = match shared.blobs.lease(&digest)? {
                Some(lease) if self.rng.chance(50) => {
                    (BlobRef { digest, bytes: bytes.len() as u64 }, lease)
                }
                _ if self.rng.chance(40) => self.upload_in_pieces(shared, &bytes)?,
                _ => {
                    let mut writer = shared.blobs.begin(1 << 20)?;
                    let (first, second) = bytes.split_at(bytes.len() / 2);
                    writer.write(first)?;
                    writer.write(second)?;
                    writer.finish()?
                }
            };
            blobs.push(blob);
            leases.push(lease);
        }
        Ok(record(&blobs))
    }

    /// Goes on with what came in an earlier part of the life, or breaks off for a later one.
    fn upload_in_pieces(
        &mut self,
        shared: &Shared,
        bytes: &[u8],
    ) -> Result<(BlobRef, BlobLease), PartialError> {
        let (digest, length) = (Digest::of(bytes), bytes.len() as u64);
        let resume = |at| shared.blobs.resume(digest, length, at);
        let mut at = shared.blobs.partial(&digest).map_or(0, |partial| partial.bytes);
        loop {
            let mut writer: PartialWriter = resume(at)?;
            let more = self.rng.below(length - at + 1);
            writer.write(&bytes[at as usize..(at + more) as usize])?;
            at += more;
            if writer.is_whole() {
                return writer.finish();
            }
            drop(writer);
            if self.rng.chance(30) {
                resume(length + 1)?;
            }
        }
    }

    /// Torn tails that were once reported stay, with their bytes.
    fn check_torn(&mut self, opened: &Opened) -> Result<(), Violation> {
        let folder = Path::new(ROOT).join("journal");
        for (name, bytes) in &self.torn {
            match self.disk.read(&folder.join(name)) {
                Ok(found) if found == *bytes => {}
                _ => return Err(format!("{name} was reported and is not what it was")),
            }
        }
        if let Some(tail) = &opened.report.torn_tail {
            let bytes = self.disk.read(&folder.join(&tail.file)).map_err(|e| e.to_string())?;
            if bytes.len() as u64 != tail.bytes {
                return Err(format!("{} has not the bytes that were reported", tail.file));
            }
            self.torn.insert(tail.file.clone(), bytes);
        }
        Ok(())
    }
}

/// The state after a frame of changes, told by the rules alone.
fn expected(shared: &Shared, mut tip: Tip, changes: &[Change]) -> Snapshot {
    let mut state = Snapshot::clone(&shared.snapshot.load());
    for change in changes {
        if limits::check(&state, change).is_err() {
            continue;
        }
        let (line, record) =
            Record::of(&state, change, &tip, shared.clock.now_ms()).encode().unwrap();
        match apply(&state, &record) {
            Ok(delta) if delta.changed => {
                state.put(&delta.model, delta.after);
                state.epoch = record.epoch;
                tip = Tip::after(&record, &line);
            }
            _ => {}
        }
    }
    without_ids(&state)
}

/// The state but for the ids, which are drawn anew each time a record is made.
fn without_ids(state: &Snapshot) -> Snapshot {
    let mut plain = state.clone();
    for model in state.iter() {
        let nameless = Model { id: Ulid::nil(), ..Model::clone(model) };
        plain.put(&model.name, Some(Arc::new(nameless)));
    }
    plain
}

fn check_blobs(shared: &Shared, state: &Snapshot) -> Result<(), Violation> {
    for version in state.iter().flat_map(|model| model.versions.values()) {
        for blob in version.record.blobs() {
            let found = shared.blobs.read(&blob.digest);
            let found =
                found.map_err(|error| format!("{}@{}: {error}", version.model, version.name))?;
            if found.len() as u64 != blob.bytes {
                return Err(format!("{}@{}: a blob is cut", version.model, version.name));
            }
        }
    }
    Ok(())
}

/// Every change up to the state's epoch is told, once.
fn check_history(shared: &Shared, state: &Snapshot) -> Result<(), Violation> {
    let mut epochs = BTreeSet::new();
    for model in MODELS {
        let entries = shared.history(model, usize::MAX).unwrap_or_default();
        epochs.extend(entries.iter().map(|entry| entry.epoch));
    }
    if epochs == (1..=state.epoch).collect() {
        return Ok(());
    }
    Err(format!("history tells {epochs:?} up to epoch {}", state.epoch))
}

/// One of few contents, of different lengths.
fn content(number: u64) -> Vec<u8> {
    let mut rng = Rng::new(number);
    (0..number * 70).map(|_| rng.next() as u8).collect()
}
