//! Ratios of two things measured in turn, block by block, so that a machine whose speed moves moves both.

use serde::Serialize;

/// Samples of a bootstrap.
const RESAMPLES: usize = 2000;

/// A ratio of what was measured in pairs.
#[derive(Debug, Clone, Serialize)]
pub struct Ratio {
    /// The median of the pairs' ratios.
    pub median: f64,
    /// The bounds of its 95 % bootstrap interval.
    pub interval: [f64; 2],
    /// How many pairs there were.
    pub pairs: usize,
}

impl Ratio {
    /// Of pairs (what is judged, what it is judged by).
    ///
    /// # Panics
    /// Without a pair.
    pub fn of(pairs: &[(f64, f64)]) -> Self {
        let ratios: Vec<f64> = pairs.iter().map(|(one, other)| one / other).collect();
        // A fixed seed: the same measurements give the same interval.
        let mut random = SplitMix(7);
        let mut medians: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                let resample = || ratios[random.below(ratios.len())];
                median(std::iter::repeat_with(resample).take(ratios.len()).collect())
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        let at = |share: f64| medians[(share * (RESAMPLES - 1) as f64) as usize];
        Self { median: median(ratios), interval: [at(0.025), at(0.975)], pairs: pairs.len() }
    }
}

/// The middle value.
///
/// # Panics
/// Without a value.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

/// Steele, Lea and Flood's generator: enough for resampling.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_holds_the_median_and_shrinks_when_pairs_agree() {
        let spread = Ratio::of(&[(1.0, 2.0), (1.2, 2.0), (0.8, 2.0), (1.1, 2.0), (0.9, 2.0)]);
        assert_eq!(spread.median, 0.5);
        assert!(spread.interval[0] < 0.5 && spread.interval[1] > 0.5);
        let agreed = Ratio::of(&[(3.0, 2.0); 9]);
        assert_eq!((agreed.median, agreed.interval), (1.5, [1.5, 1.5]));
    }
}
