//! The least that a server over HTTP does: hyper, and a handler that collects the body into one aligned
//! buffer and sends it back. What is beyond it is Modelet's own.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use modelet_host::tensor::AlignedBuffer;
use tokio::net::TcpListener;

/// Serves at `address` until the process ends.
pub async fn serve(address: SocketAddr) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            // A client that hangs up is no news.
            let _ = builder.serve_connection(TokioIo::new(stream), service_fn(echo)).await;
        });
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut body = request.into_body();
    let length = usize::try_from(http_body::Body::size_hint(&body).lower()).unwrap_or(0);
    let mut buffer = AlignedBuffer::with_capacity(length);
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            buffer.extend(&data);
        }
    }
    Ok(Response::new(Full::new(buffer.freeze())))
}
