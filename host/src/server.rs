//! The request pipeline on one screen, and the server's life from listening to drained.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;

use crate::engine::call;
use crate::error::Error;
use crate::host::Host;
use crate::http::account::Account;
use crate::http::body::Body;
use crate::http::route::{Called, Route, route};
use crate::http::{accept, authenticate, decode, documents, encode, management, shed};
use crate::limit::Limit;

/// Answers one request: accounts for what [`answer`] comes to.
pub async fn respond(host: &Arc<Host>, request: Request<Incoming>) -> Response<Body> {
    let ticket = host.request_ids().ticket();
    let (head, body) = request.into_parts();
    let mut account = Account::open(host.metrics(), host.request_ids(), &head, ticket);
    let result = answer(host, head, body, ticket, &mut account).await;
    account.finish(result)
}

/// The pipeline: every `?` is a stage that may refuse. One snapshot serves from route to encode.
async fn answer(
    host: &Arc<Host>,
    head: http::request::Parts,
    body: Incoming,
    ticket: u64,
    account: &mut Account,
) -> Result<Response<Body>, Error> {
    let snapshot = host.snapshot();
    let caller = authenticate::authenticate(&head)?;
    let route = route(&head.method, head.uri.path(), &snapshot, ticket)?;
    account.routed(&route);
    match route {
        Route::Infer(called) => infer(host, &caller, called, &head, body, account).await,
        Route::Document(document) => documents::answer(host, &snapshot, &document),
        Route::Healthz => Ok(documents::healthz()),
        Route::Readyz => documents::readyz(host),
        Route::Metrics => Ok(host.metrics().answer(host)),
        Route::Management => {
            authenticate::guard_management(&head, &host.config().server.hosts)?;
            management::answer(host, Request::from_parts(head, body)).await
        }
    }
}

/// The data path: receive → decode → admit → acquire → call → encode.
async fn infer(
    host: &Host,
    caller: &authenticate::Caller,
    called: Called,
    head: &http::request::Parts,
    body: Incoming,
    account: &mut Account,
) -> Result<Response<Body>, Error> {
    let (version, limits) = (&called.version, host.admission().limits());
    let signature = &version.record.signature;
    host.ledger().called(&caller.tenant, &version.model);

    let mut receiving = host.admission().receive(caller, head)?;
    if let Some(deployment) = host.deployments().find(version) {
        shed::pass(&called, &deployment, limits, receiving.left())?;
    }
    let decoding = decode::infer(head, body, &mut receiving, limits, signature);
    let request = Account::time(&mut account.stages.decode, decoding).await?;
    let permit = host.admission().admit(receiving)?;
    let deadline = permit.deadline();

    let deployment = host.deployments().get(version).await?;
    shed::pass(&called, &deployment, limits, permit.left())?;
    let acquiring = deployment.pool().acquire(deadline);
    let mut lease = Account::time(&mut account.stages.acquire, acquiring).await?;

    let begun = Instant::now();
    let before = lease.instance().account.snapshot().buckets;
    let calling = call::infer(lease.instance(), request.inputs, signature, &account.id, deadline);
    let outcome = calling.await;
    deployment.pace().record(begun.elapsed());
    let after = lease.instance().account.snapshot().buckets;
    account.stages.guest = Duration::from_nanos(after.guest.saturating_sub(before.guest));
    account.stages.compute = Duration::from_nanos(after.compute.saturating_sub(before.compute));
    let met = call::limits_met(lease.instance());
    if met.log {
        account.met(Limit::GuestLog);
    }
    if outcome.as_ref().map_or_else(call::CallError::keeps_instance, |_| true) {
        lease.give_back();
    }
    let outputs = outcome.map_err(|error| encode::call_failed(error, met.refused))?;

    encode::infer(&called, request.id.as_deref(), &request.outputs, &outputs, permit)
}

/// What a drain came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Requests that were under way when it began, and have been answered.
    pub finished: u64,
    /// Requests that were still under way when the time was up, and were cut.
    pub cut: u64,
}

/// Serves `listener` until `stop` resolves, then drains: takes no new connection, answers every request
/// under way, and gives up on the rest after `server.drain_timeout_s`.
///
/// # Errors
/// When the listener has no address.
pub async fn serve(
    host: Arc<Host>,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> std::io::Result<Drained> {
    let address: SocketAddr = listener.local_addr()?;
    tracing::info!(%address, "listening");
    let graceful = GracefulShutdown::new();
    accept::run(listener, Arc::clone(&host), &graceful, stop).await;
    host.begin_drain();
    let under_way = host.admission().inflight_requests();
    let limit = Duration::from_secs(host.config().server.drain_timeout_s);
    tracing::info!(under_way, "draining");
    let _ = tokio::time::timeout(limit, graceful.shutdown()).await;
    let cut = host.admission().inflight_requests();
    host.end_drain();
    Ok(Drained { finished: under_way.saturating_sub(cut), cut })
}
