//! Calling a guest: the one file that names its exports.
//!
//! Whatever does not end in an answer of the guest's own leaves the store unusable by wasmtime's
//! rules, so the error says whether the instance may be kept.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wasmtime::component::Resource;

use super::contract::types::{self, Description, Failure};
use super::instance::{Guest, Instance, StartError, Starter};
use super::pool::Lease;
use super::stream::Emitter;
use crate::checks::Check;
use crate::ledger::{Bucket, Buckets, InstanceAccount};
use crate::limit::Limit;
use crate::nn::compute::Inline;
use crate::nn::graph::Graph;
use crate::registry::Version;
use crate::tensor::{NamedTensor, Tensor, element_count, total_bytes};
use crate::version::{Signature, TensorSpec};

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The guest says that the caller's input is wrong.
    #[error("{message}")]
    InvalidInput {
        /// In the guest's words.
        message: String,
        /// The tensor it is about.
        tensor: Option<String>,
    },
    /// The guest says that it cannot answer now.
    #[error("{0}")]
    Unavailable(String),
    /// The guest says that it failed.
    #[error("{0}")]
    Failed(String),
    /// The guest ended with something that is no answer.
    #[error("the model's answer cannot be used: {0}")]
    NoResponse(String),
    /// The guest trapped, was refused memory, or broke the contract.
    #[error("the model's code stopped: {0}")]
    Trap(String),
    /// The deadline passed while it ran.
    #[error("the deadline passed while the model was running")]
    Deadline,
}

impl CallError {
    /// Whether the instance is as good as before: only after an answer of the guest's own.
    pub fn keeps_instance(&self) -> bool {
        matches!(self, Self::InvalidInput { .. } | Self::Unavailable(_) | Self::Failed(_))
    }
}

/// One call, owned: it may move to another thread between two polls.
pub struct Call {
    /// The instance that answers.
    pub lease: Lease,
    /// The tensors it gets.
    pub inputs: Vec<NamedTensor>,
    /// The version it is a call of; the answer is checked against its signature.
    pub version: Arc<Version>,
    /// The request it is part of, for the guest's log lines.
    pub request: String,
    /// When the answer is due.
    pub deadline: Instant,
    /// Where partial answers go, if the caller asked for a stream.
    pub emitter: Option<Emitter>,
}

/// What a call came to.
pub struct Called {
    /// The answer, or why there is none.
    pub outcome: Result<Vec<NamedTensor>, CallError>,
    /// How long the guest's own code took.
    pub guest: Duration,
    /// How long its graphs took.
    pub compute: Duration,
    /// The limits it met.
    pub met: LimitsMet,
}

impl Call {
    /// Asks the guest, and gives the instance back if it is as good as before.
    pub async fn run(mut self) -> Called {
        let before = self.lease.instance().account.snapshot().buckets;
        let bytes = total_bytes(&self.inputs);
        let outcome = self.infer().await;
        settle(self.lease, &before, bytes, outcome)
    }

    async fn infer(&mut self) -> Result<Vec<NamedTensor>, CallError> {
        let instance = self.lease.instance();
        let request = std::mem::take(&mut self.request);
        instance.store.data_mut().begin_call(request, self.emitter.take());
        let handles = give(instance, std::mem::take(&mut self.inputs))?;
        let answering = poll_guest(instance, &handles);
        let answer = match tokio::time::timeout_at(self.deadline, answering).await {
            Err(_) => return Err(CallError::Deadline),
            Ok(Err(error)) => return Err(trap(instance, &error)),
            Ok(Ok(answer)) => answer,
        };
        instance.store.data_mut().end_call();
        match answer {
            Ok(outputs) => check_outputs(take(instance, outputs)?, &self.version.record.signature),
            Err(failure) => Err(guest_failure(failure)),
        }
    }
}

