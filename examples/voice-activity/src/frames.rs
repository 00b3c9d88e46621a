//! Sound as the graph takes it.

/// Samples of a frame: 32 ms.
pub(crate) const FRAME: usize = 512;
/// Samples before a frame that the graph sees too.
const CONTEXT: usize = 64;
/// Samples of a row: a frame behind those before it.
pub(crate) const ROW: usize = CONTEXT + FRAME;
/// Frames of one run of the graph, which carries the state over them itself: two seconds.
const FRAMES: usize = 64;

/// The place of a sample that is not within -1 and 1, if there is one.
pub(crate) fn not_sound(audio: &[f32]) -> Option<usize> {
    let is_sound = |sample: &f32| sample.abs() <= 1.0;
    // Many at once, which the compiler makes vectors of; the place is looked for only if there is one.
    let all_sound = |samples: &[f32]| samples.iter().fold(true, |all, one| all & is_sound(one));
    let (blocks, rest) = audio.as_chunks::<64>();
    if blocks.iter().all(|block| all_sound(block)) && all_sound(rest) {
        return None;
    }
    audio.iter().position(|sample| !is_sound(sample))
}

/// What the graph is given run by run: rows of the samples before a frame and the frame, the last one
/// filled up with silence.
pub(crate) fn framed(audio: &[f32]) -> impl Iterator<Item = Vec<f32>> {
    audio.chunks(FRAME * FRAMES).scan([0.0f32; CONTEXT], |context, samples| {
        let mut rows = Vec::with_capacity(samples.len().div_ceil(FRAME) * ROW);
        for frame in samples.chunks(FRAME) {
            let end = rows.len() + ROW;
            rows.extend_from_slice(context);
            rows.extend_from_slice(frame);
            rows.resize(end, 0.0);
            if let Some(last) = rows.last_chunk() {
                *context = *last;
            }
        }
        Some(rows)
    })
}
