//! Work on bytes that nobody vouches for, in a process of its own: this very program under a hidden
//! command, which sets its own limits before it looks at anything and may be killed without harm.
//!
//! The server's side starts it, reads the end of what it says, and waits no longer than it may take.
//! Whatever the worker does to itself comes back as a [`Death`], which says what limit was most likely
//! in its way.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use crate::nn::backend::NO_TELEMETRY;

/// Bytes that are kept of what a worker prints and of what it complains; the end of each, since the
/// last words say why it ended. A report of a graph has about a hundred bytes an output.
const KEPT_BYTES: usize = 64 << 10;

/// Bytes read from a worker at a time.
const CHUNK_BYTES: usize = 8 << 10;

/// Bytes of a complaint that are told to a publisher; more is noise.
const COMPLAINT_BYTES: usize = 1024;

/// Files and pipes a worker may have open: its own three, what it reads and writes, and what loading
/// an engine's library takes.
const OPEN_FILES: u64 = 64;

/// What is added to a worker's nice value: serving needs the processor more.
const NICE: i32 = 10;

/// The exit code of a Rust program that panicked.
const PANICKED: i32 = 101;

/// Variables of the server's environment that a worker gets: where the system finds the libraries that
/// an engine's library needs. It has no use for others, which may hold secrets.
const KEPT_VARIABLES: [&str; 2] = ["LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"];

/// What a worker may take. It sets all but the last itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerLimits {
    /// Bytes of address space.
    pub memory_bytes: u64,
    /// Seconds of processor time, all threads together.
    pub cpu_s: u64,
    /// Bytes of any file it writes.
    pub file_bytes: u64,
    /// Seconds on the wall clock, which the server watches.
    pub timeout_s: u64,
}

/// The settings that a kind of worker's limits come from, for messages.
#[derive(Debug, Clone, Copy)]
pub struct LimitKeys {
    /// Of the address space.
    pub memory: &'static str,
    /// Of the processor time.
    pub cpu: &'static str,
    /// Of the wall clock.
    pub timeout: &'static str,
}

/// How a worker ended that did not end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// It asked for more memory than it may have.
    Memory,
    /// It used up its processor time.
    Cpu,
    /// It was still there when its time was over.
    Timeout,
    /// It panicked.
    Panic,
    /// A signal that programs bring upon themselves ended it.
    Crash(i32),
    /// Somebody killed it: an operator, or a system that is short of memory.
    Killed,
}

impl Death {
    /// Whether the same work ends the same way the next time, however busy the host is.
    pub fn is_repeatable(self) -> bool {
        match self {
            Self::Memory | Self::Cpu | Self::Panic | Self::Crash(_) => true,
            Self::Timeout | Self::Killed => false,
        }
    }

    /// What happened, as the end of a sentence about the worker, with the setting that is in the way.
    pub fn explain(self, limits: &WorkerLimits, keys: &LimitKeys) -> String {
        match self {
            Self::Memory => format!(
                "it wants more memory than the limit of {} bytes ({})",
                limits.memory_bytes, keys.memory
            ),
            Self::Cpu => format!(
                "it takes more processor time than the limit of {} seconds ({})",
                limits.cpu_s, keys.cpu
            ),
            Self::Timeout => {
                format!(
                    "it takes longer than the limit of {} seconds ({})",
                    limits.timeout_s, keys.timeout
                )
            }
            Self::Panic => "it makes the process panic".to_owned(),
            Self::Crash(signal) => format!("it crashes the process ({})", signal_name(signal)),
            Self::Killed => "the process was killed from outside, most likely because the host is \
                             short of memory; try again"
                .to_owned(),
        }
    }
}

fn signal_name(signal: i32) -> String {
    let names = [
        (Signal::ILL, "SIGILL"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::SYS, "SIGSYS"),
        (Signal::XFSZ, "SIGXFSZ"),
    ];
    let name = names.iter().find(|(known, _)| known.as_raw() == signal).map(|(_, name)| *name);
    name.map_or_else(|| format!("signal {signal}"), str::to_owned)
}

/// What a worker came to.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code, or how it died.
    pub ended: Result<i32, Death>,
    /// The end of what it printed.
    pub output: Vec<u8>,
    /// The end of what it complained, for people.
    pub complaint: String,
    /// How long it ran.
    pub took: Duration,
}

