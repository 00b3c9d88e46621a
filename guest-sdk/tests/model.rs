//! What `#[model]` makes of a struct, called as a host calls it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that is wrong may panic")]

use modelet_guest::testing::{Host, Inputs, Level, call};
use modelet_guest::{
    BadInput as _, Datatype, Error, Graph, Model as _, Result, Tensor, TensorSpec, config, log,
    model,
};

struct Everything {
    graph: Graph,
    limit: usize,
}

#[model(batch, task = "embedding")]
impl Everything {
    fn load() -> Result<Self> {
        Ok(Self { graph: Graph::load("model.onnx")?, limit: config::or("limit", 3)? })
    }

    #[output("length", [-1])]
    #[output("is long", [-1])]
    fn infer(
        &mut self,
        #[input([-1])] text: Tensor<String>,
        #[input("bytes of any kind", [-1, 2])] bytes: Tensor<Vec<u8>>,
    ) -> Result<(Tensor<i64>, Tensor<bool>)> {
        log::info(format!("{} texts", text.len()));
        if text.len() > self.limit {
            return Err(text.error(format!("at most {} at once", self.limit)));
        }
        let lengths = text.data().iter().map(|text| text.chars().count() as i64).collect();
        let lengths = Tensor::new(text.shape(), lengths)?;
        let _numbers: Vec<u32> = bytes
            .data()
            .iter()
            .map(|bytes| Ok(std::str::from_utf8(bytes)?.parse()?))
            .collect::<Result<_>>()
            .bad_input("bytes of any kind")?;
        let doubled = self.graph.run().input("x", &lengths).compute()?.take::<i64>("y")?;
        let long = doubled.data().iter().map(|length| *length > 4).collect();
        Ok((doubled, Tensor::new(text.shape(), long)?))
    }
}

fn host() -> Host {
    let double = |inputs: &mut Inputs| {
        let x = inputs.take::<i64>("x")?;
        let doubled = x.data().iter().map(|x| x * 2).collect();
        Ok(vec![("y", Tensor::new(x.shape(), doubled)?.into())])
    };
    Host::new().graph("model.onnx", double)
}

fn called(texts: &[&str], bytes: &[&[u8]]) -> Result<(Vec<i64>, Vec<bool>)> {
    let texts = Tensor::vector(texts.iter().map(|text| (*text).to_owned()).collect());
    let bytes = bytes.iter().map(|bytes| bytes.to_vec()).collect::<Vec<_>>();
    let bytes = Tensor::new([bytes.len() / 2, 2], bytes)?;
    let mut model = Everything::load()?;
    let inputs = vec![("bytes of any kind", bytes.into()), ("text", texts.into())];
    let mut outputs = call(&mut model, inputs)?;
    Ok((outputs.take("length")?.into_data(), outputs.take("is long")?.into_data()))
}

#[test]
fn the_signature_is_read_off_infer() {
    let signature = Everything::signature();
    assert!(signature.batch);
    assert_eq!(signature.task, Some("embedding"));
    let spec = |name, datatype, shape| TensorSpec { name, datatype, shape };
    let inputs = [
        spec("text", Datatype::Bytes, &[-1]),
        spec("bytes of any kind", Datatype::Bytes, &[-1, 2]),
    ];
    assert_eq!(signature.inputs, inputs);
    let outputs = [spec("length", Datatype::Int64, &[-1]), spec("is long", Datatype::Bool, &[-1])];
    assert_eq!(signature.outputs, outputs);
}

#[test]
fn tensors_go_in_and_out_by_name() {
    let host = host().install();
    let answer = called(&["a", "über"], &[b"1", b"2"]).unwrap();
    assert_eq!(answer, (vec![2, 8], vec![false, true]));
    assert_eq!(host.log(), [(Level::Info, "2 texts".to_owned())]);
}

#[test]
fn the_callers_mistakes_name_the_tensor() {
    let _host = host().config("limit", "1").install();
    let told = |error: Error| {
        assert!(error.is_bad_input());
        error.to_string()
    };
    let error = told(called(&["a", "b"], &[b"1", b"2"]).unwrap_err());
    assert_eq!(error, "input 'text': at most 1 at once");
    let error = told(called(&["a"], &[b"1", b"x"]).unwrap_err());
    assert_eq!(error, "input 'bytes of any kind': invalid digit found in string");
    let mut model = Everything::load().unwrap();
    let missing = call(&mut model, vec![("text", Tensor::vector(vec![1.0f32]).into())]);
    assert_eq!(told(missing.unwrap_err()), "input 'text': its datatype is FP32, wanted is BYTES");
}

#[test]
fn the_models_own_mistakes_are_not_blamed_on_the_caller() {
    let error = called(&["a"], &[b"1", b"2"]).unwrap_err();
    assert!(!error.is_bad_input());
    assert!(error.to_string().contains("'model.onnx'"), "{error}");
    let _host = host().config("limit", "many").install();
    let error = called(&["a"], &[b"1", b"2"]).unwrap_err();
    assert!(error.to_string().contains("limit = 'many'"), "{error}");
}
