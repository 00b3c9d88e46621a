//! The protocol over gRPC: messages in, typed values out, and back, with the same checks as over REST.
//!
//! Raw contents stay where the request was read to, and answers are given as parts of which the
//! tensors are some; neither direction copies them. What a message would become is weighed before it
//! is decoded, since a byte of protobuf can ask for a hundred of memory.

mod answer;
mod contents;
mod request;
mod weigh;

pub use answer::encode;
pub use request::{decode, read_message, typed_elements};
pub use weigh::raw_offset;
