//! The fuzz targets of `fuzz/` under libFuzzer, each for its share of the time.
//!
//! They are built once and run from here, so that what they print can be kept and counted. What they
//! learn is kept in the cache, and what they crash on becomes a seed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use super::report::{Report, table};
use crate::process::{self, workspace};
use crate::setup::Ready;

/// The version that is installed where there is none; any newer one serves as well.
const CARGO_FUZZ_VERSION: &str = "0.13.2";

/// The longest input. Every format here shows all it has in less, and short inputs are quick.
const MAX_INPUT_BYTES: u32 = 16 << 10;

/// One input takes microseconds to milliseconds; one that takes this long is a finding.
const MAX_INPUT_SECONDS: u32 = 10;

/// No input may make a decoder hold this much. libFuzzer itself takes some hundred.
const MAX_RESIDENT_MIB: u32 = 2_048;

/// Beginnings of the names that libFuzzer gives to inputs that broke something.
const FINDINGS: [&str; 4] = ["crash-", "leak-", "oom-", "timeout-"];

/// The built targets, and where things are.
struct Fuzzer {
    /// The folder of the binaries.
    binaries: PathBuf,
    /// Corpora, logs and findings of all targets.
    work: PathBuf,
}

/// Runs every target; errors when one found something, after all have run.
pub(super) fn run(ready: &Ready, minutes: u32) -> Result<()> {
    let targets = targets()?;
    let fuzzer = Fuzzer::build(ready)?;
    let seconds = (u64::from(minutes) * 60 / targets.len().max(1) as u64).max(1);
    let mut reports = Vec::new();
    for target in targets {
        println!("    {target}: {seconds} s");
        reports.push(fuzzer.run(target, seconds)?);
    }
    println!("\n{}\n", table(&reports));
    let findings: Vec<_> = reports.iter().flat_map(|report| &report.findings).collect();
    ensure!(
        findings.is_empty(),
        "{} inputs broke a decoder:\n  {}\nMend what each found; `cargo nextest run --cargo-profile ci -p modelet-fuzz` runs them \
         all. Then give the files names that say what they are, and commit them as seeds.",
        findings.len(),
        findings.iter().map(|name| name.as_str()).collect::<Vec<_>>().join("\n  ")
    );
    Ok(())
}

/// The names of all targets, in order.
fn targets() -> Result<Vec<String>> {
    let folder = workspace().join("fuzz/fuzz_targets");
    let mut targets = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("no {}", folder.display()))? {
        let path = entry?.path();
        targets.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    targets.sort();
    Ok(targets)
}

impl Fuzzer {
    /// Builds all targets, with coverage counted and overflows checked.
    fn build(ready: &Ready) -> Result<Self> {
        process::install("fuzz", "cargo-fuzz", CARGO_FUZZ_VERSION)?;
        let host = host()?;
        let work = ready.folder("fuzz");
        let target_dir = work.join("target");
        let mut build = ready.cargo();
        build.args(["fuzz", "build", "--fuzz-dir", "fuzz", "--features", "libfuzzer"]);
        // Address sanitizing needs a nightly compiler and finds little in code without `unsafe`.
        build.args(["--sanitizer", "none", "--target", &host, "--target-dir"]).arg(&target_dir);
        build.env_remove("CARGO_TARGET_DIR").env("CARGO_PROFILE_RELEASE_LTO", "off");
        process::run(&mut build)?;
        Ok(Self { binaries: target_dir.join(host).join("release"), work })
    }

    /// Runs one target for so long, or until it finds something.
    fn run(&self, target: String, seconds: u64) -> Result<Report> {
        let corpus = self.folder("corpus", &target)?;
        let findings = self.folder("findings", &target)?;
        for old in fs::read_dir(&findings)? {
            fs::remove_file(old?.path())?;
        }
        let log = self.folder("logs", "")?.join(format!("{target}.log"));
        let seeds = workspace().join("fuzz/seeds").join(&target);
        let mut fuzz = process::command(self.binaries.join(&target));
        fuzz.arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={MAX_INPUT_BYTES}"))
            .arg(format!("-timeout={MAX_INPUT_SECONDS}"))
            .arg(format!("-rss_limit_mb={MAX_RESIDENT_MIB}"))
            .arg(format!("-artifact_prefix={}/", findings.display()))
            .arg("-print_final_stats=1")
            // New inputs are kept in the first folder; the others are only read.
            .args([&corpus, &seeds])
            .stderr(File::create(&log).with_context(|| format!("cannot make {}", log.display()))?);
        let status = fuzz.status().with_context(|| format!("cannot start {target}"))?;
        let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let found = keep(&findings, &seeds)?;
        if !status.success() && found.is_empty() {
            bail!("{target} ended with {status} and found nothing; see {}", log.display());
        }
        Ok(Report::read(target, &said, found))
    }

    fn folder(&self, kind: &str, target: &str) -> Result<PathBuf> {
        let folder = self.work.join(kind).join(target);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }
}

/// Copies what was found to the seeds, where the tests will run it; gives the copies' names.
fn keep(findings: &Path, seeds: &Path) -> Result<Vec<String>> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(findings)? {
        let entry = entry?;
        let name = entry.file_name();
        // Inputs that are only slow are named otherwise.
        if FINDINGS.iter().any(|kind| name.to_string_lossy().starts_with(kind)) {
            let copy = seeds.join(name);
            fs::copy(entry.path(), &copy).with_context(|| format!("no {}", copy.display()))?;
            kept.push(copy.strip_prefix(workspace()).unwrap_or(&copy).display().to_string());
        }
    }
    Ok(kept)
}

/// What the compiler calls this machine.
fn host() -> Result<String> {
    let said = String::from_utf8(process::output(process::command("rustc").arg("-vV"))?)?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` names no host")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_of_the_fuzz_crate_is_found() {
        let targets = targets().unwrap();
        assert!(targets.len() >= 7 && targets.is_sorted(), "{targets:?}");
        for target in targets {
            assert!(workspace().join("fuzz/seeds").join(&target).is_dir(), "{target} has no seeds");
        }
    }

    #[test]
    fn what_was_found_becomes_a_seed_and_what_was_slow_does_not() {
        let scratch = std::env::temp_dir().join(format!("modelet-findings-{}", std::process::id()));
        let (findings, seeds) = (scratch.join("findings"), scratch.join("seeds"));
        for folder in [&findings, &seeds] {
            fs::create_dir_all(folder).unwrap();
        }
        for name in ["crash-0a", "timeout-1b", "slow-unit-2c"] {
            fs::write(findings.join(name), name).unwrap();
        }
        let mut kept = keep(&findings, &seeds).unwrap();
        kept.sort();
        let copies = ["crash-0a", "timeout-1b"].map(|name| seeds.join(name));
        assert_eq!(kept, copies.each_ref().map(|copy| copy.display().to_string()));
        assert_eq!(fs::read(&copies[0]).unwrap(), b"crash-0a");
        assert_eq!(fs::read_dir(&seeds).unwrap().count(), 2);
        fs::remove_dir_all(&scratch).unwrap();
    }
}