/// What a call came to that brought `bytes`, with the buckets as they were `before` it; gives the instance
/// back if it is as good as it was.
pub(super) fn settle(
    mut lease: Lease,
    before: &Buckets,
    bytes: u64,
    outcome: Result<Vec<NamedTensor>, CallError>,
) -> Called {
    let after = lease.instance().account.snapshot().buckets;
    let guest = Duration::from_nanos(after.guest.saturating_sub(before.guest));
    let compute = Duration::from_nanos(after.compute.saturating_sub(before.compute));
    lease.pool().guest_cost().learn(guest, bytes);
    let met = lease.instance().store.data().limits_met();
    if outcome.as_ref().map_or_else(CallError::keeps_instance, |_| true) {
        lease.give_back();
    }
    Called { outcome, guest, compute, met }
}

/// The limits that the last call of an instance met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimitsMet {
    /// What the guest asked for last and did not get; most guests fail then, and not all say why.
    pub refused: Option<Limit>,
    /// Whether log lines were dropped.
    pub log: bool,
}

fn give(
    instance: &mut Instance,
    inputs: Vec<NamedTensor>,
) -> Result<Vec<(String, Resource<Tensor>)>, CallError> {
    let state = instance.store.data_mut();
    inputs
        .into_iter()
        .map(|(name, tensor)| Ok((name, state.give_tensor(tensor)?)))
        .collect::<wasmtime::Result<_>>()
        .map_err(|error| CallError::NoResponse(error.to_string()))
}

fn take(
    instance: &mut Instance,
    outputs: Vec<(String, Resource<Tensor>)>,
) -> Result<Vec<NamedTensor>, CallError> {
    let state = instance.store.data_mut();
    outputs
        .into_iter()
        .map(|(name, handle)| Ok((name, state.take_tensor(handle)?)))
        .collect::<wasmtime::Result<_>>()
        .map_err(|error| CallError::NoResponse(error.to_string()))
}

type Answer = Result<Vec<(String, Resource<Tensor>)>, Failure>;

/// Polls the guest's `infer`.
async fn poll_guest(
    instance: &mut Instance,
    inputs: &[(String, Resource<Tensor>)],
) -> wasmtime::Result<Answer> {
    let Instance { store, guest, account, inline, .. } = instance;
    let call = async {
        match &*guest {
            Guest::Standard(guest) => guest.call_infer(store, inputs).await,
            Guest::Own(guest) => guest.call_infer(store, inputs).await,
            Guest::Http(_) => Err(wasmtime::format_err!("it serves HTTP and no tensors")),
        }
    };
    on_the_clock(account, inline, call).await
}

/// Polls a guest on the clock: `guest` while its stack is being polled, `wait` between. Runs that it
/// leaves to whoever polls are done here.
pub(super) async fn on_the_clock<T>(
    account: &mut InstanceAccount,
    inline: &Inline,
    call: impl Future<Output = T>,
) -> T {
    let attending = inline.attend();
    let mut call = pin!(call);
    poll_fn(|cx| {
        loop {
            account.enter(Bucket::Guest);
            let polled = call.as_mut().poll(cx);
            if polled.is_ready() || !attending.serve(account) {
                account.enter(Bucket::Wait);
                return polled;
            }
        }
    })
    .await
}

/// What wasmtime, which has no type for it, says of a store with as many handles as it may have.
const HANDLE_LIMIT: &str = "handle limit exceeded";

pub(super) fn trap(instance: &mut Instance, error: &wasmtime::Error) -> CallError {
    let state = instance.store.data_mut();
    if let Some(refused) = state.limiter.refused() {
        return CallError::Trap(refused.to_string());
    }
    if error.downcast_ref() == Some(&wasmtime::Trap::StackOverflow) {
        state.met(Limit::GuestStack);
        return CallError::Trap("call stack exhausted (engine.stack_bytes)".to_owned());
    }
    if error.root_cause().to_string().contains(HANDLE_LIMIT) {
        state.met(Limit::GuestHandles);
        return CallError::Trap("it has all the handles it may have (guest.handles)".to_owned());
    }
    // The root cause is one line; the backtrace of the guest goes to the operator.
    tracing::debug!(error = format!("{error:?}"), "a guest stopped");
    CallError::Trap(error.root_cause().to_string())
}

