//! Partial answers on their way from a running guest to its caller.
//!
//! The way holds so many bytes; a guest that emits more waits until the caller has read some, so that a
//! slow reader costs the host no memory. It ends when the call ends, whatever became of it.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::registry::Version;
use crate::tensor::{NamedTensor, total_bytes};
use crate::version::Signature;

/// What a partial answer takes at least: its names, shapes and places in queues.
const LEAST_BYTES: u32 = 256;

/// The guest's end.
#[derive(Debug)]
pub struct Emitter {
    sender: mpsc::Sender<Partial>,
    /// Bytes that are still free on the way.
    room: Arc<Semaphore>,
    /// Bytes of the whole way; `limits.stream_bytes`.
    limit: u32,
    /// The version it is a call of, whose outputs are emitted.
    version: Arc<Version>,
}

/// The caller's end.
#[derive(Debug)]
pub struct Partials(mpsc::Receiver<Partial>);

/// A partial answer; it takes room on the way until it is dropped.
#[derive(Debug)]
pub struct Partial {
    /// Some of the version's outputs.
    pub outputs: Vec<NamedTensor>,
    _room: OwnedSemaphorePermit,
}

/// Why a partial answer is not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum EmitError {
    #[error("the model declares no such output")]
    Undeclared { tensor: String },
    #[error("a partial answer has it twice")]
    Twice { tensor: String },
    #[error("it is {given}, and the model declares {wanted}")]
    Datatype { tensor: String, given: &'static str, wanted: &'static str },
    #[error("a partial answer of {bytes} bytes is over the limit of {limit} (limits.stream_bytes)")]
    TooLarge { bytes: u64, limit: u32 },
    #[error("the caller has left")]
    Gone,
}

impl EmitError {
    /// The tensor it is about, if it is about one.
    pub fn tensor(&self) -> Option<&str> {
        match self {
            Self::Undeclared { tensor }
            | Self::Twice { tensor }
            | Self::Datatype { tensor, .. } => Some(tensor),
            Self::TooLarge { .. } | Self::Gone => None,
        }
    }
}

/// A way for partial answers of a call of `version` that holds `limit` bytes.
pub fn channel(version: Arc<Version>, limit: u32) -> (Emitter, Partials) {
    // Bytes run out before places do.
    let places = (limit / LEAST_BYTES).max(1) as usize;
    let (sender, receiver) = mpsc::channel(places);
    let room = Arc::new(Semaphore::new(limit as usize));
    (Emitter { sender, room, limit, version }, Partials(receiver))
}

impl Emitter {
    /// Sends a partial answer as soon as there is room for it.
    ///
    /// # Errors
    /// [`EmitError`].
    pub async fn emit(&self, outputs: Vec<NamedTensor>) -> Result<(), EmitError> {
        check(&outputs, &self.version.record.signature)?;
        let bytes = total_bytes(&outputs).max(u64::from(LEAST_BYTES.min(self.limit)));
        let (limit, too_large) = (self.limit, EmitError::TooLarge { bytes, limit: self.limit });
        let bytes = u32::try_from(bytes).ok().filter(|bytes| *bytes <= limit).ok_or(too_large)?;
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await;
        let partial = Partial { outputs, _room: room.map_err(|_| EmitError::Gone)? };
        self.sender.send(partial).await.map_err(|_| EmitError::Gone)
    }
}

impl Partials {
    /// The next partial answer; none when the call has ended.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Partial>> {
        self.0.poll_recv(cx)
    }
}

