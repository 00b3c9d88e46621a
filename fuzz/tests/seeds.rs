//! Every decoder on its seeds, on cut seeds, and on as many damaged ones as some seconds are enough for.
//! The damage follows from a fixed seed, so a failure comes again; what failed is kept in a file.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that is wrong may panic, and one that fails says how to see it again"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use modelet_fuzz::mutate::{Chances, mutated};
use modelet_fuzz::{Outcome, TARGETS, Target};

/// Where all damage comes from. Another number tries other damage.
const CHANCES: u64 = 0x6d6f_6465_6c65_7421;

/// Cuts of one seed: all of them up to this length, and so many of a longer one.
const CUTS: usize = 1_000;

/// Bytes that all seeds together may take in the repository.
const SEED_BYTES: u64 = 200_000;

struct Seed {
    name: String,
    data: Vec<u8>,
}

fn seeds_of(target: &Target) -> Vec<Seed> {
    let folder = modelet_fuzz::seeds(target.name);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|_| panic!("no {}", folder.display()));
    let mut seeds: Vec<_> = files
        .map(|file| {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            Seed { name, data: std::fs::read(path).unwrap() }
        })
        .collect();
    seeds.sort_by(|a, b| a.name.cmp(&b.name));
    seeds
}

/// Keeps an input that panics, and says where.
struct Kept<'a> {
    target: &'a str,
    what: &'a dyn Fn() -> String,
    data: &'a [u8],
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let place =
                Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("crash-{}", self.target));
            let kept = std::fs::write(&place, self.data);
            let target = self.target;
            eprintln!("{target}: {}, chances from {CHANCES:#x}", (self.what)());
            eprintln!(
                "{target}: kept as {} ({kept:?}); mend the decoder, then put it into",
                place.display()
            );
            eprintln!("{target}: fuzz/seeds/{target} under a name that says what it is");
        }
    }
}

fn run(target: &Target, what: &dyn Fn() -> String, data: &[u8]) -> Outcome {
    let _kept = Kept { target: target.name, what, data };
    (target.run)(data)
}

fn try_all(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let seeds = seeds_of(target);
    assert!(!seeds.is_empty(), "{name} has no seeds");
    for seed in &seeds {
        let outcome = run(target, &|| format!("seed {}", seed.name), &seed.data);
        let expected = match seed.name.split('-').next().unwrap() {
            "ok" => Outcome::Accepted,
            "no" => Outcome::Refused,
            // Either will do, as for what a fuzzer found: that it panics no more is what counts.
            "any" | "crash" | "oom" | "timeout" => outcome,
            _ => panic!("seed {name}/{}: begin its name with ok, no or any", seed.name),
        };
        assert_eq!(outcome, expected, "seed {name}/{}", seed.name);
        let step = seed.data.len() / CUTS + 1;
        for cut in (0..seed.data.len()).step_by(step) {
            run(target, &|| format!("seed {} cut to {cut}", seed.name), &seed.data[..cut]);
        }
    }
    let data: Vec<&[u8]> = seeds.iter().map(|seed| &*seed.data).collect();
    let mut chances = Chances::new(CHANCES);
    let mut accepted = 0;
    for number in 0..target.mutations {
        let input = mutated(&data, &mut chances);
        let outcome = run(target, &|| format!("mutation {number}"), &input);
        accepted += u64::from(outcome == Outcome::Accepted);
    }
    println!(
        "{name}: {} seeds, {accepted} of {} mutations accepted",
        seeds.len(),
        target.mutations
    );
    // Damage that is never accepted would test nothing but the first check.
    assert!(accepted > target.mutations / 500, "{accepted} of {} accepted", target.mutations);
    assert!(accepted < target.mutations, "everything was accepted");
}

/// One test a target, so that they run side by side and fail by name.
macro_rules! holds_on_seeds_and_damaged_ones {
    ($($name:ident)*) => {
        $(#[test] fn $name() { try_all(stringify!($name)); })*
        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

holds_on_seeds_and_damaged_ones! {
    component grpc_request inflate journal manifest multipart names onnx oip_raw oip_request tensor
    texts
}

fn entries(folder: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    names.map(|path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn every_target_has_a_test_seeds_and_a_binary_that_calls_it() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(targets.len(), TARGETS.len());
    assert_eq!(TESTED.iter().map(ToString::to_string).collect::<BTreeSet<_>>(), targets);
    assert_eq!(entries("seeds"), targets);
    assert_eq!(entries("fuzz_targets"), targets);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    assert_eq!(manifest.matches("[[bin]]").count(), targets.len());
    for name in &targets {
        let file = format!("fuzz_targets/{name}.rs");
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"{file}\"")), "{name}");
        let source = std::fs::read_to_string(folder.join(file)).unwrap();
        assert!(source.contains(&format!("modelet_fuzz::{name}(data)")), "{source}");
    }
}

#[test]
fn all_seeds_together_stay_small() {
    let seeds = TARGETS.iter().flat_map(seeds_of);
    let bytes: u64 = seeds.map(|seed| seed.data.len() as u64).sum();
    assert!(bytes <= SEED_BYTES, "{bytes} bytes of seeds, over {SEED_BYTES}");
}
