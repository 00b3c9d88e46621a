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
use super::instance::{Guest, Instance, Starter};
use super::memory::Refusal;
use crate::ledger::Bucket;
use crate::limit::Limit;
use crate::nn::graph::Graph;
use crate::tensor::{NamedTensor, Tensor};
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

/// Asks the guest to answer `inputs`; the answer is checked against `signature`.
///
/// # Errors
/// [`CallError`].
pub async fn infer(
    instance: &mut Instance,
    inputs: Vec<NamedTensor>,
    signature: &Signature,
    request: &str,
    deadline: Instant,
) -> Result<Vec<NamedTensor>, CallError> {
    instance.store.data_mut().begin_call(request.to_owned());
    let handles = give(instance, inputs)?;
    let answer = match tokio::time::timeout_at(deadline, poll_guest(instance, &handles)).await {
        Err(_) => return Err(CallError::Deadline),
        Ok(Err(error)) => return Err(trap(instance, &error)),
        Ok(Ok(answer)) => answer,
    };
    instance.store.data_mut().end_call();
    match answer {
        Ok(outputs) => check_outputs(take(instance, outputs)?, signature),
        Err(failure) => Err(guest_failure(failure)),
    }
}

/// The limits that the last call of an instance met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimitsMet {
    /// What the guest asked for last and did not get; most guests fail then, and not all say why.
    pub refused: Option<Limit>,
    /// Whether log lines were dropped.
    pub log: bool,
}

/// The limits that the last call of `instance` met.
pub fn limits_met(instance: &Instance) -> LimitsMet {
    instance.store.data().limits_met()
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

/// Polls the guest's `infer`, on the clock: `guest` while its stack is being polled, `wait` between.
async fn poll_guest(
    instance: &mut Instance,
    inputs: &[(String, Resource<Tensor>)],
) -> wasmtime::Result<Answer> {
    let Instance { store, guest, account, .. } = instance;
    let mut call = pin!(async {
        match &*guest {
            Guest::Standard(guest) => guest.call_infer(store, inputs).await,
            Guest::Own(guest) => guest.call_infer(store, inputs).await,
        }
    });
    poll_fn(|cx| {
        account.enter(Bucket::Guest);
        let polled = call.as_mut().poll(cx);
        account.enter(Bucket::Wait);
        polled
    })
    .await
}

fn trap(instance: &Instance, error: &wasmtime::Error) -> CallError {
    match instance.store.data().limiter.refused() {
        Some(Refusal::Memory(wanted, limit)) => CallError::Trap(format!(
            "it asked for {wanted} bytes of memory, over the limit of {limit} (guest.memory_bytes)"
        )),
        Some(Refusal::Table(wanted, limit)) => CallError::Trap(format!(
            "it asked for {wanted} table elements, over the limit of {limit} (guest.table_elements)"
        )),
        // The root cause is one line; the backtrace of the guest goes to the operator.
        None => {
            tracing::debug!(error = format!("{error:?}"), "a guest stopped");
            CallError::Trap(error.root_cause().to_string())
        }
    }
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
    Start(#[from] super::instance::StartError),
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
        }
    };
    let description = tokio::time::timeout(limit, call)
        .await
        .map_err(|_| DescribeError::Timeout(starter.settings.start_timeout_ms))?
        .map_err(|error| DescribeError::Trap(error.root_cause().to_string()))?;
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

fn explicit(signature: types::Signature) -> Result<Signature, DescribeError> {
    let specs = |side: &str, specs: Vec<types::TensorSpec>| {
        let mut names = std::collections::BTreeSet::new();
        for spec in &specs {
            if !names.insert(spec.name.clone()) {
                let name = &spec.name;
                return Err(DescribeError::Signature(format!("{side} {name:?} twice")));
            }
            if let Some(dim) = spec.shape.iter().find(|dim| **dim < -1) {
                let name = &spec.name;
                return Err(DescribeError::Signature(format!("{side} {name:?} an axis of {dim}")));
            }
        }
        Ok(specs
            .into_iter()
            .map(|spec| TensorSpec {
                name: spec.name,
                datatype: spec.datatype.into(),
                shape: spec.shape,
            })
            .collect())
    };
    Ok(Signature {
        inputs: specs("input", signature.inputs)?,
        outputs: specs("output", signature.outputs)?,
        batch: signature.batch,
        task: signature.task,
    })
}
