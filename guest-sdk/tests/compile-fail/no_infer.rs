//! A model that answers nothing.
use modelet_guest::{Result, Tensor, model};

struct Model;

#[model]
impl Model {
    fn load() -> Result<Self> {
        Ok(Self)
    }
}

fn main() {}