impl Finished {
    /// Why it died, for whoever sent the work; with its own last words where they may help.
    pub fn explain(&self, death: Death, limits: &WorkerLimits, keys: &LimitKeys) -> String {
        let reason = death.explain(limits, keys);
        match death {
            Death::Panic | Death::Crash(_) if !self.complaint.is_empty() => {
                format!("{reason}: {}", self.complaint)
            }
            _ => reason,
        }
    }
}

/// The program whose hidden commands are the workers: this one.
#[derive(Debug, Clone)]
pub struct Worker {
    program: PathBuf,
}

impl Worker {
    /// Workers of `program`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into() }
    }

    /// Runs the hidden `command` with `args` and the limits behind them. Dropped before it is done, it
    /// kills the worker.
    ///
    /// # Errors
    /// When there can be no worker, which is the host's fault and not the work's.
    pub async fn run(
        &self,
        command: &str,
        args: impl IntoIterator<Item = OsString>,
        limits: &WorkerLimits,
    ) -> io::Result<Finished> {
        let started = Instant::now();
        let mut child = Command::new(&self.program)
            .arg(command)
            .args(args)
            .args(["--memory-bytes", &limits.memory_bytes.to_string()])
            .args(["--cpu-s", &limits.cpu_s.to_string()])
            .args(["--file-bytes", &limits.file_bytes.to_string()])
            .env_clear()
            .envs([NO_TELEMETRY])
            .envs(KEPT_VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (mut output, mut complaint) = (Vec::new(), Vec::new());
        let whole = async {
            let (status, (), ()) =
                tokio::join!(child.wait(), tail(stdout, &mut output), tail(stderr, &mut complaint));
            status
        };
        let ended = match tokio::time::timeout(Duration::from_secs(limits.timeout_s), whole).await {
            Ok(status) => status.map(Some)?,
            Err(_) => {
                child.kill().await?;
                None
            }
        };
        let complaint = String::from_utf8_lossy(&complaint).into_owned();
        let ended = ended.map_or(Err(Death::Timeout), |status| how(status, &complaint));
        Ok(Finished { ended, output, complaint: shortened(&complaint), took: started.elapsed() })
    }

    /// The program itself.
    pub fn program(&self) -> &Path {
        &self.program
    }
}

/// Reads a pipe to its end and keeps the last of it, so that a worker that talks without end neither
/// fills memory nor waits for a reader.
async fn tail(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let mut chunk = [0; CHUNK_BYTES];
    // A pipe that breaks has nothing more to say, as one that ended.
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        kept.extend_from_slice(chunk.get(..count).unwrap_or_default());
        if kept.len() > 2 * KEPT_BYTES {
            kept.drain(..kept.len() - KEPT_BYTES);
        }
    }
}

