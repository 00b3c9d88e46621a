//! A recording of English speech in, its words out: Moonshine tiny, an encoder and a decoder.
//!
//! What the encoder has heard stays in the host, and so does what the decoder keeps of its own tokens:
//! both go from one run to the next as handles.

mod decoder;
pub mod sound;
pub mod tokens;

use modelet_guest::{BadInput as _, Graph, Result, Tensor, assets, model};

use crate::decoder::Decoder;
use crate::sound::{RATE, Sound};
use crate::tokens::Tokens;

/// The model of an instance.
pub struct Transcriber {
    encoder: Graph,
    decoder: Decoder,
    tokens: Tokens,
}

#[model(task = "transcription")]
impl Transcriber {
    fn load() -> Result<Self> {
        let tokens = Tokens::read(&assets::read("tokens.bin")?)?;
        let (encoder, decoder) = (Graph::load("encoder.onnx")?, Graph::load("decoder.onnx")?);
        Ok(Self { encoder, decoder: Decoder::new(decoder), tokens })
    }

    #[output("text", [1])]
    #[output("duration", [1])]
    #[output("segments", [-1, 2])]
    #[output("segment_text", [-1])]
    fn infer(
        &mut self,
        #[input([1])] audio: Tensor<Vec<u8>>,
        #[input([1])] parameters: Tensor<String>,
    ) -> Result<(Tensor<String>, Tensor<f32>, Tensor<f32>, Tensor<String>)> {
        let language = parameters.data().first().map(|json| language(json)).transpose()?.flatten();
        if let Some(other) = language.filter(|language| language != "en") {
            return Err(
                parameters.error(format!("the language is {other:?}, and only \"en\" is known"))
            );
        }
        let file = audio.data().first().map(Vec::as_slice).unwrap_or_default();
        let sound = Sound::read(file).bad_input("audio")?;
        let mut segments = Vec::new();
        let mut texts = Vec::new();
        for piece in sound.pieces() {
            let text = self.words(sound.samples(&piece))?;
            if !text.is_empty() {
                segments.extend([piece.start, piece.end].map(|sample| sample as f32 / RATE as f32));
                texts.push(text);
            }
        }
        let duration = Tensor::vector(vec![sound.seconds()]);
        let segments = Tensor::new([texts.len(), 2], segments)?;
        Ok((Tensor::vector(vec![texts.join(" ")]), duration, segments, Tensor::vector(texts)))
    }

    /// The words of so little sound that it is heard at once.
    fn words(&self, samples: &[f32]) -> Result<String> {
        if samples.len() < sound::SHORTEST {
            return Ok(String::new());
        }
        let sound = Tensor::new([1, samples.len()], samples.to_vec())?;
        // All of it is sound. Every run takes this, so it is sent to the host once.
        let mask = Tensor::new([1, samples.len()], vec![1i64; samples.len()])?.in_host()?;
        let run = self.encoder.run().input("input_values", &sound).input("attention_mask", &mask);
        let heard = run.compute()?.take("last_hidden_state")?;
        let most = samples.len() * decoder::TOKENS_A_SECOND_TIMES_TWO / (2 * RATE as usize);
        Ok(self.tokens.text(&self.decoder.write(&heard, &mask, most.max(1))?))
    }
}

/// The language that the caller names, if one is.
fn language(json: &str) -> Result<Option<String>> {
    #[derive(serde::Deserialize)]
    struct Parameters {
        language: Option<String>,
    }
    let parameters: Parameters = serde_json::from_str(json).bad_input("parameters")?;
    Ok(parameters.language)
}
