//! Sound files become what the model hears, and the graphs get what the other has left.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that is wrong may panic")]

use std::f32::consts::TAU;
use std::io::Cursor;

use hound::{SampleFormat, WavSpec, WavWriter};
use modelet_guest::testing::{Host, Inputs, Output, call};
use modelet_guest::{Model as _, Result, Tensor};
use transcriber::Transcriber;
use transcriber::sound::Sound;
use transcriber::tokens::Tokens;

/// A tone of 440 Hz as a WAV file.
fn tone(seconds: f32, rate: u32, channels: u16, bits: u16, format: SampleFormat) -> Vec<u8> {
    let spec =
        WavSpec { channels, sample_rate: rate, bits_per_sample: bits, sample_format: format };
    let mut file = Cursor::new(Vec::new());
    let mut writer = WavWriter::new(&mut file, spec).unwrap();
    for sample in 0..(seconds * rate as f32) as u32 {
        let value = 0.5 * (TAU * 440.0 * sample as f32 / rate as f32).sin();
        for _ in 0..channels {
            match format {
                SampleFormat::Float => writer.write_sample(value).unwrap(),
                SampleFormat::Int => {
                    let scale = (1u64 << (bits - 1)) as f32;
                    writer.write_sample((value * scale) as i32).unwrap();
                }
            }
        }
    }
    writer.finalize().unwrap();
    file.into_inner()
}

fn heard(file: &[u8]) -> Vec<f32> {
    let sound = Sound::read(file).unwrap();
    let whole = sound.pieces().last().unwrap().end;
    sound.samples(&(0..whole)).to_vec()
}

#[test]
fn every_rate_depth_and_number_of_channels_sounds_the_same() {
    // A filter may shift sound by a part of a sample.
    let reference =
        |sample: usize, shift: f32| 0.5 * (TAU * 440.0 * (sample as f32 + shift) / 16_000.0).sin();
    for (rate, channels, bits, format) in [
        (16_000, 1, 16, SampleFormat::Int),
        (16_000, 2, 24, SampleFormat::Int),
        (48_000, 1, 16, SampleFormat::Int),
        (44_100, 2, 32, SampleFormat::Float),
        (8_000, 1, 8, SampleFormat::Int),
        (96_000, 6, 32, SampleFormat::Int),
    ] {
        let samples = heard(&tone(1.0, rate, channels, bits, format));
        assert!(samples.len().abs_diff(16_000) <= 1, "{rate}: {}", samples.len());
        // Not at the ends, where a filter hears the silence around.
        let differs = |shift: f32| {
            let differs = (500..15_500).map(|n| (samples[n] - reference(n, shift)).abs());
            differs.fold(0.0, f32::max)
        };
        let most = (-20..=20).map(|shift| differs(shift as f32 / 20.0)).fold(1.0, f32::min);
        assert!(most < if bits == 8 { 0.02 } else { 0.005 }, "{rate} {bits}: {most}");
    }
}

#[test]
fn what_is_above_the_models_hearing_is_not_folded_into_it() {
    // 11 kHz at 44.1 kHz would come back as 5 kHz.
    let spec = WavSpec {
        channels: 1,
        sample_rate: 44_100,
        bits_per_sample: 32,
        sample_format: SampleFormat::Float,
    };
    let mut file = Cursor::new(Vec::new());
    let mut writer = WavWriter::new(&mut file, spec).unwrap();
    for sample in 0..44_100 {
        writer.write_sample((TAU * 11_000.0 * sample as f32 / 44_100.0).sin()).unwrap();
    }
    writer.finalize().unwrap();
    let samples = heard(&file.into_inner());
    let loudest = samples[500..15_500].iter().copied().fold(0.0, f32::max);
    assert!(loudest < 0.005, "{loudest}");
}

#[test]
fn what_is_no_wav_file_is_the_callers_mistake() {
    let whole = tone(0.5, 16_000, 1, 16, SampleFormat::Int);
    for wrong in [&b""[..], b"RIFF", b"ID3\x04 an MP3", &whole[..whole.len() - 7]] {
        assert!(Sound::read(wrong).is_err());
    }
    let slow = tone(0.5, 1_000, 1, 16, SampleFormat::Int);
    assert!(Sound::read(&slow).err().unwrap().to_string().contains("1000 samples"));
}

#[test]
fn a_long_recording_is_cut_where_it_is_quiet() {
    // 30 seconds, silent around 14.
    let spec = WavSpec {
        channels: 1,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: SampleFormat::Int,
    };
    let mut file = Cursor::new(Vec::new());
    let mut writer = WavWriter::new(&mut file, spec).unwrap();
    for sample in 0..480_000 {
        let is_quiet = (223_000..225_000).contains(&sample);
        writer.write_sample(if is_quiet { 0i16 } else { 9_000 }).unwrap();
    }
    writer.finalize().unwrap();
    let pieces = Sound::read(&file.into_inner()).unwrap().pieces();
    assert_eq!(pieces.len(), 2);
    assert!((223_000..225_000).contains(&pieces[0].end), "{pieces:?}");
    assert_eq!((pieces[0].start, pieces[0].end, pieces[1].end), (0, pieces[1].start, 480_000));
}

