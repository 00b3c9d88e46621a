//! Films somebody liked in, films to watch next out: EASE, trained on MovieLens.

mod films;

use modelet_guest::{Graph, Result, Tensor, assets, model};

use films::Films;

/// Recommendations at most: a page of them, which bounds the answer.
const MOST: i64 = 100;

/// The model of an instance.
pub struct Recommender {
    graph: Graph,
    films: Films,
}

#[model]
impl Recommender {
    fn load() -> Result<Self> {
        let films = Films::named(&assets::text("titles.txt")?);
        Ok(Self { graph: Graph::load("model.onnx")?, films })
    }

    #[output("title", [-1])]
    #[output("score", [-1])]
    fn infer(
        &mut self,
        #[input([-1])] liked: Tensor<String>,
        #[input([1])] k: Tensor<i64>,
    ) -> Result<(Tensor<String>, Tensor<f32>)> {
        let wanted = k.data().first().copied().unwrap_or(0);
        if !(1..=MOST).contains(&wanted) {
            return Err(k.error(format!("it is {wanted}; from 1 to {MOST} can be had")));
        }
        if liked.is_empty() {
            return Err(liked.error("there is no film in it to go by"));
        }
        let history = self.films.numbers(liked.data()).map_err(|message| liked.error(message))?;
        let history = Tensor::new([1, liked.len()], history)?;
        let mut outputs = self.graph.run().input("history", &history).input("k", &k).compute()?;
        let scores: Tensor<f32> = outputs.take("top_scores")?;
        let ids: Tensor<i64> = outputs.take("top_ids")?;
        let titles = ids.data().iter().map(|id| self.films.title(*id).to_owned()).collect();
        Ok((Tensor::vector(titles), Tensor::vector(scores.into_data())))
    }
}
