//! Accept: connections, each with a permit taken before it is accepted, so that a flood waits in the
//! kernel's queue and not in our memory.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::config::ServerSettings;
use crate::host::Host;
use crate::server;

/// Pause after `accept` failed, most often for want of descriptors: connections end meanwhile.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Streams one HTTP/2 connection may have open, as most servers allow.
const HTTP2_STREAMS: u32 = 256;

/// Accepts connections until `stop` resolves; what is under way then is left to `graceful`.
pub async fn run(
    listener: TcpListener,
    host: Arc<Host>,
    graceful: &GracefulShutdown,
    stop: impl Future<Output = ()>,
) {
    let permits = Arc::new(Semaphore::new(host.config().server.connections as usize));
    let builder = Arc::new(builder(&host.config().server));
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => return,
            accepted = accept(&listener, &permits) => accepted,
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
        let connection = builder
            .serve_connection(
                TokioIo::new(stream),
                service_fn({
                    let host = Arc::clone(&host);
                    move |request: Request<Incoming>| {
                        let host = Arc::clone(&host);
                        async move { Ok::<_, Infallible>(server::respond(&host, request).await) }
                    }
                }),
            )
            .into_owned();
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = watched.await {
                tracing::debug!(%error, %peer, "a connection ended early");
            }
            drop(permit);
        });
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits)
        .acquire_owned()
        .await
        .map_err(|_| std::io::Error::other("the connection semaphore is closed"))?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, permit))
}

fn builder(settings: &ServerSettings) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(settings.header_timeout_s))
        .max_buf_size(settings.header_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_header_list_size(u32::try_from(settings.header_bytes).unwrap_or(u32::MAX));
    builder
}
