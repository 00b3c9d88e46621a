//! The standard tasks: what a model that serves one takes and gives, so that clients of that task can
//! call it. The host's documentation (`docs/tasks.md`) has every name and value.
//!
//! `embedding` takes texts and gives a vector for each:
//!
//! ```
//! use modelet_guest::{Graph, Result, Tensor, model};
//!
//! struct Embedder(Graph);
//!
//! #[model(task = "embedding", batch)]
//! impl Embedder {
//!     fn load() -> Result<Self> {
//!         Ok(Self(Graph::load("model.onnx")?))
//!     }
//!
//!     /// `tokens` is for the usage that clients are told; it may be left out.
//!     #[output("embedding", [-1, 384])]
//!     #[output("tokens", [-1])]
//!     fn infer(
//!         &mut self,
//!         #[input([-1])] text: Tensor<String>,
//!     ) -> Result<(Tensor<f32>, Tensor<i64>)> {
//!         let lengths = text.data().iter().map(|text| text.len() as i64).collect();
//!         let vectors = self.0.run().input("text", &text).compute()?.take("vectors")?;
//!         Ok((vectors, Tensor::vector(lengths)))
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! `transcription` takes a sound file and parameters, the latter JSON, and gives the words; and where it can,
//! how long the recording is, and its parts with their times:
//!
//! ```
//! use modelet_guest::{Result, Tensor, model};
//!
//! struct Deaf;
//!
//! #[model(task = "transcription")]
//! impl Deaf {
//!     fn load() -> Result<Self> {
//!         Ok(Self)
//!     }
//!
//!     #[output("text", [1])]
//!     #[output("duration", [1])]
//!     #[output("segments", [-1, 2])]
//!     #[output("segment_text", [-1])]
//!     fn infer(
//!         &mut self,
//!         #[input([1])] audio: Tensor<Vec<u8>>,
//!         #[input([1])] parameters: Tensor<String>,
//!     ) -> Result<(Tensor<String>, Tensor<f32>, Tensor<f32>, Tensor<String>)> {
//!         let seconds = audio.data()[0].len() as f32 / 32_000.0;
//!         let nothing = Tensor::vector(vec![String::new()]);
//!         let segments = Tensor::new([0, 2], Vec::new())?;
//!         Ok((nothing, Tensor::vector(vec![seconds]), segments, Tensor::vector(Vec::new())))
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! `chat` and `completion` take a prompt and parameters, both JSON, and give a text, why it ends, and how
//! many tokens that took. Where the caller asked for a stream, they emit what is added to the text:
//!
//! ```
//! use modelet_guest::{BadInput as _, Result, Tensor, model, reply};
//! use serde_json::Value;
//!
//! struct Parrot;
//!
//! #[model(task = "chat")]
//! impl Parrot {
//!     fn load() -> Result<Self> {
//!         Ok(Self)
//!     }
//!
//!     #[output("text", [1])]
//!     #[output("finish_reason", [1])]
//!     #[output("usage", [2])]
//!     fn infer(
//!         &mut self,
//!         #[input([1])] messages: Tensor<String>,
//!         #[input([1])] parameters: Tensor<String>,
//!     ) -> Result<(Tensor<String>, Tensor<String>, Tensor<i64>)> {
//!         let messages: Value = serde_json::from_str(&messages.data()[0]).bad_input("messages")?;
//!         let wanted: Value = serde_json::from_str(&parameters.data()[0]).bad_input("parameters")?;
//!         // A list of messages, or a text to be gone on with as it stands.
//!         let last = messages.as_array().and_then(|messages| messages.last()?["content"].as_str());
//!         let prompt = last.or(messages.as_str()).unwrap_or_default();
//!         let most = wanted["max_tokens"].as_u64().unwrap_or(u64::MAX) as usize;
//!         let words: Vec<_> = prompt.split_inclusive(' ').collect();
//!         let (said, left) = words.split_at(most.min(words.len()));
//!         for word in said {
//!             if reply::is_streamed() {
//!                 reply::output("text", &Tensor::vector(vec![word.to_string()])).emit()?;
//!             }
//!         }
//!         let reason = if left.is_empty() { "stop" } else { "length" };
//!         let usage = vec![words.len() as i64, said.len() as i64];
//!         let text = |text: String| Tensor::vector(vec![text]);
//!         Ok((text(said.concat()), text(reason.to_owned()), Tensor::vector(usage)))
//!     }
//! }
//!
//! # fn main() -> Result<()> {
//! use modelet_guest::testing::{Host, call};
//!
//! let host = Host::new().streamed().install();
//! let input = |json: &str| Tensor::vector(vec![json.to_owned()]).into();
//! let talk = r#"[{"role": "user", "content": "one two three"}]"#;
//! let inputs = vec![("messages", input(talk)), ("parameters", input(r#"{"max_tokens": 2}"#))];
//! let mut outputs = call(&mut Parrot, inputs)?;
//! assert_eq!(outputs.take::<String>("text")?.data(), ["one two "]);
//! assert_eq!(outputs.take::<String>("finish_reason")?.data(), ["length"]);
//! assert_eq!(outputs.take::<i64>("usage")?.data(), [3, 2]);
//! assert_eq!(host.emitted().len(), 2);
//! # Ok(())
//! # }
//! ```
