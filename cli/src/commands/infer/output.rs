//! The answer of a call: its tensors decoded, as a document and as a table for people.

use std::fmt::Display;

use modelet_host::tensor::{Datatype, ShapeText, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::InferAnswer;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::table;

/// Elements of an output that a table shows.
const SHOWN_ELEMENTS: usize = 8;
/// Highest values listed of an output that is one row of scores.
const TOP_VALUES: usize = 5;

/// What a call gave.
#[derive(Debug, Serialize)]
pub(super) struct Outputs {
    model_name: String,
    model_version: String,
    outputs: Vec<Output>,
}

#[derive(Debug, Serialize)]
struct Output {
    name: String,
    datatype: Datatype,
    shape: Vec<usize>,
    data: Elements,
}

/// The elements of a tensor, as wide as JSON needs them.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Elements {
    Bool(Vec<bool>),
    Unsigned(Vec<u64>),
    Signed(Vec<i64>),
    /// FP16, BF16 and FP32, so that FP32 is spelled with no more digits than it has.
    Single(Vec<f32>),
    Double(Vec<f64>),
    Text(Vec<String>),
}

/// The JSON part of the answer.
#[derive(Debug, Deserialize)]
struct AnswerHead {
    model_name: String,
    #[serde(default)]
    model_version: String,
    outputs: Vec<OutputHead>,
}

#[derive(Debug, Deserialize)]
struct OutputHead {
    name: String,
    datatype: Datatype,
    shape: Vec<usize>,
    #[serde(default)]
    parameters: OutputParameters,
    /// Where the server chose JSON all the same, such as for an empty output.
    #[serde(default)]
    data: Option<Vec<Value>>,
}

#[derive(Debug, Default, Deserialize)]
struct OutputParameters {
    #[serde(default)]
    binary_data_size: Option<usize>,
}

impl Outputs {
    /// Decodes an answer.
    ///
    /// # Errors
    /// When its parts do not fit together.
    pub(super) fn read(answer: &InferAnswer) -> Result<Self, Failure> {
        let wrong = |problem: String| {
            Failure::new(Exit::Failed, format!("the model's answer is not understood: {problem}"))
        };
        let head: AnswerHead =
            serde_json::from_slice(&answer.head).map_err(|error| wrong(error.to_string()))?;
        let mut rest = answer.tensors.as_slice();
        let mut outputs = Vec::with_capacity(head.outputs.len());
        for output in head.outputs {
            let name = output.name.clone();
            let read = read_output(output, &mut rest);
            outputs.push(read.map_err(|problem| wrong(format!("output '{name}': {problem}")))?);
        }
        if !rest.is_empty() {
            return Err(wrong(format!("{} bytes belong to no output", rest.len())));
        }
        Ok(Self { model_name: head.model_name, model_version: head.model_version, outputs })
    }

    /// The outputs as a table, and the highest values where an output is one row of scores.
    pub(super) fn text(&self, server_timing: Option<&str>) -> String {
        let mut parts = vec![format!("{}@{}", self.model_name, self.model_version)];
        parts.push(table::table(
            ["output", "datatype", "shape", "first values"],
            self.outputs.iter().map(|output| {
                [
                    output.name.clone(),
                    output.datatype.to_string(),
                    ShapeText(&output.shape).to_string(),
                    output.data.first_values(),
                ]
            }),
        ));
        parts.extend(self.outputs.iter().filter_map(Output::top_text));
        if let Some(timing) = server_timing {
            parts.push(format!("server timing: {}", table::plain(timing)));
        }
        parts.join("\n\n")
    }
}

impl Output {
    /// The highest values with their places, if this is one row of floating-point scores.
    fn top_text(&self) -> Option<String> {
        let scores: Vec<f64> = match &self.data {
            Elements::Single(values) => values.iter().map(|value| f64::from(*value)).collect(),
            Elements::Double(values) => values.clone(),
            _ => return None,
        };
        let one_row = self.shape.last() == Some(&scores.len());
        if !one_row || scores.len() < 2 {
            return None;
        }
        let mut ranked: Vec<_> = scores.into_iter().enumerate().collect();
        ranked.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let rows = ranked.into_iter().take(TOP_VALUES);
        let rows = rows.map(|(place, score)| [place.to_string(), format!("{score:.6}")]);
        Some(format!(
            "highest of {}:\n{}",
            table::plain(&self.name),
            table::table(["index", "value"], rows)
        ))
    }
}

