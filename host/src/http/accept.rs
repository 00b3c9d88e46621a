//! Accept: connections, each with a permit taken before it is accepted, so that a flood waits in the
//! kernel's queue and not in our memory.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::body::Body;
use super::connection::{Connection, Times, Watched};
use super::socket::Socket;
use crate::config::ServerSettings;
use crate::host::Host;
use crate::limit::Limit;
use crate::server;

/// Pause after `accept` failed, most often for want of descriptors: connections end meanwhile.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// A connection whose service never fails, as the graceful shutdown hands it on.
type Served = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// The connections of a server.
pub struct Connections {
    host: Arc<Host>,
    permits: Arc<Semaphore>,
    builder: Arc<auto::Builder<TokioExecutor>>,
    /// How long each may go on without what it is there for.
    times: Times,
    /// Tells every connection to end; closed when the last of them has.
    stop: watch::Sender<()>,
    /// Set when they are told, for their sockets.
    is_draining: Arc<AtomicBool>,
}

/// An accepted connection.
type Accepted = (TcpStream, SocketAddr, OwnedSemaphorePermit);

impl Connections {
    /// None yet.
    pub fn new(host: Arc<Host>) -> Self {
        let settings = &host.config().server;
        Self {
            permits: Arc::new(Semaphore::new(settings.connections as usize)),
            builder: Arc::new(builder(settings)),
            times: Times::new(settings, host.admission().limits()),
            stop: watch::Sender::new(()),
            is_draining: Arc::default(),
            host,
        }
    }

    /// Accepts connections until `stop` resolves.
    pub async fn accept_until(&self, listener: &TcpListener, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut failing = false;
        loop {
            let accepted = tokio::select! {
                () = &mut stop => return,
                accepted = self.accept(listener) => accepted,
            };
            match accepted {
                Ok(accepted) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!("connections are accepted again");
                    }
                    self.spawn(accepted);
                }
                Err(error) => {
                    // Once an episode: it is tried again twenty times a second.
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "cannot accept a connection");
                    }
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    async fn accept(&self, listener: &TcpListener) -> io::Result<Accepted> {
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                // Whoever comes now waits in the kernel's queue until a connection ends.
                self.host.metrics().refusals().count(Limit::Connections);
                let next = Arc::clone(&self.permits).acquire_owned().await;
                next.map_err(|_| io::Error::other("the connection semaphore is closed"))?
            }
        };
        let (stream, peer) = listener.accept().await?;
        Ok((stream, peer, permit))
    }

    /// Takes the connections that the kernel has made already, without waiting for more, and stops
    /// listening: their requests may have been sent before the drain began.
    pub fn accept_rest(&self, listener: TcpListener) {
        // The reactor may not have heard of all of them, so the kernel is asked.
        let Ok(listener) = listener.into_std() else { return };
        while let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            let Ok((stream, peer)) = listener.accept() else { return };
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            match stream {
                Ok(stream) => self.spawn((stream, peer, permit)),
                Err(error) => tracing::warn!(%error, %peer, "cannot serve a connection"),
            }
        }
    }

    /// Serves a connection in a task of its own.
    fn spawn(&self, (stream, peer, permit): Accepted) {
        // Small answers must not wait for the peer's acknowledgement of the last one.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, %peer, "cannot set TCP_NODELAY");
        }
        let connection = Connection::new(self.times, Instant::now());
        let service = service(Arc::clone(&self.host), Arc::clone(&connection));
        let socket = Socket::new(stream, Arc::clone(&self.is_draining));
        let socket = TokioIo::new(Watched::new(socket, Arc::clone(&connection)));
        let (host, builder) = (Arc::clone(&self.host), Arc::clone(&self.builder));
        let mut stop = self.stop.subscribe();
        tokio::spawn(async move {
            let mut serving = std::pin::pin!(builder.serve_connection(socket, service));
            let served = async {
                tokio::select! {
                    biased;
                    ended = serving.as_mut() => ended,
                    _ = stop.changed() => end(serving).await,
                }
            };
            let ended = connection.within_limits(served).await;
            if let Some(limit) = limit_of(&ended) {
                host.metrics().refusals().count(limit);
                tracing::debug!(limit = limit.key(), %peer, "a connection was given up");
            } else if let Ok(Err(error)) = ended {
                tracing::debug!(%error, %peer, "a connection ended early");
            }
            drop((permit, stop));
        });
    }

    /// Tells every connection to end after the request it has, and waits for the last.
    pub async fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
        self.stop.send_replace(());
        self.stop.closed().await;
    }
}

/// Ends a connection after the request it has, if it has one.
async fn end<S>(
    mut connection: Pin<&mut auto::Connection<'_, TokioIo<Watched<Socket>>, S, TokioExecutor>>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<Body>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
{
    // Once more, so that a request that has arrived is read: told to end before, the connection would
    // be closed over it.
    let polled = std::future::poll_fn(|cx| Poll::Ready(connection.as_mut().poll(cx))).await;
    if let Poll::Ready(ended) = polled {
        return ended;
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

/// Answers the requests of one connection, each an exchange on it until its answer is written.
fn service(
    host: Arc<Host>,
    connection: Arc<Connection>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<Body>,
    Error = Infallible,
    Future: Send + 'static,
> {
    service_fn(move |request: Request<Incoming>| {
        let (host, exchange) = (Arc::clone(&host), connection.begin(request.version()));
        async move {
            let mut response = server::respond(&host, request).await;
            exchange.answer(response.body().made_by().unwrap_or_else(Instant::now));
            response.body_mut().ends(exchange);
            Ok(response)
        }
    })
}

/// The limit that ended a connection, whether it was measured here or by the HTTP library.
fn limit_of(ended: &Result<Served, Limit>) -> Option<Limit> {
    match ended {
        Err(limit) => Some(*limit),
        Ok(Ok(())) => None,
        Ok(Err(error)) => {
            let error = error.downcast_ref::<hyper::Error>()?;
            error.is_parse_too_large().then_some(Limit::HeaderBytes)
        }
    }
}

fn builder(settings: &ServerSettings) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        // Measured by the connection, from the first byte on and apart from the time between requests.
        .header_read_timeout(None)
        .max_buf_size(settings.header_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.http2_streams)
        .max_header_list_size(u32::try_from(settings.header_bytes).unwrap_or(u32::MAX));
    builder
}
