//! Rows of several callers in one run of a graph: how they are put together and parted again, and the
//! trial that a graph's rows stay apart.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::backend::{Cancel, LoadedGraph, MAX_PROBE_BYTES};
use crate::tensor::{AlignedBuffer, Datatype, NamedTensor, Tensor, total_bytes};
use crate::version::Signature;

/// Most rows of a shared run. MiniLM does almost three times as many rows a second with 8 as with one, and
/// a tenth more with 32 than with 16 (`docs/benchmarks.json`); whoever comes next waits longer for each of them.
pub const MAX_ROWS: usize = 32;

/// How long the runs of a trial may take together, about: a graph that is slow is tried with fewer rows.
const TRIAL_TIME: Duration = Duration::from_secs(2);

/// How far values of a row may differ between runs with other numbers of rows, which engines compute in
/// another order of additions: this, and a thousandth of the value.
const NEAR: f64 = 1e-4;

/// Whether rows of several callers may share a run of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rows {
    /// They may, up to this many: rows stay apart, which was proven and tried.
    Apart(usize),
    /// They may not, for this reason.
    Mixed(String),
}

/// Rows of a call: the length of axis 0 of all its inputs; none where they differ or have no such axis,
/// or are texts, whose rows have no length.
pub fn count(inputs: &[NamedTensor]) -> Option<usize> {
    let mut lengths = inputs.iter().map(|(_, tensor)| {
        tensor.datatype().size()?;
        tensor.shape().first().copied()
    });
    let first = lengths.next()??;
    lengths.all(|length| length == Some(first)).then_some(first).filter(|rows| *rows > 0)
}

/// Whether two calls differ in the number of rows at most.
pub fn alike(one: &[NamedTensor], other: &[NamedTensor]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|((one_name, one), (other_name, other))| {
            one_name == other_name
                && one.datatype() == other.datatype()
                && one.shape().get(1..) == other.shape().get(1..)
        })
}

/// The inputs of one run for all calls, which are alike and have rows: a copy, one behind the other.
///
/// # Errors
/// When the whole is no tensor.
pub fn join(calls: &[&[NamedTensor]]) -> Result<Vec<NamedTensor>, String> {
    let Some(first) = calls.first() else { return Ok(Vec::new()) };
    first
        .iter()
        .enumerate()
        .map(|(place, (name, like))| {
            let parts = || calls.iter().filter_map(|call| call.get(place)).map(|(_, part)| part);
            let mut data =
                AlignedBuffer::with_capacity(parts().map(|part| part.data().len()).sum());
            parts().for_each(|part| data.extend(part.data()));
            let rows = parts().filter_map(|part| part.shape().first()).sum();
            let shape = std::iter::once(rows).chain(like.shape().iter().skip(1).copied()).collect();
            let whole = Tensor::new(like.datatype(), shape, data.freeze());
            Ok((name.clone(), whole.map_err(|error| error.to_string())?))
        })
        .collect()
}

/// The outputs of each call, from those of a run for all of them: views. `rows` are those of the calls.
///
/// # Errors
/// When an output does not have as many rows as the calls together.
pub fn part(outputs: &[NamedTensor], rows: &[usize]) -> Result<Vec<Vec<NamedTensor>>, String> {
    let all: usize = rows.iter().sum();
    if let Some((name, output)) =
        outputs.iter().find(|(_, tensor)| tensor.shape().first() != Some(&all))
    {
        return Err(format!("output {name:?} is {output:?}, and there were {all} rows"));
    }
    let mut start = 0;
    rows.iter()
        .map(|rows| {
            let from = start;
            start += rows;
            let part = |(name, whole): &NamedTensor| Ok((name.clone(), whole.rows(from, *rows)?));
            outputs.iter().map(part).collect()
        })
        .collect()
}

/// Finds out whether rows stay apart in a graph of which that was proven: runs made-up rows alone,
/// together, in another order and among others. Run in a worker.
pub fn attempt(graph: &dyn LoadedGraph, signature: &Signature) -> Rows {
    // Axes of length one hide much; what cannot be longer is tried so.
    let mut tried = Trial { graph, signature, axis: 2 }.run();
    if tried.is_err() {
        tried = Trial { graph, signature, axis: 1 }.run();
    }
    match tried {
        Ok(most) => Rows::Apart(most),
        Err(reason) => Rows::Mixed(reason),
    }
}

struct Trial<'a> {
    graph: &'a dyn LoadedGraph,
    signature: &'a Signature,
    /// The length of axes that have no fixed one.
    axis: usize,
}

