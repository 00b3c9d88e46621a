//! Priority of threads: work that can wait gives way to work that others wait for.

/// How much lower, on the scale of nice(1). About a tenth of the weight of a normal thread: next to
/// one it gets a tenth of a core, on an idle core all of it.
pub const LOW_PRIORITY: i32 = 10;

/// Lowers the priority of the calling thread for good: an unprivileged one cannot raise it again.
pub fn lower_own() {
    // On Linux a "process" of this call is one thread; elsewhere it would be the whole process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, LOW_PRIORITY) {
        tracing::debug!(%error, "a thread keeps its normal priority");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_the_thread_that_asks_is_lowered() {
        let own = || rustix::process::getpriority_process(None).unwrap();
        let before = own();
        let lowered = std::thread::spawn(move || {
            lower_own();
            own()
        });
        assert_eq!(lowered.join().unwrap(), LOW_PRIORITY.max(before));
        assert_eq!(own(), before);
    }
}
