//! The protocol's other documents: server and model metadata, health, and errors.

use serde::Serialize;

use crate::tensor::Datatype;
use crate::version::{Signature, TensorSpec};

/// `GET /v2`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerMetadata<'a> {
    /// The server's name; some clients' checks insist on one.
    pub name: &'a str,
    /// The server's version.
    pub version: &'a str,
    /// What it does beyond the protocol. Clients act on this list, so it names only what works.
    pub extensions: &'a [&'a str],
}

/// `GET /v2/models/{model}[/versions/{version}]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelMetadata<'a> {
    /// The model's name.
    pub name: &'a str,
    /// Its versions that can be called.
    pub versions: &'a [&'a str],
    /// What runs it, by convention `<project>_<format>`, such as `onnx_onnxv1`.
    pub platform: &'a str,
    /// What a call brings.
    pub inputs: Vec<TensorMetadata<'a>>,
    /// What an answer carries.
    pub outputs: Vec<TensorMetadata<'a>>,
}

impl<'a> ModelMetadata<'a> {
    /// The metadata of a version with `signature`.
    pub fn new(
        name: &'a str,
        versions: &'a [&'a str],
        platform: &'a str,
        signature: &'a Signature,
    ) -> Self {
        let list = |specs: &'a [TensorSpec]| specs.iter().map(TensorMetadata::from).collect();
        let (inputs, outputs) = (list(&signature.inputs), list(&signature.outputs));
        Self { name, versions, platform, inputs, outputs }
    }
}

/// One tensor of a model's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TensorMetadata<'a> {
    /// The tensor's name.
    pub name: &'a str,
    /// The type of its elements.
    pub datatype: Datatype,
    /// The length of each axis, the batch's among them; -1 where it is open.
    pub shape: &'a [i64],
}

impl<'a> From<&'a TensorSpec> for TensorMetadata<'a> {
    fn from(spec: &'a TensorSpec) -> Self {
        Self { name: &spec.name, datatype: spec.datatype, shape: &spec.shape }
    }
}

/// `GET /v2/models`, after KServe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelList<'a> {
    /// The names of the models.
    pub models: Vec<&'a str>,
}

/// `GET /v2/health/live`. Probes look at the status; KServe's client reads the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Live {
    /// Whether the server runs.
    pub live: bool,
}

/// `GET /v2/health/ready`. The protocol's page and KServe's client differ about the key, so that
/// both are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ready {
    /// Whether the server runs.
    pub live: bool,
    /// Whether it takes calls.
    pub ready: bool,
}

/// `GET /v2/models/{model}[/versions/{version}]/ready`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ModelReady<'a> {
    /// The model's name.
    pub name: &'a str,
    /// Whether the model takes calls.
    pub ready: bool,
}

/// The body of every answer that is not 200. Clients read `error` as a string on all `/v2` routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ErrorBody<'a> {
    /// What was wrong, where, and what to do.
    pub error: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_the_keys_that_clients_read() {
        let server = ServerMetadata {
            name: "modelet",
            version: "0.1.0",
            extensions: &["binary_tensor_data"],
        };
        assert_eq!(
            serde_json::to_string(&server).unwrap(),
            r#"{"name":"modelet","version":"0.1.0","extensions":["binary_tensor_data"]}"#
        );
        let spec = |name: &str, shape: &[i64]| TensorSpec {
            name: name.into(),
            datatype: Datatype::Fp32,
            shape: shape.to_vec(),
        };
        let signature = Signature {
            inputs: vec![spec("x", &[-1, 3])],
            outputs: vec![spec("y", &[])],
            ..Signature::default()
        };
        let model = ModelMetadata::new("m", &["1", "2"], "onnx_onnxv1", &signature);
        assert_eq!(
            serde_json::to_string(&model).unwrap(),
            concat!(
                r#"{"name":"m","versions":["1","2"],"platform":"onnx_onnxv1","#,
                r#""inputs":[{"name":"x","datatype":"FP32","shape":[-1,3]}],"#,
                r#""outputs":[{"name":"y","datatype":"FP32","shape":[]}]}"#
            )
        );
        let bodies = (
            Live { live: true },
            Ready { live: true, ready: false },
            ModelReady { name: "m", ready: true },
            ModelList { models: vec!["a"] },
            ErrorBody { error: "e" },
        );
        assert_eq!(
            serde_json::to_string(&bodies).unwrap(),
            concat!(
                r#"[{"live":true},{"live":true,"ready":false},{"name":"m","ready":true},"#,
                r#"{"models":["a"]},{"error":"e"}]"#
            )
        );
    }
}
