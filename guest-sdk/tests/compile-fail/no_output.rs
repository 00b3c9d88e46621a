//! A model that does not say what it gives.
use modelet_guest::{Result, Tensor, model};

struct Model;

#[model]
impl Model {
    fn load() -> Result<Self> {
        Ok(Self)
    }

    fn infer(&mut self, #[input([-1])] x: Tensor<f32>) -> Result<Tensor<f32>> {
        Ok(x)
    }
}

fn main() {}
