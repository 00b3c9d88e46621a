//! The process's memory: how much is resident, what a guest may take, and giving back what is free.

use std::sync::Arc;

use wasmtime::ResourceLimiter;

use super::budget::Budget;

/// Bytes of this process in physical memory; 0 where the system does not say.
pub fn resident_bytes() -> u64 {
    let Ok(statm) = std::fs::read_to_string("/proc/self/statm") else { return 0 };
    let pages = statm.split(' ').nth(1).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// Bytes of memory this process may use: the machine's, or those of its control group where that has
/// fewer.
pub fn available_bytes() -> u64 {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let machine = read("/proc/meminfo");
    let kilobytes = machine.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok());
    let group = read("/sys/fs/cgroup/memory.max").trim().parse().unwrap_or(u64::MAX);
    kilobytes.map_or(FALLBACK_BYTES, |kilobytes| kilobytes * 1024).min(group)
}

/// Taken for the machine's memory where the system does not say.
const FALLBACK_BYTES: u64 = 4 << 30;

/// Gives memory that the allocator keeps for later back to the system.
#[allow(unsafe_code, reason = "malloc_trim has no safe binding")]
pub fn return_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: glibc documents malloc_trim as thread-safe; it takes no pointers and frees nothing that
    // is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// From this size on glibc gives each allocation a mapping of its own, which returns to the system
/// when it is freed. Every page of a fresh mapping costs a fault, some two microseconds on a virtual
/// machine, and a graph allocates each of its intermediate results anew: with glibc's first value of
/// 128 KiB a run of EfficientNet took 15 ms, with this one, the largest that glibc takes, 5.7 ms.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const OWN_MAPPING_BYTES: libc::c_int = 32 << 20;

/// So much free memory at the end of a heap is kept for the next run. More than one run of the larger
/// graphs takes; [`return_free_memory`] gives it back when the host has nothing to do.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_FREE_BYTES: libc::c_int = 256 << 20;

/// Cores that share one heap of the allocator. Threads with heaps of their own each keep what they freed
/// and scatter what lives on: loading and unloading a graph of 19 MB eight times left up to 10 MB
/// behind with the default of eight heaps a core, 0.8 MB with one. Small blocks come from each thread's own cache.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const CORES_PER_HEAP: usize = 8;

/// Has the allocator keep what runs of graphs need again and again. For the program to call before it
/// starts any thread.
#[allow(unsafe_code, reason = "mallopt has no safe binding")]
pub fn keep_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: glibc documents mallopt as safe to call at any time from any thread; it takes no
    // pointers and changes only how later blocks are allocated.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAPPING_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_FREE_BYTES);
        libc::mallopt(libc::M_ARENA_MAX, heaps());
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn heaps() -> libc::c_int {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    libc::c_int::try_from(cores.div_ceil(CORES_PER_HEAP)).unwrap_or(1)
}

/// When the host has come to rest, and what it keeps for the next run may go back to the system.
#[derive(Debug, Default)]
pub struct Rest {
    /// Requests that had ended at the last look.
    ended: u64,
    /// Looks since then that found no more.
    quiet: u32,
}

/// Looks without a request after which a host is at rest. Long enough that callers who come every few
/// seconds find what the last run left.
const QUIET_LOOKS: u32 = 10;

impl Rest {
    /// Looks at how many requests have ended; `true` once each time that the host comes to rest.
    pub fn begins(&mut self, ended: u64) -> bool {
        self.quiet = if ended == self.ended { self.quiet.saturating_add(1) } else { 0 };
        self.ended = ended;
        self.quiet == QUIET_LOOKS
    }
}

/// What one store may take, summed over all its memories and tables.
///
/// wasmtime's own `StoreLimits` caps each memory by itself, so a component with four memories could
/// take four times the limit.
pub struct MemoryLimiter {
    /// What all stores of the host may take together; this one's part is given back when dropped.
    budget: Arc<Budget>,
    memory_bytes: u64,
    table_elements: u64,
    memory_limit: u64,
    table_limit: u64,
    /// The last growth that was refused, for the error of the trap that follows.
    refused: Option<Refusal>,
}

