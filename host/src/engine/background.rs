//! Where long calls go on: a second runtime of low priority, so that guests that compute for long do
//! not hold up those that answer at once, nor the reactor.
//!
//! A call begins where its request is. Once its guest has used up the foreground's share, what is
//! left of the call moves over, between two polls; a version whose calls are known to be long begins
//! there.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::EPOCH_TICK;
use crate::cost::Cost;
use crate::priority;

/// Turns of one epoch that the guest of a call has been given, counted by the engine.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<AtomicU32>);

impl Turns {
    /// Another turn was used up.
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// A new call begins.
    pub(crate) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn used(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A runtime of low priority.
pub struct Background {
    /// Taken only when dropped.
    runtime: Option<Runtime>,
    /// Turns a call may use up before it moves here; `engine.foreground_ms`.
    share: u32,
}

impl Background {
    /// Whether a call of such a cost over inputs of `bytes` bytes is known to be long.
    pub fn is_long(&self, cost: &Cost, bytes: u64) -> bool {
        cost.estimate(bytes).is_some_and(|guest| guest > EPOCH_TICK * self.share)
    }
}

impl Background {
    /// Starts as many threads as there are cores.
    ///
    /// # Errors
    /// When the operating system gives no threads.
    pub fn start(share: u32) -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .thread_name("background")
            .on_thread_start(priority::lower_own)
            // A guest may wait for the clock, and for another server.
            .enable_all()
            .build()?;
        Ok(Self { runtime: Some(runtime), share })
    }

    /// Finishes a call: here and now while it is short, in the background from when it is not, or
    /// from its beginning where it is `known_long`. Dropping the future ends the call wherever it is.
    pub async fn finish<T: Send + 'static>(
        &self,
        call: impl Future<Output = T> + Send + 'static,
        turns: &Turns,
        known_long: bool,
    ) -> T {
        let mut call = Box::pin(call);
        if !known_long {
            let ended = std::future::poll_fn(|cx| match call.as_mut().poll(cx) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending if turns.used() > self.share => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            if let Some(output) = ended.await {
                return output;
            }
        }
        match &self.runtime {
            Some(runtime) => Moved(runtime.spawn(call)).output().await,
            None => call.await,
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Dropping a runtime waits, which is not allowed where the host is dropped.
            runtime.shutdown_background();
        }
    }
}

/// Runs a call by itself, however slowly somebody asks how it goes. Dropping the future ends it.
pub fn detach<T: Send + 'static>(
    call: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = T> + Send + 'static {
    Moved(tokio::spawn(call)).output()
}

/// A call in the background; it ends when this is dropped.
struct Moved<T>(JoinHandle<T>);

impl<T> Moved<T> {
    async fn output(mut self) -> T {
        match Pin::new(&mut self.0).await {
            Ok(output) => output,
            // It panicked: so would it have done in the foreground.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is shutting down under a request: the process is ending.
            Err(_) => std::future::pending().await,
        }
    }
}

impl<T> Drop for Moved<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread() -> String {
        std::thread::current().name().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn a_short_call_stays_and_a_long_one_moves_over() {
        let background = Background::start(2).unwrap();
        let here = thread();
        let short = background.finish(async { thread() }, &Turns::default(), false).await;
        assert_eq!(short, here);
        let turns = Turns::default();
        let spinning = turns.clone();
        let long = async move {
            while thread() != "background" {
                spinning.count();
                tokio::task::yield_now().await;
            }
            spinning.used()
        };
        assert_eq!(background.finish(long, &turns, false).await, 3);
        let known = background.finish(async { thread() }, &Turns::default(), true).await;
        assert_eq!(known, "background");
    }

    #[tokio::test]
    async fn a_detached_call_goes_on_unasked_and_ends_when_nobody_can_ask() {
        let (done, ended) = tokio::sync::oneshot::channel();
        let call = detach(async move { done.send(()) });
        ended.await.unwrap();
        assert_eq!(call.await, Ok(()));
        let (alive, dropped) = tokio::sync::oneshot::channel::<()>();
        let call = detach(async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        drop(call);
        assert!(dropped.await.is_err());
    }

    #[tokio::test]
    async fn a_call_that_nobody_waits_for_is_dropped_wherever_it_is() {
        let background = Background::start(0).unwrap();
        let (alive, dropped) = tokio::sync::oneshot::channel::<()>();
        let call = async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        };
        let turns = Turns::default();
        let finishing = background.finish(call, &turns, true);
        let waited = tokio::time::timeout(std::time::Duration::from_millis(1), finishing).await;
        assert!(waited.is_err());
        assert!(dropped.await.is_err());
    }
}
