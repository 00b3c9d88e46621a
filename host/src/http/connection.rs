//! Connection: how long each may go on without what it is there for: a request's head, a next request,
//! or an answer that is read.
//!
//! The HTTP library measures none of the three for HTTP/2, nor the first bytes of any connection, so
//! they are measured here, for both versions alike, from what passes through the socket and from the
//! exchanges of requests and answers.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

use crate::config::{Limits, ServerSettings};
use crate::limit::Limit;

/// How long a connection may take, or do without, what it is there for.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// From a request's first byte to the end of its head.
    head: Duration,
    /// From one request to the next.
    idle: Duration,
    /// For an answer to be read.
    answer: Duration,
    /// For something to be added to a stream, by either side.
    stream: Duration,
}

impl Times {
    /// As configured.
    pub fn new(server: &ServerSettings, limits: &Limits) -> Self {
        let answer = Duration::from_millis(limits.answer_timeout_ms);
        Self {
            head: Duration::from_secs(server.header_timeout_s),
            idle: Duration::from_secs(server.idle_timeout_s),
            answer,
            // A stream that can end by itself has said so by then.
            stream: Duration::from_secs(server.stream_idle_timeout_s).saturating_add(answer),
        }
    }
}

/// What is known of one connection.
pub struct Connection {
    times: Times,
    state: Mutex<State>,
}

struct State {
    /// When it was opened, or its last exchange ended.
    idle_since: Instant,
    /// When the first byte after that came.
    head_since: Option<Instant>,
    /// Exchanges under way: several with HTTP/2.
    exchanges: u32,
    /// Set by the first request. From then on bytes are frames of any kind, and no sign of a head.
    is_http2: bool,
    /// When each answer that is being written must be out, by its exchange's number, and the limit
    /// that it is over otherwise.
    answers: Vec<(u64, Due)>,
    /// Numbers the exchanges.
    next: u64,
}

/// When a connection is to be looked at again, and the limit that it is over if nothing happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due {
    at: Instant,
    limit: Option<Limit>,
}

impl Connection {
    /// A connection that was opened now.
    pub fn new(times: Times, now: Instant) -> Arc<Self> {
        let state = State {
            idle_since: now,
            head_since: None,
            exchanges: 0,
            is_http2: false,
            answers: Vec::new(),
            next: 0,
        };
        Arc::new(Self { times, state: Mutex::new(state) })
    }

    /// A request's head has come.
    pub fn begin(self: &Arc<Self>, version: Version) -> Exchange {
        let mut state = self.lock();
        state.is_http2 |= version == Version::HTTP_2;
        state.head_since = None;
        state.exchanges += 1;
        let number = state.next;
        state.next += 1;
        Exchange { connection: Arc::clone(self), number }
    }