/// A partial answer brings some of the declared outputs, each once.
fn check(outputs: &[NamedTensor], signature: &Signature) -> Result<(), EmitError> {
    for (place, (name, tensor)) in outputs.iter().enumerate() {
        let Some(spec) = signature.outputs.iter().find(|spec| spec.name == *name) else {
            return Err(EmitError::Undeclared { tensor: name.clone() });
        };
        if outputs.iter().take(place).any(|(earlier, _)| earlier == name) {
            return Err(EmitError::Twice { tensor: name.clone() });
        }
        if spec.datatype != tensor.datatype() {
            let (given, wanted) = (tensor.datatype().as_str(), spec.datatype.as_str());
            return Err(EmitError::Datatype { tensor: name.clone(), given, wanted });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::future::poll_fn;

    use bytes::Bytes;

    use super::*;
    use crate::digest::Digest;
    use crate::tensor::{Datatype, Tensor};
    use crate::version::{
        Annotations, BackendChoice, BlobRef, PoolPolicy, TensorSpec, VersionRecord,
    };

    fn version() -> Arc<Version> {
        let output =
            |name: &str, datatype| TensorSpec { name: name.to_owned(), datatype, shape: vec![-1] };
        let outputs = vec![output("y", Datatype::Uint8), output("z", Datatype::Fp32)];
        let record = VersionRecord {
            component: BlobRef { digest: Digest::of(b""), bytes: 0 },
            assets: BTreeMap::new(),
            signature: Signature { outputs, ..Signature::default() },
            backend: BackendChoice::Auto,
            config: BTreeMap::new(),
            pool: PoolPolicy::default(),
        };
        Arc::new(Version {
            model: "m".parse().unwrap(),
            name: "1".parse().unwrap(),
            digest: record.digest(),
            record,
            annotations: Annotations::default(),
            annotations_epoch: 0,
            created_ms: 0,
            actor: String::new(),
            epoch: 0,
        })
    }

    fn bytes(name: &str, count: usize) -> NamedTensor {
        let data = Bytes::from(vec![7; count]);
        (name.to_owned(), Tensor::new(Datatype::Uint8, vec![count], data).unwrap())
    }

    #[tokio::test]
    async fn a_guest_waits_while_its_caller_does_not_read() {
        let (emitter, mut partials) = channel(version(), 1000);
        for _ in 0..2 {
            emitter.emit(vec![bytes("y", 500)]).await.unwrap();
        }
        let mut third = Box::pin(emitter.emit(vec![bytes("y", 1)]));
        let polled = poll_fn(|cx| Poll::Ready(third.as_mut().poll(cx))).await;
        assert!(polled.is_pending());
        let first = poll_fn(|cx| partials.poll_next(cx)).await.unwrap();
        assert_eq!(first.outputs, [bytes("y", 500)]);
        let polled = poll_fn(|cx| Poll::Ready(third.as_mut().poll(cx))).await;
        assert!(polled.is_pending(), "what is read takes room until it is written");
        drop(first);
        third.await.unwrap();
        drop(emitter);
        assert!(poll_fn(|cx| partials.poll_next(cx)).await.is_some());
        assert!(poll_fn(|cx| partials.poll_next(cx)).await.is_some());
        assert!(poll_fn(|cx| partials.poll_next(cx)).await.is_none());
    }

    #[tokio::test]
    async fn many_small_answers_take_room_for_what_is_kept_of_them() {
        let (emitter, _partials) = channel(version(), 10 * LEAST_BYTES);
        for _ in 0..10 {
            emitter.emit(vec![bytes("y", 0)]).await.unwrap();
        }
        let mut next = std::pin::pin!(emitter.emit(vec![]));
        assert!(poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await.is_pending());
    }

    #[tokio::test]
    async fn what_the_model_does_not_declare_is_refused_by_name() {
        let (emitter, partials) = channel(version(), 1000);
        for (outputs, tensor, words) in [
            (vec![bytes("x", 1)], Some("x"), "declares no such output"),
            (vec![bytes("y", 1), bytes("y", 1)], Some("y"), "twice"),
            (vec![bytes("z", 4)], Some("z"), "UINT8, and the model declares FP32"),
            (vec![bytes("y", 1001)], None, "1001 bytes is over the limit of 1000"),
        ] {
            let error = emitter.emit(outputs).await.unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(error.tensor(), tensor);
        }
        drop(partials);
        assert_eq!(emitter.emit(vec![bytes("y", 1)]).await, Err(EmitError::Gone));
    }
}
