//! An input that is no tensor.
use modelet_guest::{Result, Tensor, model};

struct Model;

#[model]
impl Model {
    fn load() -> Result<Self> {
        Ok(Self)
    }

    #[output("y", [-1])]
    fn infer(&mut self, #[input([-1])] x: Vec<f32>) -> Result<Tensor<f32>> {
        Ok(Tensor::vector(x))
    }
}

fn main() {}
