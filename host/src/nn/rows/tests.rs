//! Putting calls together and parting them, and graphs that pass the trial or do not.

use super::*;
use crate::nn::backend::RunError;
use crate::version::TensorSpec;

fn floats(name: &str, shape: &[usize], values: &[f32]) -> NamedTensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    (name.to_owned(), Tensor::new(Datatype::Fp32, shape.to_vec(), data.into()).unwrap())
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[test]
fn calls_are_put_together_and_parted_in_order() {
    let one = [floats("x", &[1, 2], &[1.0, 2.0])];
    let two = [floats("x", &[2, 2], &[3.0, 4.0, 5.0, 6.0])];
    assert!(alike(&one, &two));
    let whole = join(&[&one, &two]).unwrap();
    assert_eq!(whole, [floats("x", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])]);
    assert_eq!(part(&whole, &[1, 2]).unwrap(), [one.to_vec(), two.to_vec()]);
    let missing = part(&whole, &[1, 1]).unwrap_err();
    assert!(missing.contains("\"x\"") && missing.contains("2 rows"), "{missing}");
}

#[test]
fn calls_that_differ_in_more_than_rows_are_not_alike() {
    let call = [floats("x", &[1, 2], &[1.0, 2.0])];
    assert!(!alike(&call, &[floats("x", &[1, 3], &[0.0; 3])]));
    assert!(!alike(&call, &[floats("y", &[1, 2], &[0.0; 2])]));
    assert!(!alike(&call, &[]));
    let number = Tensor::new(Datatype::Int32, vec![1, 2], vec![0; 8].into()).unwrap();
    assert!(!alike(&call, &[("x".to_owned(), number)]));
}

#[test]
fn rows_are_the_length_that_all_inputs_have() {
    assert_eq!(count(&[floats("x", &[3, 1], &[0.0; 3]), floats("y", &[3], &[0.0; 3])]), Some(3));
    assert_eq!(count(&[floats("x", &[3, 1], &[0.0; 3]), floats("y", &[2], &[0.0; 2])]), None);
    assert_eq!(count(&[floats("x", &[], &[0.0])]), None);
    assert_eq!(count(&[floats("x", &[0, 1], &[])]), None);
    assert_eq!(count(&[]), None);
}

/// A graph that does with rows what a function says.
struct Made<F>(F);

impl<F> LoadedGraph for Made<F>
where
    F: Fn(&[f32]) -> Vec<f32> + Send + Sync,
{
    fn run(&self, inputs: &[NamedTensor], _: &Cancel) -> Result<Vec<NamedTensor>, RunError> {
        let (_, x) = &inputs[0];
        let y = (self.0)(&values(x));
        Ok(vec![floats("y", &[y.len()], &y)])
    }

    fn bytes(&self) -> u64 {
        0
    }
}

fn tried(work: impl Fn(&[f32]) -> Vec<f32> + Send + Sync) -> Rows {
    let input = TensorSpec { name: "x".to_owned(), datatype: Datatype::Fp32, shape: vec![-1] };
    attempt(&Made(work), &Signature { inputs: vec![input], ..Signature::default() })
}

fn refused(work: impl Fn(&[f32]) -> Vec<f32> + Send + Sync) -> String {
    match tried(work) {
        Rows::Mixed(reason) => reason,
        Rows::Apart(most) => panic!("{most} rows"),
    }
}

#[test]
fn rows_that_stay_apart_pass_the_trial() {
    assert_eq!(tried(|x| x.iter().map(|x| x * 2.0).collect()), Rows::Apart(MAX_ROWS));
}

#[test]
fn rows_that_see_each_other_do_not_pass() {
    let scaled = refused(|x| {
        let most = x.iter().copied().fold(0.0, f32::max);
        x.iter().map(|x| x / most).collect()
    });
    assert!(scaled.contains("another among"), "{scaled}");
    let order = refused(|x| x.iter().zip(0..).map(|(x, place)| x + place as f32).collect());
    assert!(order.contains("another among"), "{order}");
    // Less than rounding could explain, and no rounding.
    let slight = refused(|x| {
        let sum: f32 = x.iter().sum();
        x.iter().map(|x| x + (sum - x) * 1e-6).collect()
    });
    assert!(slight.contains("change with the rows beside it"), "{slight}");
}

#[test]
fn a_graph_that_loses_rows_does_not_pass() {
    let lost = refused(|x| x.iter().take(1).copied().collect());
    assert!(lost.contains("rows"), "{lost}");
}

#[test]
fn rounding_is_no_difference() {
    let rounded = |x: &[f32]| {
        let error = if x.len() > 1 { 1e-6 } else { 0.0 };
        x.iter().map(|x| x + error).collect()
    };
    assert_eq!(tried(rounded), Rows::Apart(MAX_ROWS));
}