impl Elements {
    fn of(tensor: &Tensor) -> Self {
        let data = tensor.data();
        match tensor.datatype() {
            Datatype::Bool => Self::Bool(data.iter().map(|byte| *byte != 0).collect()),
            Datatype::Uint8 => Self::Unsigned(each(data, |b: [u8; 1]| u8::from_le_bytes(b).into())),
            Datatype::Uint16 => Self::Unsigned(each(data, |b| u16::from_le_bytes(b).into())),
            Datatype::Uint32 => Self::Unsigned(each(data, |b| u32::from_le_bytes(b).into())),
            Datatype::Uint64 => Self::Unsigned(each(data, u64::from_le_bytes)),
            Datatype::Int8 => Self::Signed(each(data, |b: [u8; 1]| i8::from_le_bytes(b).into())),
            Datatype::Int16 => Self::Signed(each(data, |b| i16::from_le_bytes(b).into())),
            Datatype::Int32 => Self::Signed(each(data, |b| i32::from_le_bytes(b).into())),
            Datatype::Int64 => Self::Signed(each(data, i64::from_le_bytes)),
            Datatype::Fp16 => Self::Single(each(data, |b| half(u16::from_le_bytes(b)))),
            Datatype::Bf16 => Self::Single(each(data, |b| brain(u16::from_le_bytes(b)))),
            Datatype::Fp32 => Self::Single(each(data, f32::from_le_bytes)),
            Datatype::Fp64 => Self::Double(each(data, f64::from_le_bytes)),
            Datatype::Bytes => Self::Text(
                tensor.bytes_elements().map(|b| String::from_utf8_lossy(b).into_owned()).collect(),
            ),
        }
    }

    /// The elements of an output that came as JSON; `None` where one is not of the datatype.
    fn of_json(datatype: Datatype, data: &[Value]) -> Option<Self> {
        Some(match datatype {
            Datatype::Bool => Self::Bool(data.iter().map(Value::as_bool).collect::<Option<_>>()?),
            Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 | Datatype::Uint64 => {
                Self::Unsigned(data.iter().map(Value::as_u64).collect::<Option<_>>()?)
            }
            Datatype::Int8 | Datatype::Int16 | Datatype::Int32 | Datatype::Int64 => {
                Self::Signed(data.iter().map(Value::as_i64).collect::<Option<_>>()?)
            }
            Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 => {
                // FP32 spelled in JSON is the nearest decimal, which the narrower type reads back.
                let single = |value: &Value| Some(value.as_f64()? as f32);
                Self::Single(data.iter().map(single).collect::<Option<_>>()?)
            }
            Datatype::Fp64 => Self::Double(data.iter().map(Value::as_f64).collect::<Option<_>>()?),
            Datatype::Bytes => Self::Text(
                data.iter()
                    .map(|value| value.as_str().map(str::to_owned))
                    .collect::<Option<_>>()?,
            ),
        })
    }

    fn len(&self) -> usize {
        match self {
            Self::Bool(values) => values.len(),
            Self::Unsigned(values) => values.len(),
            Self::Signed(values) => values.len(),
            Self::Single(values) => values.len(),
            Self::Double(values) => values.len(),
            Self::Text(values) => values.len(),
        }
    }

    fn first_values(&self) -> String {
        match self {
            Self::Bool(values) => beginning(values),
            Self::Unsigned(values) => beginning(values),
            Self::Signed(values) => beginning(values),
            Self::Single(values) => beginning(values),
            Self::Double(values) => beginning(values),
            Self::Text(values) => beginning(values),
        }
    }
}

/// Takes an output's bytes off the front of `rest` and decodes them.
fn read_output(head: OutputHead, rest: &mut &[u8]) -> Result<Output, String> {
    let OutputHead { name, datatype, shape, parameters, data } = head;
    let elements = if let Some(size) = parameters.binary_data_size {
        let Some((bytes, after)) = rest.split_at_checked(size) else {
            return Err(format!("it is said to have {size} bytes, and {} are left", rest.len()));
        };
        *rest = after;
        let tensor = Tensor::new(datatype, shape.clone(), bytes.to_vec().into());
        Elements::of(&tensor.map_err(|error| error.to_string())?)
    } else {
        let data = data.unwrap_or_default();
        let elements = Elements::of_json(datatype, &data);
        elements.ok_or_else(|| format!("its data is not {datatype}"))?
    };
    let wanted = modelet_host::tensor::element_count(&shape).map_err(|error| error.to_string())?;
    if elements.len() != wanted {
        let (given, shape) = (elements.len(), ShapeText(&shape));
        return Err(format!("the shape {shape} has {wanted} elements, and {given} came"));
    }
    Ok(Output { name, datatype, shape, data: elements })
}

fn each<const N: usize, T>(data: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    // The tensor was checked: its bytes are a whole number of elements.
    data.as_chunks::<N>().0.iter().map(|bytes| read(*bytes)).collect()
}

fn beginning<T: Display>(values: &[T]) -> String {
    let shown: Vec<_> = values.iter().take(SHOWN_ELEMENTS).map(T::to_string).collect();
    let more = if values.len() > SHOWN_ELEMENTS { " ..." } else { "" };
    format!("{}{more}", shown.join(" "))
}

/// The value of an IEEE 754 half-precision number.
fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f32::from(bits & 0x3ff) / 1024.0;
    sign * match (exponent, fraction) {
        (0, fraction) => fraction * 2f32.powi(-14),
        (31, 0.0) => f32::INFINITY,
        (31, _) => f32::NAN,
        (exponent, fraction) => (1.0 + fraction) * 2f32.powi(exponent - 15),
    }
}

