//! A model that cannot be made.
use modelet_guest::{Result, Tensor, model};

struct Model;

#[model]
impl Model {
    #[output("y", [-1])]
    fn infer(&mut self, #[input([-1])] x: Tensor<f32>) -> Result<Tensor<f32>> {
        Ok(x)
    }
}

fn main() {}
