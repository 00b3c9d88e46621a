//! A server of HTTP for tests of what a component may have beside wasi:http: `POST /` takes a picture of 28
//! by 28 numbers and gives the digit that the graph `model.onnx` of its version sees in it.

#[allow(unsafe_code, unreachable_pub, clippy::all, clippy::restriction, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit",
        world: "modelet:model/http-model",
        generate_all,
    });
}

use bindings::wasi::nn::errors;
use bindings::wasi::nn::graph::load_by_name;
use bindings::wasi::nn::tensor::{Tensor, TensorType};
use wstd::http::body::Body;
use wstd::http::{Error, Request, Response};

const SHAPE: [u32; 4] = [1, 1, 28, 28];

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let mut body = request.into_body();
    let digit = read(body.contents().await?)?;
    Ok(Response::new(format!("{digit}\n").into()))
}

fn read(pixels: &[u8]) -> Result<usize, Error> {
    let said = |error: errors::Error| Error::msg(error.data());
    let context =
        load_by_name("model.onnx").map_err(said)?.init_execution_context().map_err(said)?;
    let image = Tensor::new(&SHAPE, TensorType::Fp32, pixels);
    let outputs = context.compute(vec![("image".to_owned(), image)]).map_err(said)?;
    let (_, logits) = outputs.first().ok_or_else(|| Error::msg("the graph gave nothing"))?;
    let logits = logits.data();
    let (logits, _) = logits.as_chunks();
    let logits: Vec<_> = logits.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let highest = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    highest.map(|(digit, _)| digit).ok_or_else(|| Error::msg("the graph gave no number"))
}
