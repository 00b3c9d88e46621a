//! Text in, a vector of its meaning out: all-MiniLM-L6-v2, with its own tokenizer in the guest.
//!
//! Two graphs fit: one that gives the vector itself, and one that gives a vector a token, whose mean is
//! taken here. The setting `pooling` says which it is: `graph` or `mean`.

use modelet_guest::{Error, Graph, Result, Tensor, assets, config, model};
use tokenizers::{PaddingParams, Tokenizer, TruncationParams};

/// Tokenizing makes hundreds of small allocations, which this allocator is made for.
#[cfg(target_family = "wasm")]
#[global_allocator]
static ALLOCATOR: rlsf::SmallGlobalTlsf = rlsf::SmallGlobalTlsf::new();

/// Tokens of a text at most: what the model was trained with, and what bounds the work of a call.
const TOKENS: usize = 128;
/// Elements of a vector.
const WIDTH: usize = 384;

/// The model of an instance.
pub struct Embedding {
    tokenizer: Tokenizer,
    graph: Graph,
    /// Whether the mean over the tokens is taken here.
    takes_mean: bool,
}

#[model(task = "embedding", batch)]
impl Embedding {
    fn load() -> Result<Self> {
        let takes_mean = match config::or("pooling", "graph".to_owned())?.as_str() {
            "graph" => false,
            "mean" => true,
            other => {
                return Err(Error::failed(format!("pooling = '{other}' is not graph or mean")));
            }
        };
        let tokenizer = tokenizer(&assets::read("tokenizer.json")?)?;
        Ok(Self { tokenizer, graph: Graph::load("model.onnx")?, takes_mean })
    }

    #[output("embedding", [-1, 384])]
    #[output("tokens", [-1])]
    fn infer(&mut self, #[input([-1])] text: Tensor<String>) -> Result<(Tensor<f32>, Tensor<i64>)> {
        if text.is_empty() {
            return Err(text.error("there is no text"));
        }
        let tokens = Tokens::of(&self.tokenizer, text.data())?;
        let run = self.graph.run().input("input_ids", &tokens.ids);
        let run = run.input("attention_mask", &tokens.mask);
        let vectors = match self.takes_mean {
            false => run.compute()?.take("embedding")?,
            true => {
                let mut outputs = run.input("token_type_ids", &tokens.types).compute()?;
                mean(&outputs.take("last_hidden_state")?, &tokens.mask)?
            }
        };
        Ok((vectors, tokens.counts()))
    }
}

/// The tokenizer in a `tokenizer.json`, with truncation and padding as the model wants them.
///
/// # Errors
/// When it is none.
pub fn tokenizer(json: &[u8]) -> Result<Tokenizer> {
    let mut tokenizer = Tokenizer::from_bytes(json).map_err(Error::failed)?;
    let truncation = TruncationParams { max_length: TOKENS, ..TruncationParams::default() };
    tokenizer.with_truncation(Some(truncation)).map_err(Error::failed)?;
    tokenizer.with_padding(Some(PaddingParams::default()));
    Ok(tokenizer)
}

/// Texts as the graph takes them, each padded to the longest: INT64 [texts, tokens].
pub struct Tokens {
    /// The tokens' numbers.
    pub ids: Tensor<i64>,
    /// 1 where there is a token, 0 where there is padding.
    pub mask: Tensor<i64>,
    /// All 0: there is one sentence a text.
    types: Tensor<i64>,
}

impl Tokens {
    /// Tokenizes texts, of which there is at least one.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn of(tokenizer: &Tokenizer, texts: &[String]) -> Result<Self> {
        let encodings = texts.iter().map(|text| tokenizer.encode_fast(text.as_str(), true));
        let mut encodings = encodings.collect::<Result<Vec<_>, _>>().map_err(Error::failed)?;
        if let Some(padding) = tokenizer.get_padding() {
            tokenizers::pad_encodings(&mut encodings, padding).map_err(Error::failed)?;
        }
        let length = encodings.first().map_or(0, |encoding| encoding.get_ids().len());
        let tensor = |numbers: fn(&tokenizers::Encoding) -> &[u32]| {
            let all = encodings.iter().flat_map(numbers).map(|number| i64::from(*number));
            Tensor::new([texts.len(), length], all.collect())
        };
        Ok(Self {
            ids: tensor(tokenizers::Encoding::get_ids)?,
            mask: tensor(tokenizers::Encoding::get_attention_mask)?,
            types: tensor(tokenizers::Encoding::get_type_ids)?,
        })
    }

    /// How many tokens each text has, without padding.
    pub fn counts(&self) -> Tensor<i64> {
        let length = self.mask.shape().get(1).copied().unwrap_or(0);
        let masks = self.mask.data().chunks(length.max(1));
        Tensor::vector(masks.map(|mask| mask.iter().sum()).collect())
    }
}

/// The mean of the tokens' vectors, of length 1: FP32 [texts, tokens, 384] to [texts, 384].
fn mean(vectors: &Tensor<f32>, mask: &Tensor<i64>) -> Result<Tensor<f32>> {
    let &[texts, tokens, WIDTH] = vectors.shape() else {
        return Err(Error::failed(format!("the graph gave the shape {:?}", vectors.shape())));
    };
    let mut means = vec![0.0f32; texts * WIDTH];
    let masks = mask.data().chunks(tokens.max(1));
    let texts_vectors = vectors.data().chunks((tokens * WIDTH).max(1));
    for ((mean, mask), vectors) in means.chunks_mut(WIDTH).zip(masks).zip(texts_vectors) {
        for (vector, _) in vectors.chunks(WIDTH).zip(mask).filter(|(_, mask)| **mask == 1) {
            mean.iter_mut().zip(vector).for_each(|(sum, element)| *sum += element);
        }
        // The length is taken out at once with the count, which is a factor like it.
        let length = mean.iter().map(|element| element * element).sum::<f32>().sqrt().max(1e-12);
        mean.iter_mut().for_each(|element| *element /= length);
    }
    Tensor::new([texts, WIDTH], means)
}
