//! A server of HTTP for tests of everything around one: written with `wstd` alone, it knows nothing of
//! the host that runs it.
//!
//! - `/hello` says what was asked for.
//! - `/echo` gives the body back as it comes.
//! - `/count`, by the header `lines`, writes so many lines, with a pause of the header `pause-ms` between.
//! - `/panic` stops before its answer, `/break` behind its beginning, `/spin` never answers, and `/none`
//!   gives an error for an answer.
//! - `/fetch`, with an address in the header `target`, asks another server and passes on its answer.

use wstd::http::body::Body;
use wstd::http::{Client, Error, Request, Response, StatusCode};
use wstd::time::Duration;

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    match request.uri().path() {
        "/hello" => Ok(hello(&request)),
        "/echo" => Ok(Response::new(request.into_body())),
        "/count" => Ok(count(&request, false)),
        "/break" => Ok(count(&request, true)),
        "/panic" => panic!("it was asked to"),
        "/spin" => spin(),
        "/none" => Err(Error::msg("it was asked to")),
        "/fetch" => fetch(&request).await,
        _ => Ok(status(StatusCode::NOT_FOUND, "nothing is there\n")),
    }
}

fn hello(request: &Request<Body>) -> Response<Body> {
    let (method, uri) = (request.method(), request.uri());
    let mut said = format!("{method} {uri}\n");
    for (name, value) in request.headers() {
        said.push_str(&format!("{name}: {}\n", value.to_str().unwrap_or("?")));
    }
    Response::new(said.into())
}

fn number(request: &Request<Body>, header: &str) -> u64 {
    let value = request.headers().get(header).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.parse().ok()).unwrap_or_default()
}

/// Lines that are written one by one, and then perhaps the end of it all.
fn count(request: &Request<Body>, breaks: bool) -> Response<Body> {
    let (lines, pause) = (number(request, "lines"), number(request, "pause-ms"));
    let written = futures_lite::stream::unfold(0, move |line| async move {
        if line == lines {
            assert!(!breaks, "it was asked to");
            return None;
        }
        if pause > 0 && line > 0 {
            wstd::time::Timer::after(Duration::from_millis(pause)).wait().await;
        }
        Some((format!("line {line}\n").into_bytes(), line + 1))
    });
    Response::new(Body::from_stream(written))
}

#[allow(clippy::empty_loop, reason = "it is what the tests are about")]
fn spin() -> ! {
    loop {}
}

async fn fetch(request: &Request<Body>) -> Result<Response<Body>, Error> {
    let target = request.headers().get("target").and_then(|target| target.to_str().ok());
    let outgoing = Request::get(target.unwrap_or_default()).body(Body::empty())?;
    match Client::new().send(outgoing).await {
        Ok(answer) => Ok(answer),
        Err(error) => Ok(status(StatusCode::BAD_GATEWAY, &format!("{error:?}\n"))),
    }
}

fn status(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(text.to_owned()));
    *response.status_mut() = status;
    response
}
