//! The shape of an input that nobody spelled out: from the nesting of its JSON, or from the model's
//! signature and the number of elements. Pure functions.

use modelet_host::tensor::ShapeText;
use serde_json::Value;

/// A shape as it is typed: `1x3x224x224`.
pub(super) fn parse(text: &str) -> Option<Vec<usize>> {
    let axis = |axis: &str| {
        // `parse` alone would take a sign.
        let digits = !axis.is_empty() && axis.bytes().all(|c| c.is_ascii_digit());
        digits.then(|| axis.parse().ok()).flatten()
    };
    text.split('x').map(axis).collect()
}

/// The shape of a JSON input for an input of the signature's shape `wanted`.
///
/// # Errors
/// When it is ragged, or flat and its elements fit the signature in no way or in several.
pub(super) fn of_json(wanted: &[i64], data: &Value) -> Result<Vec<usize>, String> {
    let nested = of_nesting(data)?;
    match nested.as_slice() {
        _ if nested.len() == wanted.len() => Ok(nested),
        [] => of_elements(wanted, 1),
        [count] => of_elements(wanted, *count),
        // The server says what it wants; what was nested is what was meant.
        _ => Ok(nested),
    }
}

/// The shape of `count` elements for an input of the signature's shape `wanted`: dynamic axes are 1,
/// or a single one takes what the fixed axes leave.
///
/// # Errors
/// When there is no such shape, or more than one.
pub(super) fn of_elements(wanted: &[i64], count: usize) -> Result<Vec<usize>, String> {
    let smallest = smallest(wanted);
    let fixed = product(&smallest);
    if fixed == Some(count) {
        return Ok(smallest);
    }
    let dynamic: Vec<_> = wanted.iter().map(|axis| *axis < 0).collect();
    let text = ShapeText(wanted);
    match (dynamic.iter().filter(|dynamic| **dynamic).count(), fixed) {
        (1, Some(fixed)) if fixed > 0 && count.is_multiple_of(fixed) => Ok(smallest
            .into_iter()
            .zip(dynamic)
            .map(|(axis, dynamic)| if dynamic { count / fixed } else { axis })
            .collect()),
        (0 | 1, _) => Err(format!("{count} elements do not fill the shape {text}")),
        (_, _) => Err(format!(
            "{count} elements fit the shape {text} in several ways: say which, by nesting the JSON \
             or with FILE:SHAPE such as 1x{count}"
        )),
    }
}

/// The signature's shape with 1 for every dynamic axis.
pub(super) fn smallest(wanted: &[i64]) -> Vec<usize> {
    wanted.iter().map(|axis| usize::try_from(*axis).unwrap_or(1)).collect()
}

/// The number of elements, if it can be counted.
pub(super) fn product(shape: &[usize]) -> Option<usize> {
    modelet_host::tensor::element_count(shape).ok()
}

/// The shape that arrays in arrays spell; a number or text is a scalar.
fn of_nesting(data: &Value) -> Result<Vec<usize>, String> {
    let Some(elements) = data.as_array() else { return Ok(Vec::new()) };
    let mut shapes = elements.iter().map(of_nesting);
    let inner = shapes.next().transpose()?.unwrap_or_default();
    for shape in shapes {
        let shape = shape?;
        if shape != inner {
            let (first, other) = (ShapeText(&inner), ShapeText(&shape));
            return Err(format!(
                "it is ragged: elements of shape {first} and {other} side by side"
            ));
        }
    }
    Ok(std::iter::once(elements.len()).chain(inner).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn typed_shapes_are_numbers_with_an_x_between() {
        assert_eq!(parse("1x3x224x224"), Some(vec![1, 3, 224, 224]));
        assert_eq!(parse("7"), Some(vec![7]));
        for bad in ["", "x", "1x", "+1x2", "-1", "1X2", "1x 2", "99999999999999999999"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn nesting_says_the_shape() {
        let shape = |wanted: &[i64], data| of_json(wanted, &data);
        assert_eq!(shape(&[-1, 2], json!([[1, 2], [3, 4], [5, 6]])), Ok(vec![3, 2]));
        assert_eq!(shape(&[], json!(1)), Ok(vec![]));
        assert_eq!(shape(&[-1], json!(["a", "b"])), Ok(vec![2]));
        assert_eq!(shape(&[-1], json!([])), Ok(vec![0]));
        assert_eq!(shape(&[-1, -1, -1], json!([[1, 2]])), Ok(vec![1, 2]));
        assert!(shape(&[2, 2], json!([[1, 2], [3]])).unwrap_err().contains("[2] and [1]"));
        assert!(shape(&[2, 2], json!([1, [2]])).unwrap_err().contains("ragged"));
    }

    #[test]
    fn flat_elements_take_the_only_shape_they_fit() {
        assert_eq!(of_json(&[-1, 1, 2, 2], &json!([1, 2, 3, 4])), Ok(vec![1, 1, 2, 2]));
        assert_eq!(of_json(&[1, 1], &json!(5)), Ok(vec![1, 1]));
        assert_eq!(of_elements(&[-1, 2, 2], 12), Ok(vec![3, 2, 2]));
        assert_eq!(of_elements(&[-1, -1], 1), Ok(vec![1, 1]));
        assert_eq!(of_elements(&[2, 3], 6), Ok(vec![2, 3]));
        assert_eq!(of_elements(&[-1, 3], 0), Ok(vec![0, 3]));
        assert!(of_elements(&[2, 3], 7).unwrap_err().contains("7 elements do not fill"));
        assert!(of_elements(&[-1, 0], 7).is_err());
        assert!(of_elements(&[-1, 4], 7).is_err());
        assert!(of_elements(&[-1, -1], 32).unwrap_err().contains("several ways"));
        assert!(of_elements(&[i64::MAX, i64::MAX], 1).is_err());
    }
}