fn shortened(complaint: &str) -> String {
    let text = complaint.trim();
    let mut start = text.len().saturating_sub(COMPLAINT_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text.get(start..).unwrap_or_default().to_owned()
}

fn how(status: ExitStatus, complaint: &str) -> Result<i32, Death> {
    use std::os::unix::process::ExitStatusExt as _;
    if let Some(code) = status.code().filter(|code| *code != PANICKED) {
        return Ok(code);
    }
    // Who is refused memory says so and aborts, panics or throws what nobody catches.
    if says_out_of_memory(complaint) {
        return Err(Death::Memory);
    }
    Err(match status.signal() {
        None => Death::Panic,
        Some(signal) if signal == Signal::XCPU.as_raw() => Death::Cpu,
        Some(signal) if signal == Signal::KILL.as_raw() || signal == Signal::TERM.as_raw() => {
            Death::Killed
        }
        Some(signal) => Death::Crash(signal),
    })
}

/// Whether `words`, of Rust, C++ or the system, mean that memory was refused.
pub fn says_out_of_memory(words: &str) -> bool {
    [
        "memory allocation of ",
        "capacity overflow",
        "bad_alloc",
        "Cannot allocate memory",
        "out of memory",
        "Failed to allocate memory",
    ]
    .iter()
    .any(|sentence| words.contains(sentence))
}

/// The worker's side: what it may take is set, for this process and before it does anything else. It
/// runs at low priority, is the first that a system short of memory ends, leaves no core file, and
/// dies with the thread that started it.
///
/// # Errors
/// When the system does not set a limit; then nothing may be done.
pub fn confine(limits: &WorkerLimits) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // Without it the system ends whom it likes, which is no worse than for any other process.
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    }
    // A server that runs at the lowest priority already stays there.
    let _ = rustix::process::nice(NICE);
    let limit = |resource, current, maximum| {
        setrlimit(resource, Rlimit { current: Some(current), maximum: Some(maximum) })
    };
    limit(Resource::As, limits.memory_bytes, limits.memory_bytes)?;
    // The first is a signal that tells what was in the way, the second one cannot be survived.
    limit(Resource::Cpu, limits.cpu_s, limits.cpu_s.saturating_add(1))?;
    limit(Resource::Fsize, limits.file_bytes, limits.file_bytes)?;
    limit(Resource::Core, 0, 0)?;
    limit(Resource::Nofile, OPEN_FILES, OPEN_FILES)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: WorkerLimits =
        WorkerLimits { memory_bytes: 1 << 30, cpu_s: 60, file_bytes: 0, timeout_s: 60 };
    const KEYS: LimitKeys = LimitKeys { memory: "a.memory", cpu: "a.cpu", timeout: "a.timeout" };

    /// What becomes of a worker that is this shell script.
    fn run(script: &str, limits: &WorkerLimits) -> Finished {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let shell = Worker::new("/bin/sh");
        runtime.block_on(shell.run("-c", [OsString::from(script)], limits)).unwrap()
    }

    #[test]
    fn what_a_worker_says_comes_back_with_its_exit_code() {
        let finished = run("echo out; echo err >&2; exit 5", &LIMITS);
        assert_eq!(finished.ended, Ok(5));
        assert_eq!(finished.output, b"out\n");
        assert_eq!(finished.complaint, "err");
    }

    #[test]
    fn a_worker_gets_nothing_of_the_environment() {
        let finished = run("echo \"$HOME$CARGO_MANIFEST_DIR\"", &LIMITS);
        assert_eq!(finished.output, b"\n");
    }

    #[test]
    fn the_death_of_a_worker_says_what_was_in_its_way() {
        let cases = [
            ("kill -SEGV $$", Death::Crash(11), "SIGSEGV"),
            ("kill -KILL $$", Death::Killed, "from outside"),
            ("kill -XCPU $$", Death::Cpu, "a.cpu"),
            ("exit 101", Death::Panic, "panic"),
            (
                "echo memory allocation of 9 bytes failed >&2; kill -ABRT $$",
                Death::Memory,
                "a.memory",
            ),
        ];
        for (script, death, word) in cases {
            assert_eq!(run(script, &LIMITS).ended, Err(death), "{script}");
            let explained = death.explain(&LIMITS, &KEYS);
            assert!(explained.contains(word), "{explained}");
        }
    }

    #[test]
    fn a_worker_that_does_not_end_is_ended() {
        let finished =
            run("echo begun; while :; do :; done", &WorkerLimits { timeout_s: 1, ..LIMITS });
        assert_eq!(finished.ended, Err(Death::Timeout));
        assert_eq!(finished.output, b"begun\n");
    }

    #[test]
    fn of_a_worker_that_talks_without_end_the_last_words_are_kept() {
        let line = "x".repeat(1000);
        let script =
            format!("i=0; while [ $i -lt 1000 ]; do echo {line}; i=$((i+1)); done; echo last");
        let finished = run(&script, &LIMITS);
        assert!(finished.output.ends_with(b"last\n"));
        assert!(finished.output.len() <= 2 * KEPT_BYTES + CHUNK_BYTES);
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_of_the_host() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let gone = Worker::new("/no/such/program");
        let error = runtime.block_on(gone.run("x", [], &LIMITS)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn only_what_would_happen_again_is_repeatable() {
        assert!(Death::Cpu.is_repeatable() && Death::Crash(11).is_repeatable());
        assert!(!Death::Timeout.is_repeatable() && !Death::Killed.is_repeatable());
    }
}
