//! The request pipeline on one screen, and the server's life from listening to drained.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;

use crate::engine::call::Call;
use crate::engine::deployment::Deployment;
use crate::engine::pool::Lease;
use crate::error::{Error, Kind};
use crate::grpc;
use crate::host::Host;
use crate::http::accept::Connections;
use crate::http::account::Account;
use crate::http::admit::{Permit, Receiving, blame};
use crate::http::body::Body;
use crate::http::openai::{self, OpenAi, Operation};
use crate::http::protocol::Protocol;
use crate::http::request_body::{self, RequestBody};
use crate::http::route::{Called, Route, route};
use crate::http::stream::{self, Answer, Request as Decoded, Running};
use crate::http::{
    authenticate, compress, control, decode, documents, encode, generate as generation, handler,
    management, shed,
};
use crate::registry::{Clock as _, Snapshot, SystemClock};
use crate::tensor::NamedTensor;

/// Answers one request: accounts for what [`answer`] comes to.
pub async fn respond(host: &Arc<Host>, request: Request<Incoming>) -> Response<Body> {
    let under_way = host.requests().begin();
    let ticket = host.request_ids().ticket();
    let (head, body) = request.into_parts();
    let (body, rest) = request_body::lend(&head, body);
    let mut account = Account::open(host, &head, ticket);
    let result = answer(host, head, body, ticket, &mut account).await;
    let mut response = account.finish(result);
    rest.discard();
    response.body_mut().track(under_way);
    response
}