    /// Waits for `served` to end, or for the limit that the connection is over before.
    ///
    /// # Errors
    /// The limit.
    pub async fn within_limits<T>(&self, served: impl Future<Output = T>) -> Result<T, Limit> {
        let mut served = pin!(served);
        let mut timer = pin!(sleep_until(self.due(Instant::now()).at));
        poll_fn(|cx| {
            if let Poll::Ready(result) = served.as_mut().poll(cx) {
                return Poll::Ready(Ok(result));
            }
            // Whatever changes what is due also has this task polled, or makes it due later.
            loop {
                let now = Instant::now();
                let due = self.due(now);
                if due.at <= now
                    && let Some(limit) = due.limit
                {
                    return Poll::Ready(Err(limit));
                }
                if due.at < timer.deadline() || timer.is_elapsed() {
                    timer.as_mut().reset(due.at);
                }
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    fn received(&self, now: Instant) {
        let mut state = self.lock();
        if state.exchanges == 0 && state.head_since.is_none() && !state.is_http2 {
            state.head_since = Some(now);
        }
    }

    fn due(&self, now: Instant) -> Due {
        let state = self.lock();
        let due = |at: Instant, limit| Due { at, limit: Some(limit) };
        if state.exchanges > 0 {
            let first = state.answers.iter().map(|(_, due)| *due).min_by_key(|due| due.at);
            // Until there is an answer the request has a deadline of its own.
            let again = Due { at: now + self.times.answer.max(self.times.idle), limit: None };
            return first.unwrap_or(again);
        }
        let idle = due(state.idle_since + self.times.idle, Limit::IdleTime);
        match state.head_since {
            Some(since) if since + self.times.head < idle.at => {
                due(since + self.times.head, Limit::HeaderTime)
            }
            _ => idle,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Times and numbers stay what they are whatever a panicking holder was doing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request and its answer, from the end of its head until the last byte is out; dropped then, or
/// when either side gives up.
pub struct Exchange {
    connection: Arc<Connection>,
    number: u64,
}

impl Exchange {
    /// The answer begins to be written, or more of it does.
    pub fn answer(&self, now: Instant) {
        self.due(now + self.connection.times.answer, Limit::AnswerTime);
    }

    /// What there is of a stream has been taken, and nothing more is there yet.
    pub fn rest(&self, now: Instant) {
        self.due(now + self.connection.times.stream, Limit::StreamIdleTime);
    }

    fn due(&self, at: Instant, limit: Limit) {
        let mut state = self.connection.lock();
        state.answers.retain(|(number, _)| *number != self.number);
        state.answers.push((self.number, Due { at, limit: Some(limit) }));
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.connection.lock();
        state.answers.retain(|(number, _)| *number != self.number);
        state.exchanges -= 1;
        if state.exchanges == 0 {
            state.idle_since = Instant::now();
        }
    }
}

/// A socket whose reads are noted.
pub struct Watched<S> {
    socket: S,
    connection: Arc<Connection>,
}

impl<S> Watched<S> {
    /// Notes the reads of `socket` for `connection`.
    pub fn new(socket: S, connection: Arc<Connection>) -> Self {
        Self { socket, connection }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.connection.received(Instant::now());
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Duration = Duration::from_secs(30);
    const IDLE: Duration = Duration::from_secs(75);
    const ANSWER: Duration = Duration::from_secs(10);
    const STREAM: Duration = Duration::from_secs(3600);
    const TIMES: Times = Times { head: HEAD, idle: IDLE, answer: ANSWER, stream: STREAM };

    fn opened(now: Instant) -> Arc<Connection> {
        Connection::new(TIMES, now)
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_connection_without_a_request_ends_after_the_idle_time() {
        let now = Instant::now();
        let due = opened(now).due(now);
        assert_eq!(due, Due { at: now + IDLE, limit: Some(Limit::IdleTime) });
    }

    #[test]
    fn a_head_has_its_time_from_the_first_byte_however_many_follow() {
        let now = Instant::now();
        let connection = opened(now);
        for second in [5, 10, 34] {
            connection.received(now + seconds(second));
            let due = Due { at: now + seconds(5) + HEAD, limit: Some(Limit::HeaderTime) };
            assert_eq!(connection.due(now), due);
        }
    }

    #[test]
    fn a_head_that_begins_late_has_what_is_left_of_the_idle_time() {
        let now = Instant::now();
        let connection = opened(now);
        connection.received(now + seconds(74));
        assert_eq!(connection.due(now), Due { at: now + IDLE, limit: Some(Limit::IdleTime) });
    }

    #[test]
    fn a_request_under_way_has_no_limit_here_until_it_is_answered() {
        let now = Instant::now();
        let connection = opened(now);
        connection.received(now);
        let exchange = connection.begin(Version::HTTP_11);
        assert_eq!(connection.due(now).limit, None);
        // The body's bytes are not a head's.
        connection.received(now);
        assert_eq!(connection.due(now).limit, None);
        exchange.answer(now);
        assert_eq!(connection.due(now), Due { at: now + ANSWER, limit: Some(Limit::AnswerTime) });
        drop(exchange);
        assert_eq!(connection.due(now).limit, Some(Limit::IdleTime));
        connection.received(now);
        assert_eq!(connection.due(now).limit, Some(Limit::HeaderTime));
    }

    #[test]
    fn a_stream_that_was_taken_may_rest_and_has_the_usual_time_for_more() {
        let now = Instant::now();
        let connection = opened(now);
        let exchange = connection.begin(Version::HTTP_2);
        exchange.answer(now);
        exchange.rest(now);
        let rests = Due { at: now + STREAM, limit: Some(Limit::StreamIdleTime) };
        assert_eq!(connection.due(now), rests);
        exchange.answer(now);
        assert_eq!(connection.due(now), Due { at: now + ANSWER, limit: Some(Limit::AnswerTime) });
    }

    #[test]
    fn the_oldest_answer_of_many_decides_and_frames_are_no_head() {
        let now = Instant::now();
        let connection = opened(now);
        let exchanges: Vec<_> = (0..3).map(|_| connection.begin(Version::HTTP_2)).collect();
        for (second, exchange) in exchanges.iter().enumerate().rev() {
            exchange.answer(now + seconds(second as u64));
        }
        for second in 0..3 {
            assert_eq!(connection.due(now).at, now + seconds(second as u64) + ANSWER);
            let oldest = connection.lock().answers.last().unwrap().0;
            assert_eq!(oldest, second as u64);
            connection.lock().answers.pop();
        }
        drop(exchanges);
        connection.received(now);
        assert_eq!(connection.due(now).limit, Some(Limit::IdleTime));
    }

    #[tokio::test]
    async fn a_connection_over_its_time_is_given_up() {
        let times = Times { idle: Duration::from_millis(5), ..TIMES };
        let connection = Connection::new(times, Instant::now());
        let never = std::future::pending::<()>();
        assert_eq!(connection.within_limits(never).await, Err(Limit::IdleTime));
        assert_eq!(connection.within_limits(async { 7 }).await, Ok(7));
    }
}