/// A growth past a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Linear memory: what it would have come to, and the limit, in bytes.
    Memory(u64, u64),
    /// Tables: what they would have come to, and the limit, in elements.
    Table(u64, u64),
    /// The host's memory for all guests: its limit, in bytes.
    Host(u64),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory(wanted, limit) => write!(
                f,
                "it asked for {wanted} bytes of memory, over the limit of {limit} (guest.memory_bytes)"
            ),
            Self::Table(wanted, limit) => write!(
                f,
                "it asked for {wanted} table elements, over the limit of {limit} (guest.table_elements)"
            ),
            Self::Host(limit) => write!(
                f,
                "all guests together have the {limit} bytes of memory they may have (engine.memory_bytes)"
            ),
        }
    }
}

impl MemoryLimiter {
    /// A limiter for one store: bytes of all memories, elements of all tables.
    pub fn new(budget: Arc<Budget>, memory_limit: u64, table_limit: u64) -> Self {
        Self {
            budget,
            memory_bytes: 0,
            table_elements: 0,
            memory_limit,
            table_limit,
            refused: None,
        }
    }

    /// Bytes of linear memory taken so far.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Forgets it: another call begins.
    pub fn begin_call(&mut self) {
        self.refused = None;
    }

    /// The last growth that was refused in this call.
    pub fn refused(&self) -> Option<Refusal> {
        self.refused
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        let total = self.memory_bytes.saturating_add(more);
        if total > self.memory_limit {
            self.refused = Some(Refusal::Memory(total, self.memory_limit));
            return Ok(false);
        }
        if !self.budget.take_memory(more) {
            self.refused = Some(Refusal::Host(self.budget.memory_limit()));
            return Ok(false);
        }
        self.memory_bytes = total;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.table_elements.saturating_add(desired.saturating_sub(current) as u64);
        if total > self.table_limit {
            self.refused = Some(Refusal::Table(total, self.table_limit));
            return Ok(false);
        }
        self.table_elements = total;
        Ok(true)
    }
}

impl Drop for MemoryLimiter {
    fn drop(&mut self) {
        self.budget.give_memory(self.memory_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::Slots;
    use super::*;

    fn budget(memory_limit: u64) -> Arc<Budget> {
        Arc::new(Budget::new(Slots::default(), memory_limit))
    }

    #[test]
    fn the_host_is_asked_too_and_gets_back_what_a_store_had() {
        let budget = budget(100);
        let mut first = MemoryLimiter::new(Arc::clone(&budget), 80, 0);
        let mut second = MemoryLimiter::new(Arc::clone(&budget), 80, 0);
        assert!(first.memory_growing(0, 60, None).unwrap());
        assert!(!second.memory_growing(0, 60, None).unwrap());
        assert_eq!(second.refused(), Some(Refusal::Host(100)));
        drop(first);
        assert!(second.memory_growing(0, 60, None).unwrap());
        drop(second);
        assert_eq!(budget.memory_bytes(), 0);
    }

    #[test]
    fn all_memories_of_a_store_share_one_limit() {
        let mut limiter = MemoryLimiter::new(budget(1000), 100, 10);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(!limiter.memory_growing(0, 60, None).unwrap());
        assert_eq!(limiter.refused(), Some(Refusal::Memory(120, 100)));
        limiter.begin_call();
        assert_eq!(limiter.refused(), None);
        assert!(limiter.memory_growing(60, 100, None).unwrap());
        assert_eq!(limiter.memory_bytes(), 100);
        assert!(limiter.table_growing(0, 10, None).unwrap());
        assert!(!limiter.table_growing(10, 11, None).unwrap());
    }

    #[test]
    fn a_host_comes_to_rest_once_after_each_burst() {
        let mut rest = Rest::default();
        let looks = |rest: &mut Rest, ended| (0..30).filter(|_| rest.begins(ended)).count();
        assert_eq!((looks(&mut rest, 7), looks(&mut rest, 7), looks(&mut rest, 8)), (1, 0, 1));
    }

    #[test]
    fn this_process_has_resident_memory() {
        assert!(resident_bytes() > 1 << 20);
        assert!(available_bytes() > resident_bytes());
    }
}
