//! A JPEG or PNG in, its most likely labels out: EfficientNet-Lite0, trained on ImageNet.

mod pixels;
mod resample;

use modelet_guest::{BadInput as _, Error, Graph, Result, Tensor, assets, config, model};

pub use pixels::{SIDE, prepare};

/// The model of an instance.
pub struct ImageClassifier {
    graph: Graph,
    labels: Vec<String>,
    /// Labels of an answer.
    top: usize,
}

#[model]
impl ImageClassifier {
    fn load() -> Result<Self> {
        let labels: Vec<_> = assets::text("labels.txt")?.lines().map(str::to_owned).collect();
        let top = config::or("top", 5)?;
        if !(1..=labels.len()).contains(&top) {
            return Err(Error::failed(format!("top = {top} is not within 1 and {}", labels.len())));
        }
        Ok(Self { graph: Graph::load("model.onnx")?, labels, top })
    }

    #[output("label", [-1])]
    #[output("probability", [-1])]
    fn infer(
        &mut self,
        #[input([1])] image: Tensor<Vec<u8>>,
    ) -> Result<(Tensor<String>, Tensor<f32>)> {
        let file = image.data().first().ok_or_else(|| image.error("there is no picture in it"))?;
        let pixels = Tensor::new([1, 3, SIDE, SIDE], prepare(file).bad_input("image")?)?;
        let mut outputs = self.graph.run().input("image", &pixels).compute()?;
        let logits: Tensor<f32> = outputs.take("logits")?;
        let mut ranked: Vec<_> = softmax(logits.data()).into_iter().zip(&self.labels).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        ranked.truncate(self.top);
        let labels = ranked.iter().map(|(_, label)| (*label).clone()).collect();
        let probabilities = ranked.iter().map(|(probability, _)| *probability).collect();
        Ok((Tensor::vector(labels), Tensor::vector(probabilities)))
    }
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<_> = logits.iter().map(|logit| (logit - most).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}