fn guest_failure(failure: Failure) -> CallError {
    match failure {
        Failure::InvalidInput(types::Problem { message, tensor }) => {
            CallError::InvalidInput { message, tensor }
        }
        Failure::Unavailable(problem) => CallError::Unavailable(problem.message),
        Failure::Failed(problem) => CallError::Failed(problem.message),
    }
}

/// An answer brings every declared output once. Shapes and datatypes are the engine's to say: graphs
/// are known to declare them wrongly.
fn check_outputs(
    outputs: Vec<NamedTensor>,
    signature: &Signature,
) -> Result<Vec<NamedTensor>, CallError> {
    for spec in &signature.outputs {
        match outputs.iter().filter(|(name, _)| *name == spec.name).count() {
            1 => {}
            0 => return Err(CallError::NoResponse(format!("it lacks the output {:?}", spec.name))),
            n => {
                let name = &spec.name;
                return Err(CallError::NoResponse(format!("it has the output {name:?} {n} times")));
            }
        }
    }
    if outputs.len() > signature.outputs.len() {
        let extra = outputs.iter().find(|(name, _)| !declares(signature, name));
        let name = extra.map_or("", |(name, _)| name);
        return Err(CallError::NoResponse(format!("it has the undeclared output {name:?}")));
    }
    Ok(outputs)
}

fn declares(signature: &Signature, name: &str) -> bool {
    signature.outputs.iter().any(|spec| spec.name == name)
}

/// Why a component could not say what it takes and gives.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum DescribeError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("describe did not return: {0}")]
    Trap(String),
    #[error("describe did not return within {0} ms (guest.start_timeout_ms)")]
    Timeout(u64),
    #[error(
        "describe says it is the graph {name:?}, and the version has no such graph; its graphs are {have:?}"
    )]
    NoGraph { name: String, have: Vec<String> },
    #[error("describe gives the signature's {0}")]
    Signature(String),
}

impl DescribeError {
    /// The check that the component does not pass; none where the host has no room for it now.
    pub fn check(&self) -> Option<Check> {
        match self {
            Self::Start(StartError::HostFull { .. }) => None,
            Self::Start(_) => Some(Check::Start),
            Self::Trap(_) | Self::Timeout(_) => Some(Check::Describe),
            Self::NoGraph { .. } | Self::Signature(_) => Some(Check::Signature),
        }
    }
}

/// The task of models that answer HTTP themselves.
pub const HTTP: &str = "http";

/// Starts an instance only to ask it what the model takes and gives.
///
/// # Errors
/// [`DescribeError`].
pub async fn describe(starter: &Starter) -> Result<Signature, DescribeError> {
    let mut instance = starter.start().await?;
    let limit = Duration::from_millis(starter.settings.start_timeout_ms);
    let store = &mut instance.store;
    let call = async {
        match &instance.guest {
            Guest::Standard(guest) => guest.call_describe(store).await,
            Guest::Own(guest) => guest.call_describe(store).await,
            // What it takes and gives is between its callers and itself.
            Guest::Http(_) => Ok(Description::Explicit(types::Signature {
                inputs: Vec::new(),
                outputs: Vec::new(),
                batch: false,
                task: Some(HTTP.to_owned()),
            })),
        }
    };
    let description = tokio::time::timeout(limit, call)
        .await
        .map_err(|_| DescribeError::Timeout(starter.settings.start_timeout_ms))?;
    let description = description.map_err(|error| match trap(&mut instance, &error) {
        CallError::Trap(reason) => DescribeError::Trap(reason),
        other => DescribeError::Trap(other.to_string()),
    })?;
    match description {
        Description::Explicit(signature) => explicit(signature),
        Description::SameAsGraph(name) => {
            let graphs = &starter.context.graphs;
            let graph = graphs.get(name.as_str()).map(|graph: &Arc<Graph>| graph.signature());
            graph.cloned().ok_or_else(|| DescribeError::NoGraph {
                name: name.clone(),
                have: graphs.keys().map(ToString::to_string).collect(),
            })
        }
    }
}

/// Tensors of one side of a signature; a request may bring no more (`limits.inputs`).
const MAX_TENSORS: usize = 1024;

