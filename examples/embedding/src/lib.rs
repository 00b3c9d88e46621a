//! Text in, a vector of its meaning out: all-MiniLM-L6-v2, with its own tokenizer in the guest.
//!
//! Two graphs fit: one that gives the vector itself, and one that gives a vector a token, whose mean is
//! taken here. The setting `pooling` says which it is: `graph` or `mean`.

mod tokens;

use modelet_guest::{Error, Graph, Result, Tensor, assets, config, model};
use tokenizers::Tokenizer;

pub use tokens::{Tokens, tokenizer};

/// Tokenizing makes hundreds of small allocations, which this allocator is made for.
#[cfg(target_family = "wasm")]
#[global_allocator]
static ALLOCATOR: rlsf::SmallGlobalTlsf = rlsf::SmallGlobalTlsf::new();

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
