//! `modelet infer`: one call of a model through the Open Inference Protocol's binary form.

mod input;
mod output;
mod shape;

use modelet_host::version::TensorSpec;
use serde::{Deserialize, Serialize};

use self::input::{Input, Source};
use self::output::Outputs;
use crate::args::InferArgs;
use crate::body::Body;
use crate::client::Client;
use crate::failure::Failure;
use crate::out::Out;

/// What the command needs of a model's metadata.
#[derive(Debug, Deserialize)]
struct Metadata {
    #[serde(default)]
    inputs: Vec<TensorSpec>,
}

pub(super) fn run(args: &InferArgs, client: &Client, out: &Out) -> Result<(), Failure> {
    let metadata: Metadata = client.metadata(&args.target)?.read("")?;
    let inputs = read_inputs(args, &metadata.inputs)?;
    let (head_length, body) = request(inputs)?;
    let answer = client.infer(&args.target, head_length, body)?;
    let outputs = Outputs::read(&answer)?;
    out.answer(&outputs, || outputs.text(answer.server_timing.as_deref()))
}

/// The inputs that were typed, each matched with what the model says of it.
///
/// One that is missing is not reported here: the server knows which are needed.
fn read_inputs<'a>(args: &InferArgs, specs: &'a [TensorSpec]) -> Result<Vec<Input<'a>>, Failure> {
    let json = args.inputs.iter().map(|given| (given, Source::Json));
    let files = args.input_files.iter().map(|given| (given, Source::File));
    let mut inputs: Vec<Input<'a>> = Vec::new();
    for (given, source) in json.chain(files) {
        let input = Input::read(given, source, specs)?;
        if inputs.iter().any(|other| other.name() == input.name()) {
            return Err(Failure::usage(format!("the input '{}' is given twice", input.name())));
        }
        inputs.push(input);
    }
    Ok(inputs)
}

/// The JSON part of the request.
#[derive(Serialize)]
struct RequestHead<'a> {
    inputs: Vec<input::Head<'a>>,
    parameters: RequestParameters,
}

/// Outputs come as bytes: no number is rounded on its way through text, and datatypes that JSON
/// cannot carry come too.
#[derive(Serialize)]
struct RequestParameters {
    binary_data_output: bool,
}

/// The request's body, and the length of its JSON part in bytes.
fn request(inputs: Vec<Input<'_>>) -> Result<(usize, Body), Failure> {
    let head = RequestHead {
        inputs: inputs.iter().map(Input::head).collect(),
        parameters: RequestParameters { binary_data_output: true },
    };
    let head = serde_json::to_vec(&head).map_err(anyhow::Error::new)?;
    let head_length = head.len();
    let mut body = Body::default();
    body.push_bytes(head);
    for file in inputs.into_iter().filter_map(Input::into_file) {
        body.push_file(file);
    }
    Ok((head_length, body))
}

#[cfg(test)]
mod tests;
