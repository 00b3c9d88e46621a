//! Frames become segments, and the state goes from run to run.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that is wrong may panic")]

use modelet_guest::testing::{Host, Inputs, call};
use modelet_guest::{Model as _, Result, Tensor};
use voice_activity::VoiceActivity;

/// Samples of a frame.
const FRAME: usize = 512;

/// A graph that takes loud frames for speech, and counts all frames in its state.
fn graph(inputs: &mut Inputs) -> Result<Vec<(&'static str, modelet_guest::testing::Output)>> {
    let frames = inputs.take::<f32>("input")?;
    assert_eq!(frames.shape()[1], 64 + FRAME);
    let h = inputs.take::<f32>("h")?;
    let c = inputs.take::<f32>("c")?;
    let mut count = h.data()[0];
    let probabilities = frames.data().chunks(64 + FRAME).map(|frame| {
        // What is before a frame is the end of the one before it.
        assert!(count > 0.0 || frame[..64].iter().all(|sample| *sample == 0.0));
        count += 1.0;
        frame[64].abs()
    });
    let probabilities = Tensor::vector(probabilities.collect::<Vec<_>>());
    let state = Tensor::new([1, 1, 128], vec![count; 128])?;
    Ok(vec![("speech_probs", probabilities.into()), ("hn", state.into()), ("cn", c.into())])
}

/// Segments of audio whose frames are this loud.
fn segments(loudness: &[f32]) -> Vec<f32> {
    let _host = Host::new().graph("model.onnx", graph).config("margin_s", "0").install();
    let audio = loudness.iter().flat_map(|loudness| [*loudness; FRAME]).collect();
    let mut model = VoiceActivity::load_model().unwrap();
    let mut outputs = call(&mut model, vec![("audio", Tensor::vector(audio).into())]).unwrap();
    assert_eq!(outputs.take::<f32>("probability").unwrap().data(), loudness);
    outputs.take::<f32>("segments").unwrap().into_data()
}

/// Seconds of frames.
fn frames(count: usize) -> f32 {
    (count * FRAME) as f32 / 16_000.0
}

#[test]
fn short_pauses_belong_to_a_segment_and_short_noises_to_none() {
    let mut loudness = vec![0.0; 200];
    loudness[10..40].fill(0.9);
    loudness[20..22].fill(0.1);
    loudness[60..62].fill(0.9);
    loudness[100..180].fill(0.6);
    assert_eq!(segments(&loudness), [frames(10), frames(40), frames(100), frames(180)]);
}

#[test]
fn silence_and_nothing_have_no_segments() {
    assert!(segments(&[0.0; 70]).is_empty());
    assert!(segments(&[]).is_empty());
}

#[test]
fn samples_out_of_range_are_named() {
    let _host = Host::new().graph("model.onnx", graph).install();
    let mut model = VoiceActivity::load_model().unwrap();
    for wrong in [1.5, f32::NAN] {
        let inputs = vec![("audio", Tensor::vector(vec![0.0, wrong]).into())];
        let error = call(&mut model, inputs).unwrap_err();
        assert!(error.is_bad_input() && error.to_string().contains("sample 1"), "{error}");
    }
}
