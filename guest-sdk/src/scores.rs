//! What a model's scores say.

/// Scores that are compared at once.
const LANES: usize = 16;

/// The place of the highest score, the first of several; none where there is no number.
///
/// ```
/// assert_eq!(modelet_guest::highest(&[0.1, 0.7, 0.2, 0.7]), Some(1));
/// assert_eq!(modelet_guest::highest(&[]), None);
/// ```
pub fn highest(scores: &[f32]) -> Option<usize> {
    // In lanes side by side, of which the compiler makes vector instructions.
    let higher = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = scores.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, score)| *lane = higher(*lane, *score));
    }
    let highest = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, higher);
    let has = |chunk: &[f32]| chunk.iter().fold(false, |found, score| found | (*score == highest));
    let from = scores.chunks(LANES).position(has)? * LANES;
    let within = scores.iter().skip(from).position(|score| *score == highest)?;
    Some(from + within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_highest_is_found_wherever_it_is() {
        for length in [1, 15, 16, 17, 40] {
            for place in 0..length {
                let mut scores = vec![-3.5f32; length];
                scores[place..].fill(2.0);
                scores[0] = if place == 0 { 2.0 } else { f32::NAN };
                assert_eq!(highest(&scores), Some(place), "{length}");
            }
        }
        assert_eq!(highest(&[f32::NEG_INFINITY; 20]), Some(0));
        assert_eq!(highest(&[f32::NAN; 20]), None);
    }
}