impl Trial<'_> {
    /// The most rows that were tried and stayed apart.
    fn run(&self) -> Result<usize, String> {
        let first = self.row(0)?;
        // The first run prepares much.
        self.alone(&first)?;
        let begun = Instant::now();
        self.alone(&first)?;
        let affordable = TRIAL_TIME.as_nanos() / (begun.elapsed().as_nanos().max(1) * 4);
        let bytes = usize::try_from(total_bytes(&first)).unwrap_or(usize::MAX).max(1);
        let most = usize::try_from(affordable).unwrap_or(MAX_ROWS);
        let most = most.min(MAX_ROWS).min(MAX_PROBE_BYTES / 4 / bytes);
        if most < 2 {
            return Err("a run takes too long, or too much, for trying rows together".to_owned());
        }
        let rows: Vec<_> = (0..most).map(|seed| self.row(seed)).collect::<Result<_, _>>()?;
        let alone: Vec<_> = rows.iter().map(|row| self.alone(row)).collect::<Result<_, _>>()?;
        let mut sizes = vec![2, 3.min(most), most];
        sizes.dedup();
        for size in sizes {
            let in_order: Vec<_> = (0..size).collect();
            let turned: Vec<_> = (0..size).rev().collect();
            for order in [in_order, turned] {
                self.compare(&rows, &alone, &order)?;
            }
        }
        self.neighbours(&rows, most)?;
        Ok(most)
    }

    /// One row of made-up values, others for each seed.
    fn row(&self, seed: usize) -> Result<Vec<NamedTensor>, String> {
        let mut random = Random::new(seed);
        let inputs = self.signature.inputs.iter();
        inputs
            .map(|spec| {
                let inner = spec.shape.iter().skip(1);
                let inner = inner.map(|axis| usize::try_from(*axis).unwrap_or(self.axis));
                let shape: Vec<usize> = std::iter::once(1).chain(inner).collect();
                let count =
                    crate::tensor::element_count(&shape).map_err(|error| error.to_string())?;
                let size = spec.datatype.size().ok_or("texts have no rows of equal length")?;
                if count.saturating_mul(size) > MAX_PROBE_BYTES / 4 {
                    return Err("its inputs are too large to be made up".to_owned());
                }
                let mut data = Vec::with_capacity(count * size);
                (0..count).for_each(|_| random.push(spec.datatype, &mut data));
                let tensor = Tensor::new(spec.datatype, shape, data.into());
                Ok((spec.name.clone(), tensor.map_err(|error| error.to_string())?))
            })
            .collect()
    }

    fn alone(&self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>, String> {
        self.graph
            .run(inputs, &Cancel::new())
            .map_err(|error| format!("made-up rows fail: {error}"))
    }

    /// The outputs of each row of a run of several.
    fn together(&self, rows: &[&[NamedTensor]]) -> Result<Vec<Vec<NamedTensor>>, String> {
        let outputs = self.graph.run(&join(rows)?, &Cancel::new());
        let outputs = outputs.map_err(|error| format!("made-up rows fail together: {error}"))?;
        part(&outputs, &vec![1; rows.len()])
    }

    /// Each row of a run of several is what it is alone.
    fn compare(
        &self,
        rows: &[Vec<NamedTensor>],
        alone: &[Vec<NamedTensor>],
        order: &[usize],
    ) -> Result<(), String> {
        let chosen: Vec<_> =
            order.iter().filter_map(|row| rows.get(*row)).map(Vec::as_slice).collect();
        let together = self.together(&chosen)?;
        for (outputs, row) in together.iter().zip(order) {
            let wanted = alone.get(*row).into_iter().flatten();
            let differs = wanted.zip(outputs).find(|((_, alone), (_, here))| !near(alone, here));
            if let Some(((name, _), _)) = differs {
                let size = order.len();
                return Err(format!("output {name:?} of a row is another among {size} than alone"));
            }
        }
        Ok(())
    }

    /// A row is the same to the last bit whatever stands in the rows beside it.
    fn neighbours(&self, rows: &[Vec<NamedTensor>], most: usize) -> Result<(), String> {
        let others: Vec<_> =
            (most..most * 2).map(|seed| self.row(seed)).collect::<Result<_, _>>()?;
        for size in [2, most] {
            for kept in [0, size - 1] {
                let mix = |own: bool| -> Vec<&[NamedTensor]> {
                    (0..size)
                        .filter_map(|place| {
                            if own || place == kept { rows.get(place) } else { others.get(place) }
                        })
                        .map(Vec::as_slice)
                        .collect()
                };
                let (one, other) = (self.together(&mix(true))?, self.together(&mix(false))?);
                if one.get(kept) != other.get(kept) {
                    return Err("a row's outputs change with the rows beside it".to_owned());
                }
            }
        }
        Ok(())
    }
}

/// Whether two tensors are the same but for rounding.
fn near(one: &Tensor, other: &Tensor) -> bool {
    let close = |a: f64, b: f64| {
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= NEAR + b.abs() / 1000.0
    };
    if one.datatype() != other.datatype() || one.shape() != other.shape() {
        return false;
    }
    match one.datatype() {
        Datatype::Fp32 => {
            let floats = |tensor: &Tensor| {
                let (elements, _) = tensor.data().as_chunks::<4>();
                elements
                    .iter()
                    .map(|bytes| f64::from(f32::from_le_bytes(*bytes)))
                    .collect::<Vec<_>>()
            };
            floats(one).into_iter().zip(floats(other)).all(|(a, b)| close(a, b))
        }
        Datatype::Fp64 => {
            let floats = |tensor: &Tensor| {
                let (elements, _) = tensor.data().as_chunks::<8>();
                elements.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect::<Vec<_>>()
            };
            floats(one).into_iter().zip(floats(other)).all(|(a, b)| close(a, b))
        }
        _ => one.data() == other.data(),
    }
}

/// Made-up values: the same for the same seed.
struct Random(u64);

impl Random {
    fn new(seed: usize) -> Self {
        Self((seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        // Marsaglia's xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Floats within -1 and 1; integers, which are mostly ids, masks and counts, 0 or 1.
    fn push(&mut self, datatype: Datatype, data: &mut Vec<u8>) {
        let bits = self.next();
        let fraction = (bits >> 40) as f64 / f64::from(1 << 23) - 1.0;
        let bit = (bits >> 63) as u8;
        match datatype {
            Datatype::Fp32 => data.extend((fraction as f32).to_le_bytes()),
            Datatype::Fp64 => data.extend(fraction.to_le_bytes()),
            // The upper half of an FP32.
            Datatype::Bf16 => {
                data.extend((fraction as f32).to_le_bytes().get(2..).into_iter().flatten())
            }
            // 1 or -1.
            Datatype::Fp16 => data.extend([0, 0x3c | (bit << 7)]),
            other => {
                data.push(bit);
                data.extend(std::iter::repeat_n(0, other.size().unwrap_or(1) - 1));
            }
        }
    }
}

#[cfg(test)]
mod tests;
