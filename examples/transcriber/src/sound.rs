//! Sound files as what the model hears: one channel, 16,000 samples a second.

use std::io::Cursor;
use std::ops::Range;

use hound::{SampleFormat, WavReader};
use modelet_guest::{Error, Result};
use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{
    Async, FixedAsync, Resampler as _, SincInterpolationParameters, SincInterpolationType,
    WindowFunction,
};

/// Samples of a second that the model hears.
pub const RATE: u32 = 16_000;
/// Samples below which there is no word, and the encoder has nothing to work on: a tenth of a second.
pub const SHORTEST: usize = RATE as usize / 10;
/// Samples that are heard at once at most: 20 seconds, as those that the model was trained with.
const LONGEST: usize = RATE as usize * 20;
/// Samples of a recording at most: a quarter of an hour.
const MOST_SAMPLES: u64 = RATE as u64 * 900;
/// Samples over which quiet is measured: a twentieth of a second, as long as pauses between words.
const PAUSE: usize = RATE as usize / 20;
/// Samples that are resampled at a time.
const CHUNK: usize = 4096;
/// Sample rates that are taken, from below those of telephones to above those of studios.
const RATES: std::ops::RangeInclusive<u32> = 4_000..=384_000;

/// Sound as the model hears it.
pub struct Sound(Vec<f32>);

impl Sound {
    /// Reads a WAV file of any depth, rate and number of channels.
    ///
    /// # Errors
    /// When it is none, or one that is too long.
    pub fn read(file: &[u8]) -> Result<Self> {
        let mut reader = WavReader::new(Cursor::new(file))
            .map_err(|error| Error::failed(format!("it is no WAV file: {error}")))?;
        let spec = reader.spec();
        if !RATES.contains(&spec.sample_rate) || spec.channels == 0 {
            let (rate, channels) = (spec.sample_rate, spec.channels);
            return Err(Error::failed(format!("{channels} channels of {rate} samples a second")));
        }
        let seconds = u64::from(reader.duration()) / u64::from(spec.sample_rate);
        if seconds * u64::from(RATE) > MOST_SAMPLES {
            return Err(Error::failed(format!("it is {seconds} s long, and 900 s are the most")));
        }
        let samples: Vec<f32> = match spec.sample_format {
            SampleFormat::Float => reader.samples::<f32>().collect::<Result<_, _>>()?,
            SampleFormat::Int => {
                let scale = 1.0 / (1u64 << (spec.bits_per_sample.max(1) - 1)) as f32;
                let samples = reader.samples::<i32>();
                samples.map(|sample| Ok(sample? as f32 * scale)).collect::<Result<_>>()?
            }
        };
        if samples.iter().any(|sample| !sample.is_finite()) {
            return Err(Error::failed("a sample is no number"));
        }
        Ok(Self(at_rate(one_channel(samples, usize::from(spec.channels)), spec.sample_rate)?))
    }

    /// How long it is.
    pub fn seconds(&self) -> f32 {
        self.0.len() as f32 / RATE as f32
    }

    /// Its parts, each of which is heard at once, cut where it is quietest.
    pub fn pieces(&self) -> Vec<Range<usize>> {
        let mut pieces = Vec::new();
        let mut start = 0;
        while self.0.len() - start > LONGEST {
            let from = start + LONGEST / 2;
            let window = self.0.get(from..start + LONGEST).unwrap_or_default();
            let end = from + quietest(window);
            pieces.push(start..end);
            start = end;
        }
        pieces.push(start..self.0.len());
        pieces
    }

    /// The samples of a part.
    pub fn samples(&self, piece: &Range<usize>) -> &[f32] {
        self.0.get(piece.clone()).unwrap_or_default()
    }
}

/// The mean of the channels, whose samples alternate.
fn one_channel(samples: Vec<f32>, channels: usize) -> Vec<f32> {
    if channels == 1 {
        return samples;
    }
    let share = 1.0 / channels as f32;
    samples.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() * share).collect()
}

/// Samples of another rate at the model's.
fn at_rate(samples: Vec<f32>, rate: u32) -> Result<Vec<f32>> {
    if rate == RATE || samples.is_empty() {
        return Ok(samples);
    }
    // Speech has little near the highest frequency, where a longer filter would be better.
    let parameters = SincInterpolationParameters::new(128, WindowFunction::BlackmanHarris2)
        .interpolation(SincInterpolationType::Linear)
        .oversampling_factor(256);
    let ratio = f64::from(RATE) / f64::from(rate);
    let mut resampler =
        Async::<f32>::new_sinc(ratio, 1.0, &parameters, CHUNK, 1, FixedAsync::Input)?;
    let length = samples.len();
    let input = SequentialSlice::new(&samples, 1, length)?;
    Ok(resampler.process_all(&input, length, None)?.take_data())
}

/// The middle of the quietest pause.
fn quietest(samples: &[f32]) -> usize {
    let loudness = samples
        .windows(PAUSE)
        .step_by(PAUSE / 4)
        .map(|window| window.iter().map(|sample| sample * sample).sum::<f32>());
    let quietest = loudness.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
    quietest.map_or(samples.len(), |(place, _)| place * (PAUSE / 4) + PAUSE / 2)
}
