//! A few words that change together at a time the lock itself takes, readable at any moment.
//!
//! Every row of the ledger that is written on the data path is one of these. A write is a
//! compare-and-swap and some plain stores, without allocation or a system call; a reader never
//! holds up a writer, it tries again when one was at work.
//!
//! The time of a write is taken inside it. Otherwise a writer could take the time, be preempted,
//! and change the past of a reader that has meanwhile counted up to a later time. Whether the clock
//! can overtake memory is the processor's secret, so the readers' latest time is in a word of its
//! own: a writer that a reader did not notice does notice that reader's time, and begins there.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::clock::Clock;

/// Turns of a busy wait before the processor is offered to others. A write takes some tens of
/// nanoseconds, so a longer wait means that the writer was preempted and needs the processor.
const SPINS_BEFORE_YIELD: u32 = 64;

/// `N` words behind a sequence lock.
#[derive(Debug)]
pub(super) struct SeqLock<const N: usize> {
    /// Odd while a writer is at work, and two higher after every write.
    sequence: AtomicU64,
    /// The latest time a reader has counted up to.
    seen_ns: AtomicU64,
    /// The words, each atomic so that a read that overlaps a write is torn but not undefined.
    words: [AtomicU64; N],
}

impl<const N: usize> SeqLock<N> {
    pub(super) fn new(words: [u64; N]) -> Self {
        Self {
            sequence: AtomicU64::new(0),
            seen_ns: AtomicU64::new(0),
            words: words.map(AtomicU64::new),
        }
    }

    /// Changes the words; `change` is given the time of the write, never earlier than a time that a
    /// reader has counted up to. It must be short and must not block.
    pub(super) fn write<T>(
        &self,
        clock: &Clock,
        change: impl FnOnce(&mut [u64; N], u64) -> T,
    ) -> T {
        let _held = self.lock();
        // Sequentially consistent with the swap in `lock` and with the reader's pair in `read`:
        // either that reader sees our odd sequence or we see its time.
        let now_ns = clock.now_ns().max(self.seen_ns.load(Ordering::SeqCst));
        let mut words = self.words.each_ref().map(|word| word.load(Ordering::Relaxed));
        let answer = change(&mut words, now_ns);
        for (slot, word) in self.words.iter().zip(words) {
            // Release, so that a reader of a new word also sees the odd sequence.
            slot.store(word, Ordering::Release);
        }
        answer
    }

    /// The words as they were together, and the time up to which the reader may count them: `now_ns`
    /// or what another reader has seen, whichever is later.
    pub(super) fn read(&self, now_ns: u64) -> ([u64; N], u64) {
        let mut turns = 0;
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let words = self.words.each_ref().map(|word| word.load(Ordering::Relaxed));
                let seen_ns = self.seen_ns.fetch_max(now_ns, Ordering::SeqCst);
                fence(Ordering::Acquire);
                if self.sequence.load(Ordering::SeqCst) == before {
                    return (words, now_ns.max(seen_ns));
                }
            }
            wait(&mut turns);
        }
    }

    fn lock(&self) -> Held<'_> {
        let mut turns = 0;
        loop {
            let even = self.sequence.load(Ordering::Relaxed);
            if even.is_multiple_of(2)
                && self
                    .sequence
                    .compare_exchange_weak(even, even + 1, Ordering::SeqCst, Ordering::Relaxed)
                    .is_ok()
            {
                return Held { sequence: &self.sequence, after: even + 2 };
            }
            wait(&mut turns);
        }
    }
}

/// The right to write; given back even when the change panics.
struct Held<'a> {
    sequence: &'a AtomicU64,
    after: u64,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.sequence.store(self.after, Ordering::Release);
    }
}

fn wait(turns: &mut u32) {
    *turns += 1;
    if turns.is_multiple_of(SPINS_BEFORE_YIELD) {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    #[test]
    fn a_reader_never_sees_half_a_write() {
        let lock = SeqLock::new([0; 4]);
        let clock = Clock::monotonic();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let writers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..20_000 {
                            lock.write(&clock, |words, _| *words = words.map(|word| word + 1));
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let (words, _) = lock.read(clock.now_ns());
                    assert!(words.iter().all(|word| *word == words[0]), "{words:?}");
                }
            });
            for writer in writers {
                writer.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(lock.read(0).0, [40_000; 4]);
    }

    #[test]
    fn a_write_never_happens_before_a_time_that_was_read() {
        let lock = SeqLock::new([0]);
        let (clock, hand) = Clock::manual();
        lock.read(100);
        assert_eq!(lock.write(&clock, |_, now_ns| now_ns), 100);
        hand.advance_ns(300);
        assert_eq!(lock.write(&clock, |_, now_ns| now_ns), 300);
        assert_eq!(lock.read(50).1, 100);
    }
}
