//! Two outputs of one name.
use modelet_guest::{Result, Tensor, model};

struct Model;

#[model]
impl Model {
    fn load() -> Result<Self> {
        Ok(Self)
    }

    #[output("y", [-1])]
    #[output("y", [-1])]
    fn infer(&mut self, #[input([-1])] x: Tensor<f32>) -> Result<(Tensor<f32>, Tensor<f32>)> {
        Ok((x.clone(), x))
    }
}

fn main() {}