/// Bytes of a tensor's or task's name: it comes back in every answer.
const MAX_NAME_BYTES: usize = 1024;

fn explicit(signature: types::Signature) -> Result<Signature, DescribeError> {
    let batch = signature.batch;
    let task = signature.task;
    if let Some(task) = task.as_ref().filter(|task| task.is_empty() || task.len() > MAX_NAME_BYTES)
    {
        return wrong(format!("task a name of {} bytes, of 1 to {MAX_NAME_BYTES}", task.len()));
    }
    Ok(Signature {
        inputs: specs("input", signature.inputs, batch)?,
        outputs: specs("output", signature.outputs, batch)?,
        batch,
        task,
    })
}

fn wrong<T>(problem: String) -> Result<T, DescribeError> {
    Err(DescribeError::Signature(problem))
}

fn specs(
    side: &str,
    specs: Vec<types::TensorSpec>,
    batch: bool,
) -> Result<Vec<TensorSpec>, DescribeError> {
    if specs.len() > MAX_TENSORS {
        return wrong(format!("{side}s as {}, over the limit of {MAX_TENSORS}", specs.len()));
    }
    let mut names = std::collections::BTreeSet::new();
    for spec in &specs {
        let (name, shape) = (&spec.name, &spec.shape);
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            let bytes = name.len();
            return wrong(format!("{side}s a name of {bytes} bytes, of 1 to {MAX_NAME_BYTES}"));
        }
        if !names.insert(name) {
            return wrong(format!("{side} {name:?} twice"));
        }
        if let Some(dim) = shape.iter().find(|dim| **dim < -1) {
            return wrong(format!("{side} {name:?} an axis of {dim}; -1 is one that may vary"));
        }
        let least: Vec<usize> =
            shape.iter().map(|dim| usize::try_from(*dim).unwrap_or(1)).collect();
        if let Err(error) = element_count(&least) {
            return wrong(format!("{side} {name:?} a shape that no tensor has: {error}"));
        }
        if batch && shape.is_empty() {
            return wrong(format!("{side} {name:?} no axis that could be its batch"));
        }
    }
    let converted = specs.into_iter().map(|spec| TensorSpec {
        name: spec.name,
        datatype: spec.datatype.into(),
        shape: spec.shape,
    });
    Ok(converted.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, shape: &[i64]) -> types::TensorSpec {
        let datatype = types::Datatype::Fp32;
        types::TensorSpec { name: name.to_owned(), datatype, shape: shape.to_vec() }
    }

    fn refusal(inputs: Vec<types::TensorSpec>, batch: bool) -> String {
        let outputs = vec![spec("y", &[-1])];
        let signature = types::Signature { inputs, outputs, batch, task: None };
        explicit(signature).unwrap_err().to_string()
    }

    #[test]
    fn a_signature_that_cannot_be_served_is_refused_with_its_tensor() {
        for (inputs, word) in [
            (vec![spec("x", &[1]), spec("x", &[2])], "twice"),
            (vec![spec("x", &[-2])], "axis of -2"),
            (vec![spec("", &[1])], "0 bytes"),
            (vec![spec(&"x".repeat(2000), &[1])], "2000 bytes"),
            (vec![spec("x", &[1; 33])], "rank 33"),
            (vec![spec("x", &[i64::MAX, i64::MAX])], "more elements"),
            (vec![spec("x", &[1]); MAX_TENSORS + 1], "over the limit of 1024"),
        ] {
            let refusal = refusal(inputs, false);
            assert!(refusal.contains(word), "{refusal}");
            assert!(refusal.contains("input"), "{refusal}");
        }
        assert!(refusal(vec![spec("x", &[])], true).contains("batch"));
    }

    #[test]
    fn a_signature_that_can_be_served_stays_as_it_is() {
        let inputs = vec![spec("x", &[-1, 3]), spec("z", &[])];
        let signature = types::Signature { inputs, outputs: vec![], batch: false, task: None };
        let kept = explicit(signature).unwrap();
        assert_eq!(kept.inputs[0].shape, [-1, 3]);
        assert!(kept.inputs[1].shape.is_empty() && kept.outputs.is_empty());
    }
}
