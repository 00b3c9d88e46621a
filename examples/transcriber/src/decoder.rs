//! The graph that writes: a token a run, from what was heard and what it keeps of its own tokens.

use modelet_guest::{Error, Graph, Result, Tensor, highest};

/// Tokens of a second of speech at most, twice: nobody speaks faster, and a model that repeats itself has
/// to be ended.
pub(crate) const TOKENS_A_SECOND_TIMES_TWO: usize = 13;

/// The token that begins a text, and the one that ends it.
const BEGIN: i64 = 1;
const END: i64 = 2;

/// Layers, each of which keeps keys and values of what was heard, and of the tokens.
const LAYERS: usize = 6;
/// Axes of what is kept: recordings, heads, positions, numbers.
const CACHE: [usize; 4] = [1, 8, 0, 36];

/// The graph, and the names of what it keeps.
pub(crate) struct Decoder {
    graph: Graph,
    kept: Vec<Kept>,
}

/// Something that goes from one run to the next.
struct Kept {
    /// Its names as an input and as an output.
    past: String,
    present: String,
    /// Whether each run adds to it: what was heard stays as the first run has left it.
    grows: bool,
}

impl Decoder {
    pub(crate) fn new(graph: Graph) -> Self {
        let kept = (0..LAYERS).flat_map(|layer| {
            let parts = [("decoder", true), ("encoder", false)].into_iter();
            parts.flat_map(move |(part, grows)| {
                ["key", "value"].map(|kind| Kept {
                    past: format!("past_key_values.{layer}.{part}.{kind}"),
                    present: format!("present.{layer}.{part}.{kind}"),
                    grows,
                })
            })
        });
        Self { graph, kept: kept.collect() }
    }

    /// The tokens of what was heard, at most so many.
    pub(crate) fn write(
        &self,
        heard: &Tensor<f32>,
        mask: &Tensor<i64>,
        most: usize,
    ) -> Result<Vec<usize>> {
        let nothing = Tensor::<f32>::new(CACHE, Vec::new())?.in_host()?;
        let mut caches = vec![nothing; self.kept.len()];
        let mut tokens = Vec::new();
        let mut token = BEGIN;
        while tokens.len() < most {
            let is_first = tokens.is_empty();
            let ids = Tensor::new([1, 1], vec![token])?;
            let mut run = self.graph.run().input("input_ids", &ids);
            run = run.input("encoder_hidden_states", heard).input("encoder_attention_mask", mask);
            run = run.input("use_cache_branch", &Tensor::vector(vec![!is_first]));
            for (kept, cache) in self.kept.iter().zip(&caches) {
                run = run.input(&kept.past, cache);
            }
            let mut outputs = run.compute()?;
            for (kept, cache) in self.kept.iter().zip(&mut caches) {
                if kept.grows || is_first {
                    *cache = outputs.take(&kept.present)?;
                }
            }
            let scores: Tensor<f32> = outputs.take("logits")?;
            let likeliest = highest(scores.data());
            let likeliest = likeliest.ok_or_else(|| Error::failed("the graph gave no scores"))?;
            token = i64::try_from(likeliest)?;
            if token == END {
                break;
            }
            tokens.push(usize::try_from(token)?);
        }
        Ok(tokens)
    }
}