#[test]
fn tokens_spell_bytes_of_characters() {
    let list = [&b"\x03<s>\x04\xe2\x96\x81a\x01\xc3\x01\xbc\x80\x01"[..], &[b'x'; 128]].concat();
    let tokens = Tokens::read(&list).unwrap();
    assert_eq!(tokens.text(&[0, 1, 2, 3, 1, 99]), "aü a");
    assert_eq!(tokens.text(&[4]).len(), 128);
    assert!(Tokens::read(b"\x05ab").is_err());
}

/// An encoder that tells how many samples it heard.
fn encoder(inputs: &mut Inputs) -> Result<Vec<(&'static str, Output)>> {
    let samples = inputs.take::<f32>("input_values")?;
    assert_eq!(inputs.take::<i64>("attention_mask")?.shape(), samples.shape());
    let state = Tensor::new([1, 1, 288], vec![samples.len() as f32; 288])?;
    Ok(vec![("last_hidden_state", state.into())])
}

/// The names of what is kept, as the graph gives them.
const PRESENT: [&str; 24] = [
    "present.0.decoder.key",
    "present.0.decoder.value",
    "present.0.encoder.key",
    "present.0.encoder.value",
    "present.1.decoder.key",
    "present.1.decoder.value",
    "present.1.encoder.key",
    "present.1.encoder.value",
    "present.2.decoder.key",
    "present.2.decoder.value",
    "present.2.encoder.key",
    "present.2.encoder.value",
    "present.3.decoder.key",
    "present.3.decoder.value",
    "present.3.encoder.key",
    "present.3.encoder.value",
    "present.4.decoder.key",
    "present.4.decoder.value",
    "present.4.encoder.key",
    "present.4.encoder.value",
    "present.5.decoder.key",
    "present.5.decoder.value",
    "present.5.encoder.key",
    "present.5.encoder.value",
];

/// A decoder that writes tokens 3, 4, 5, … and `end` at the last, and counts its runs in what it keeps.
fn decoder(last: usize) -> impl Fn(&mut Inputs) -> Result<Vec<(&'static str, Output)>> {
    move |inputs| {
        assert_eq!(inputs.take::<f32>("encoder_hidden_states")?.data()[0], 8_000.0);
        assert_eq!(inputs.take::<i64>("encoder_attention_mask")?.len(), 8_000);
        let token = inputs.take::<i64>("input_ids")?.data()[0];
        let goes_on = inputs.take::<bool>("use_cache_branch")?.data()[0];
        let mut outputs: Vec<(&'static str, Output)> = Vec::new();
        let mut run = 0;
        for present in PRESENT {
            let past = present.replace("present", "past_key_values");
            let kept = inputs.take::<f32>(&past)?;
            let length = kept.shape()[2];
            if present.contains("decoder") {
                run = length;
            } else {
                // What the first run left, however many there were.
                assert_eq!(length, usize::from(goes_on));
            }
            // Later runs give something else for what was heard, which nobody is to keep.
            let length =
                if present.contains("encoder") { 1 + 6 * usize::from(goes_on) } else { length + 1 };
            let kept = Tensor::new([1, 8, length, 36], vec![0.0f32; 8 * length * 36])?;
            outputs.push((present, kept.into()));
        }
        assert_eq!((goes_on, token), (run > 0, if run == 0 { 1 } else { run as i64 + 2 }));
        let mut scores = vec![0.0f32; 32];
        scores[if run == last { 2 } else { run + 3 }] = 1.0;
        outputs.push(("logits", Tensor::new([1, 1, 32], scores)?.into()));
        Ok(outputs)
    }
}

fn written(last: usize, parameters: &str) -> Result<(String, Vec<f32>, Vec<f32>)> {
    let spelt: Vec<u8> = (0..32u8).flat_map(|token| [1, b'a' + token % 26]).collect();
    let host = Host::new().asset("tokens.bin", spelt);
    let _host = host.graph("encoder.onnx", encoder).graph("decoder.onnx", decoder(last)).install();
    let file = tone(0.5, 16_000, 1, 16, SampleFormat::Int);
    let mut model = Transcriber::load_model()?;
    let parameters = Tensor::vector(vec![parameters.to_owned()]).into();
    let audio = Tensor::vector(vec![file]).into();
    let mut outputs = call(&mut model, vec![("audio", audio), ("parameters", parameters)])?;
    let text = outputs.take::<String>("text")?.into_data().concat();
    assert_eq!(outputs.take::<String>("segment_text")?.data().concat(), text);
    Ok((text, outputs.take("segments")?.into_data(), outputs.take("duration")?.into_data()))
}

#[test]
fn the_decoder_gets_what_it_left_until_it_ends_the_text() {
    let (text, segments, duration) = written(3, "{}").unwrap();
    assert_eq!((text.as_str(), segments, duration), ("def", vec![0.0, 0.5], vec![0.5]));
}

#[test]
fn a_text_that_does_not_end_is_ended() {
    // Half a second has three tokens at most.
    assert_eq!(written(25, "{}").unwrap().0, "def");
}

#[test]
fn another_language_is_refused() {
    assert_eq!(written(1, r#"{"language": "en", "temperature": 0.5}"#).unwrap().0, "d");
    let error = written(1, r#"{"language": "de"}"#).unwrap_err();
    assert!(error.is_bad_input() && error.to_string().contains("\"de\""), "{error}");
    assert!(written(1, "[]").unwrap_err().is_bad_input());
}