/// The pipeline: every `?` is a stage that may refuse. One snapshot serves from route to encode.
async fn answer(
    host: &Arc<Host>,
    head: http::request::Parts,
    body: RequestBody,
    ticket: u64,
    account: &mut Account,
) -> Result<Response<Body>, Error> {
    let snapshot = host.snapshot();
    let caller = authenticate::authenticate(&head)?;
    if account.protocol() == Protocol::Grpc {
        return grpc::answer(host, caller, head, body, ticket, account).await;
    }
    let route = route(&head.method, head.uri.path(), &snapshot, ticket)?;
    account.routed(&route);
    match route {
        Route::Infer(called) => {
            let response = infer(host, &caller, called, &head, body, account).await?;
            compress::compress(&head.headers, response).await
        }
        Route::Control(control) => control::answer(host, &head, body, control).await,
        Route::Generate(called, stream) => {
            let asked = Asked::Generate { called, stream };
            generate(host, &caller, &snapshot, asked, (&head, body), ticket, account).await
        }
        Route::Handler(called, prefix) => {
            handler::answer(host, &caller, &called, prefix, (head, body), account).await
        }
        Route::OpenAi(OpenAi::Call(operation)) => {
            let asked = Asked::OpenAi(operation);
            generate(host, &caller, &snapshot, asked, (&head, body), ticket, account).await
        }
        Route::OpenAi(OpenAi::Models) => Ok(openai::models(&snapshot)),
        Route::OpenAi(OpenAi::Model(id)) => openai::model(&snapshot, &id),
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

/// The data path over REST: receive → decode → [`call`] → encode.
async fn infer(
    host: &Arc<Host>,
    caller: &authenticate::Caller,
    called: Called,
    head: &http::request::Parts,
    body: RequestBody,
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
    request.timeout.into_iter().for_each(|timeout| receiving.due(timeout));
    let answer = call(host, &called, request.inputs, receiving, account).await;
    let (outputs, permit) =
        answer.map_err(|error| blame(error, request.timeout, limits.request_timeout_ms))?;

    account.encode(|| {
        encode::infer(&called, request.id.as_deref(), &request.outputs, &outputs, permit)
    })
}

/// What a protocol is asked for that may answer with a stream.
enum Asked {
    /// The path names the model.
    Generate { called: Called, stream: bool },
    /// The body names it.
    OpenAi(Operation),
}

/// The data path of the protocols that speak of texts: the same, but that the version is known only when
/// the body has been read, and that the answer may begin before the call has ended.
async fn generate(
    host: &Arc<Host>,
    caller: &authenticate::Caller,
    snapshot: &Snapshot,
    asked: Asked,
    (head, body): (&http::request::Parts, RequestBody),
    ticket: u64,
    account: &mut Account,
) -> Result<Response<Body>, Error> {
    let limits = host.admission().limits();
    let mut receiving = host.admission().receive(caller, head)?;
    let decoding = async {
        match asked {
            Asked::OpenAi(Operation::Transcriptions) => {
                decode::form(head, body, &mut receiving, limits).await
            }
            _ => decode::fields(head, body, &mut receiving, limits).await,
        }
    };
    let fields = Account::time(&mut account.stages.decode, decoding).await?;
    let request = match asked {
        Asked::Generate { called, stream } => generation::decode(called, &fields, stream, limits)?,
        Asked::OpenAi(operation) => {
            let (id, now_s) = (account.id.as_str(), SystemClock.now_ms() / 1000);
            let context = openai::Context { snapshot, ticket, id, now_s };
            openai::decode(operation, &fields, &context)?
        }
    };
    drop(fields);
    let Decoded { called, inputs, answer } = request;
    account.called(&called);
    host.ledger().called(&caller.tenant, &called.version.model);

    let (ready, permit) = acquired(host, &called, inputs, receiving, account).await?;
    match answer {
        Answer::Whole(encode) => {
            let outputs = answered(host, ready, account).await?;
            account.encode(|| encode::document((encode::JSON, encode), &outputs, permit))
        }
        Answer::Text(content_type, encode) => {
            let outputs = answered(host, ready, account).await?;
            account.encode(|| encode::document((content_type, encode), &outputs, permit))
        }
        Answer::Stream(events) => {
            let (deployment, call) = ready;
            stream::begin(host, deployment, call, permit, events, account).await
        }
    }
}

/// What a protocol of tensors does with those it decoded: admit → acquire → call.
pub(crate) async fn call(
    host: &Host,
    called: &Called,
    inputs: Vec<NamedTensor>,
    receiving: Receiving,
    account: &mut Account,
) -> Result<(Vec<NamedTensor>, Permit), Error> {
    let (ready, permit) = acquired(host, called, inputs, receiving, account).await?;
    Ok((answered(host, ready, account).await?, permit))
}

/// The same where the protocol sends what the model emits meanwhile.
///
/// # Errors
/// What the call fails with before it has begun.
pub(crate) async fn begin(
    host: &Arc<Host>,
    called: &Called,
    inputs: Vec<NamedTensor>,
    receiving: Receiving,
    account: &mut Account,
) -> Result<(Running, Permit), Error> {
    let ((deployment, call), mut permit) =
        acquired(host, called, inputs, receiving, account).await?;
    Ok((Running::begin(host, deployment, call, &mut permit)?, permit))
}

/// admit → acquire: a call that is ready to run, and the permit for it.
async fn acquired(
    host: &Host,
    called: &Called,
    inputs: Vec<NamedTensor>,
    receiving: Receiving,
    account: &mut Account,
) -> Result<((Arc<Deployment>, Call), Permit), Error> {
    account.batch(called.version.record.signature.rows(&inputs));
    let (deployment, lease, permit) =
        leased(host, called, Speaks::Tensors, receiving, account).await?;
    let (version, request) = (Arc::clone(&called.version), account.id.clone());
    let deadline = permit.deadline();
    let call = Call { lease, inputs, version, request, deadline, emitter: None };
    Ok(((deployment, call), permit))
}

/// What a model is asked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// Calls with tensors.
    Tensors,
    /// Requests that it answers itself.
    Http,
}

impl Speaks {
    /// Whether a version is asked in what it speaks.
    fn check(self, called: &Called, deployment: &Deployment) -> Result<(), Error> {
        let model = &called.version.model;
        let (what, remedy) = match (self, deployment.serves_http()) {
            (Self::Tensors, false) | (Self::Http, true) => return Ok(()),
            (Self::Tensors, true) => ("HTTP and no tensors", format!("ask it at /fn/{model}/")),
            (Self::Http, false) => {
                ("tensors and no HTTP", format!("POST to /v2/models/{model}/infer"))
            }
        };
        Err(Error::new(Kind::BadRequest, format!("the model {model} serves {what}")).remedy(remedy))
    }
}

/// admit → acquire: an instance, and the permit to use it.
pub(crate) async fn leased(
    host: &Host,
    called: &Called,
    speaks: Speaks,
    receiving: Receiving,
    account: &mut Account,
) -> Result<(Arc<Deployment>, Lease, Permit), Error> {
    host.unloaded().check(&called.version.model)?;
    let permit = host.admission().admit(receiving)?;
    let deadline = permit.deadline();
    let loading = host.deployments().get(&called.version, deadline);
    let deployment = Account::time(&mut account.stages.load, loading).await?;
    deployment.check_quarantine()?;
    speaks.check(called, &deployment)?;
    shed::pass(called, &deployment, host.admission().limits(), permit.left())?;
    let acquiring = deployment.pool().acquire(deadline);
    let lease = Account::time(&mut account.stages.acquire, acquiring).await?;
    account.leased(&lease);
    Ok((deployment, lease, permit))
}

/// call: what a version answers.
async fn answered(
    host: &Host,
    (deployment, call): (Arc<Deployment>, Call),
    account: &mut Account,
) -> Result<Vec<NamedTensor>, Error> {
    let answer = deployment.answer(call, host.background()).await;
    account.answered(&answer);
    answer.outcome.map_err(|error| encode::call_failed(error, answer.met.refused))
}

/// What a drain came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Requests of any kind that ended while the server drained: their last byte was written, or their
    /// caller left.
    pub finished: u64,
    /// Requests that were still under way when the time was up, and were cut.
    pub cut: u64,
}

/// Serves `listener` until `stop` resolves, then drains: takes no connection but those the kernel has,
/// answers every request that has been sent, and gives up on the rest after `server.drain_timeout_s`.
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
    let connections = Connections::new(Arc::clone(&host));
    connections.accept_until(&listener, stop).await;
    host.begin_drain();
    host.services().end().await;
    let requests = host.requests();
    let (under_way, ended) = (requests.under_way(), requests.ended());
    tracing::info!(under_way, "draining");
    connections.accept_rest(listener);
    let limit = Duration::from_secs(host.config().server.drain_timeout_s);
    let _ = tokio::time::timeout(limit, connections.drain()).await;
    let (cut, finished) = (requests.under_way(), requests.ended().saturating_sub(ended));
    host.end_drain();
    Ok(Drained { finished, cut })
}