/// The value of a bfloat16 number, which is the upper half of an FP32.
fn brain(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(head: &Value, tensors: &[u8]) -> Result<Outputs, Failure> {
        let (head, tensors) = (head.to_string().into_bytes(), tensors.to_vec());
        Outputs::read(&InferAnswer { head, tensors, server_timing: None })
    }

    fn output(datatype: &str, shape: &Value, size: usize) -> Value {
        let parameters = json!({ "binary_data_size": size });
        json!({ "name": "y", "datatype": datatype, "shape": shape, "parameters": parameters })
    }

    fn answer(outputs: &[Value]) -> Value {
        json!({ "model_name": "m", "model_version": "1", "outputs": outputs })
    }

    #[test]
    fn binary_outputs_are_taken_in_order() {
        let bytes = [&0.1f32.to_le_bytes()[..], &(-2i16).to_le_bytes(), b"\x02\0\0\0hi"].concat();
        let head = answer(&[
            output("FP32", &json!([1]), 4),
            output("INT16", &json!([]), 2),
            output("BYTES", &json!([1]), 6),
            json!({ "name": "z", "datatype": "INT64", "shape": [0], "data": [] }),
        ]);
        let outputs = read(&head, &bytes).unwrap();
        let document: Value = serde_json::to_value(&outputs.outputs).unwrap();
        assert_eq!(document[1]["data"], json!([-2]));
        assert_eq!(document[2]["data"], json!(["hi"]));
        assert_eq!(document[3]["data"], json!([]));
        // FP32 is spelled with its own digits, not those of its widening.
        assert!(serde_json::to_string(&outputs).unwrap().contains("\"data\":[0.1]"));
        assert!(outputs.text(Some("queue;dur=1")).ends_with("server timing: queue;dur=1"));
    }

    #[test]
    fn answers_that_do_not_fit_together_are_errors() {
        let one = [output("FP32", &json!([1]), 4)];
        for (head, bytes, problem) in [
            (answer(&one), vec![0; 3], "said to have 4 bytes, and 3 are left"),
            (answer(&one), vec![0; 5], "1 bytes belong to no output"),
            (answer(&[output("FP32", &json!([2]), 4)]), vec![0; 4], "takes 8 bytes"),
            (answer(&[output("FP8", &json!([1]), 1)]), vec![0; 1], "FP8"),
            (
                answer(&[json!({ "name": "y", "datatype": "BOOL", "shape": [1], "data": [3] })]),
                vec![],
                "not BOOL",
            ),
            (
                answer(&[json!({ "name": "y", "datatype": "BOOL", "shape": [2] })]),
                vec![],
                "and 0 came",
            ),
        ] {
            let failure = read(&head, &bytes).unwrap_err().to_string();
            assert!(failure.contains(problem), "{failure}");
        }
    }

    #[test]
    fn one_row_of_scores_shows_its_highest() {
        let scores: Vec<u8> = [0.5f32, 3.0, -1.0, f32::NEG_INFINITY, 2.0, 0.0]
            .iter()
            .flat_map(|s| s.to_le_bytes())
            .collect();
        let outputs = read(&answer(&[output("FP32", &json!([1, 6]), 24)]), &scores).unwrap();
        let text = outputs.text(None);
        assert!(
            text.contains("highest of y:\nINDEX  VALUE\n1      3.000000\n4      2.000000\n"),
            "{text}"
        );
        assert_eq!(text.lines().last(), Some("2      -1.000000"));
        let rows = read(&answer(&[output("FP32", &json!([2, 3]), 24)]), &scores).unwrap();
        assert!(!rows.text(None).contains("highest"));
    }

    #[test]
    fn half_and_brain_floats_have_their_values() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x7c00, f32::INFINITY),
            (0xfc00, f32::NEG_INFINITY),
            (0x3555, 0.333_251_95),
        ] {
            assert_eq!(half(bits), value, "{bits:#x}");
        }
        assert!(half(0x7e00).is_nan());
        assert!(half(0x8000).is_sign_negative());
        assert_eq!(brain(0x3f80), 1.0);
        assert_eq!(brain(0xc040), -3.0);
    }

    #[test]
    fn every_datatype_is_decoded() {
        for datatype in Datatype::ALL {
            let bytes =
                datatype.size().map_or_else(|| vec![1, 0, 0, 0, b'a'], |size| vec![1; size]);
            let tensor = Tensor::new(datatype, vec![1], bytes.into()).unwrap();
            let elements = Elements::of(&tensor);
            assert_eq!(elements.len(), 1, "{datatype}");
            let json = serde_json::to_value(&elements).unwrap();
            let back = Elements::of_json(datatype, json.as_array().unwrap());
            assert_eq!(back, Some(elements), "{datatype}");
        }
    }
}
