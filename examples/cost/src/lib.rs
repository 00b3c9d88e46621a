//! What the examples do before their graphs, to be done again and again: native, and in the sandbox.

#![allow(
    unreachable_pub,
    dead_code,
    reason = "files of the examples, of which not all is called here"
)]

#[path = "../../recommender/src/films.rs"]
mod films;
#[path = "../../voice-activity/src/frames.rs"]
mod frames;
#[path = "../../image-classifier/src/pixels.rs"]
mod pixels;
#[path = "../../image-classifier/src/resample.rs"]
mod resample;
#[path = "../../embedding/src/tokens.rs"]
mod tokens;

use modelet_guest::{Error, Result, Tensor, assets, model};
use tokenizers::Tokenizer;

/// The allocator that the example has which tokenizes.
#[cfg(target_family = "wasm")]
#[global_allocator]
static ALLOCATOR: rlsf::SmallGlobalTlsf = rlsf::SmallGlobalTlsf::new();

/// A text of 87 characters.
pub const TEXT: &str =
    "The quick brown fox jumps over the lazy dog, and nobody in the whole village knows why.";

/// What each example is called with.
pub struct Cost {
    tokenizer: Tokenizer,
    texts: Vec<String>,
    picture: Vec<u8>,
    films: films::Films,
    liked: Vec<String>,
    sound: Vec<f32>,
}

#[model]
impl Cost {
    fn load() -> Result<Self> {
        let titles = assets::text("titles.txt")?;
        let sound = assets::read("speech.f32")?;
        let (samples, _) = sound.as_chunks::<4>();
        Ok(Self {
            tokenizer: tokens::tokenizer(&assets::read("tokenizer.json")?)?,
            texts: vec![TEXT.to_owned()],
            picture: assets::read("picture.jpg")?,
            films: films::Films::named(&titles),
            liked: titles.lines().step_by(150).map(str::to_owned).collect(),
            sound: samples.iter().map(|sample| f32::from_le_bytes(*sample)).collect(),
        })
    }

    /// Does what an example does before its graph, as often as is wanted, and counts what came out.
    #[output("numbers", [1])]
    fn infer(
        &mut self,
        #[input([1])] example: Tensor<String>,
        #[input([1])] times: Tensor<i64>,
    ) -> Result<Tensor<i64>> {
        let example = example.data().first().map_or("", String::as_str);
        let times = times.data().first().copied().unwrap_or(0);
        let numbers = (0..times).map(|_| Ok(self.prepare(example)? as i64)).sum::<Result<i64>>()?;
        Ok(Tensor::vector(vec![numbers]))
    }

    fn prepare(&self, example: &str) -> Result<usize> {
        match example {
            "embedding" => Ok(tokens::Tokens::of(&self.tokenizer, &self.texts)?.ids.len()),
            "image-classifier" => Ok(pixels::prepare(&self.picture).map_err(Error::failed)?.len()),
            "recommender" => Ok(self.films.numbers(&self.liked).map_err(Error::failed)?.len()),
            "voice-activity" => {
                let out_of_range = frames::not_sound(&self.sound).is_some();
                Ok(frames::framed(&self.sound).map(|rows| rows.len()).sum::<usize>()
                    + usize::from(out_of_range))
            }
            other => Err(Error::failed(format!("{other} is no example"))),
        }
    }
}
