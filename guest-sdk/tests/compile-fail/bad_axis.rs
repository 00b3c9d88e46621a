//! An axis of a length that there is not.
use modelet_guest::{Result, Tensor, model};

struct Model;

#[model]
impl Model {
    fn load() -> Result<Self> {
        Ok(Self)
    }

    #[output("y", [-1])]
    fn infer(&mut self, #[input([-2])] x: Tensor<f32>) -> Result<Tensor<f32>> {
        Ok(x)
    }
}

fn main() {}
