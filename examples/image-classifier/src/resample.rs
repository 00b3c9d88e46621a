//! Bicubic resampling of 8-bit pictures, to the bit what Pillow does, which the network's reference
//! values come from. Libraries that resample in another order of passes differ by up to six levels.
//!
//! Each axis has a pass of its own, first along the rows: a new pixel is a weighted sum of the old ones
//! around it, over a support that grows with the reduction, in fixed point, rounded to 8 bits.

/// Channels of a pixel.
const CHANNELS: usize = 3;
/// Bits behind the point of a weight: as many as a sum of 8-bit values in an `i32` leaves.
const FRACTION_BITS: u32 = 32 - 8 - 2;
/// How far the cubic reaches, in pixels of the result.
const SUPPORT: f64 = 2.0;

/// The weights of the old pixels from `first` on in one new pixel.
struct Kernel {
    first: usize,
    weights: Vec<i32>,
}

/// Resamples a square picture of `side` pixels to `size` of them: bytes `[side, side, 3]` to
/// `[size, size, 3]`.
pub(crate) fn bicubic(picture: &[u8], side: usize, size: usize) -> Vec<u8> {
    let kernels = kernels(side, size);
    // Along the rows: the result is [side, size, 3].
    let mut narrow = Vec::with_capacity(side * size * CHANNELS);
    for row in picture.chunks_exact(side * CHANNELS) {
        for Kernel { first, weights } in &kernels {
            let pixels = row.get(first * CHANNELS..).unwrap_or_default().chunks_exact(CHANNELS);
            let mut sums = [HALF; CHANNELS];
            for (pixel, weight) in pixels.zip(weights) {
                sums.iter_mut()
                    .zip(pixel)
                    .for_each(|(sum, value)| *sum += i32::from(*value) * weight);
            }
            narrow.extend(sums.map(rounded));
        }
    }
    // Along the columns, a whole row at a time.
    let length = size * CHANNELS;
    let mut small = Vec::with_capacity(size * length);
    let mut sums = vec![HALF; length];
    for Kernel { first, weights } in &kernels {
        sums.fill(HALF);
        let rows = narrow.get(first * length..).unwrap_or_default().chunks_exact(length);
        for (row, weight) in rows.zip(weights) {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += i32::from(*value) * weight);
        }
        small.extend(sums.iter().map(|sum| rounded(*sum)));
    }
    small
}

/// Half of the last bit that is kept: what is cut off is then rounded.
const HALF: i32 = 1 << (FRACTION_BITS - 1);

fn rounded(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

/// The kernel of each new pixel along an axis.
fn kernels(side: usize, size: usize) -> Vec<Kernel> {
    let scale = side as f64 / size as f64;
    let stretch = scale.max(1.0);
    let kernel = |place: usize| {
        let centre = (place as f64 + 0.5) * scale;
        let first = (centre - SUPPORT * stretch + 0.5).max(0.0) as usize;
        let end = ((centre + SUPPORT * stretch + 0.5) as usize).min(side);
        let distance = |pixel: usize| (pixel as f64 - centre + 0.5) / stretch;
        let weights: Vec<_> = (first..end).map(|pixel| cubic(distance(pixel))).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: &f64| (weight / sum * f64::from(1 << FRACTION_BITS)).round() as i32;
        Kernel { first, weights: weights.iter().map(fixed).collect() }
    };
    (0..size).map(kernel).collect()
}

/// The cubic with a slope of -1/2 at 1.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    match x.abs() {
        x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < SUPPORT => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        _ => 0.0,
    }
}
