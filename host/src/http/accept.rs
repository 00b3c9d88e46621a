//! Accept: connections, each with a permit taken before it is accepted, so that a flood waits in the
//! kernel's queue and not in our memory.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::body::Body;
use super::connection::{Connection, Times, Watched};
use crate::config::ServerSettings;
use crate::host::Host;
use crate::limit::{Limit, Refusals};
use crate::server;

/// Pause after `accept` failed, most often for want of descriptors: connections end meanwhile.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// A connection whose service never fails, as the graceful shutdown hands it on.
type Served = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Accepts connections until `stop` resolves; what is under way then is left to `graceful`.
pub async fn run(
    listener: TcpListener,
    host: Arc<Host>,
    graceful: &GracefulShutdown,
    stop: impl Future<Output = ()>,
) {
    let permits = Arc::new(Semaphore::new(host.config().server.connections as usize));
    let builder = Arc::new(builder(&host.config().server));
    let times = Times::new(&host.config().server, host.admission().limits());
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => return,
            accepted = accept(&listener, &permits, host.metrics().refusals()) => accepted,
        };
        let (stream, peer, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        // Small answers must not wait for the peer's acknowledgement of the last one.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, %peer, "cannot set TCP_NODELAY");
        }
        let connection = Connection::new(times, Instant::now());
        let serving = builder
            .serve_connection(
                TokioIo::new(Watched::new(stream, Arc::clone(&connection))),
                service(Arc::clone(&host), Arc::clone(&connection)),
            )
            .into_owned();
        let watched = graceful.watch(serving);
        let host = Arc::clone(&host);
        tokio::spawn(async move {
            let ended = connection.within_limits(watched).await;
            if let Some(limit) = limit_of(&ended) {
                host.metrics().refusals().count(limit);
                tracing::debug!(limit = limit.key(), %peer, "a connection was given up");
            } else if let Ok(Err(error)) = ended {
                tracing::debug!(%error, %peer, "a connection ended early");
            }
            drop(permit);
        });
    }
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
            exchange.answer(Instant::now());
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

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    refusals: &Refusals,
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = match Arc::clone(permits).try_acquire_owned() {
        Ok(permit) => permit,
        Err(_) => {
            // Whoever comes now waits in the kernel's queue until a connection ends.
            refusals.count(Limit::Connections);
            let next = Arc::clone(permits).acquire_owned().await;
            next.map_err(|_| std::io::Error::other("the connection semaphore is closed"))?
        }
    };
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, permit))
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
