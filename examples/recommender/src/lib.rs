//! Films somebody liked in, films to watch next out: EASE, trained on MovieLens.

use std::collections::HashMap;

use modelet_guest::{Graph, Result, Tensor, assets, model};

/// Recommendations at most: a page of them, which bounds the answer.
const MOST: i64 = 100;

/// The model of an instance.
pub struct Recommender {
    graph: Graph,
    titles: Vec<String>,
    /// Films by their titles in lower case, with and without the year.
    numbers: HashMap<String, i64>,
}

#[model]
impl Recommender {
    fn load() -> Result<Self> {
        let titles: Vec<_> = assets::text("titles.txt")?.lines().map(str::to_owned).collect();
        let mut numbers = HashMap::new();
        for (title, number) in titles.iter().zip(0..) {
            let title = title.to_lowercase();
            let without_year = title.rsplit_once(" (").map(|(name, _)| name.to_owned());
            // Of two films of one name the first has it; with their years both are known.
            without_year.into_iter().for_each(|name| _ = numbers.entry(name).or_insert(number));
            numbers.insert(title, number);
        }
        Ok(Self { graph: Graph::load("model.onnx")?, titles, numbers })
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
        let history = liked.data().iter().map(|title| self.number(&liked, title));
        let history = Tensor::new([1, liked.len()], history.collect::<Result<_>>()?)?;
        let mut outputs = self.graph.run().input("history", &history).input("k", &k).compute()?;
        let scores: Tensor<f32> = outputs.take("top_scores")?;
        let ids: Tensor<i64> = outputs.take("top_ids")?;
        let title = |id: &i64| {
            let place = usize::try_from(*id).unwrap_or(usize::MAX);
            self.titles.get(place).cloned().unwrap_or_default()
        };
        let titles = ids.data().iter().map(title).collect();
        Ok((Tensor::vector(titles), Tensor::vector(scores.into_data())))
    }

    /// The film of a title.
    fn number(&self, liked: &Tensor<String>, title: &str) -> Result<i64> {
        let number = self.numbers.get(&title.trim().to_lowercase()).copied();
        number.ok_or_else(|| {
            liked.error(format!("'{title}' is none of the {} films known here", self.titles.len()))
        })
    }
}
