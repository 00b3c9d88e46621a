//! 16 kHz audio in, the segments with speech out: Silero VAD, frame by frame with its state.

mod frames;

use modelet_guest::{Graph, Result, Tensor, config, model};

use frames::{FRAME, ROW, framed, not_sound};

/// Samples of a second.
const RATE: f32 = 16_000.0;
/// Numbers of each of the two states.
const STATE: usize = 128;
/// Samples of a call at most, a quarter of an hour.
const MOST_SAMPLES: usize = 16_000 * 900;

/// The model of an instance.
pub struct VoiceActivity {
    graph: Graph,
    segmenter: Segmenter,
}

#[model]
impl VoiceActivity {
    fn load() -> Result<Self> {
        let graph = Graph::load("model.onnx")?;
        Ok(Self { graph, segmenter: Segmenter::from_config()? })
    }

    #[output("segments", [-1, 2])]
    #[output("probability", [-1])]
    fn infer(&mut self, #[input([-1])] audio: Tensor<f32>) -> Result<(Tensor<f32>, Tensor<f32>)> {
        if audio.len() > MOST_SAMPLES {
            return Err(audio.error(format!("more than {MOST_SAMPLES} samples at once")));
        }
        if let Some(place) = not_sound(audio.data()) {
            return Err(audio.error(format!("sample {place} is not within -1 and 1")));
        }
        let probabilities = self.probabilities(audio.data())?;
        let segments = self.segmenter.segments(&probabilities, audio.len());
        let rows = segments.iter().flatten().copied().collect();
        Ok((Tensor::new([segments.len(), 2], rows)?, Tensor::vector(probabilities)))
    }

    /// The probability of speech in each frame, the last one filled up with silence.
    fn probabilities(&self, audio: &[f32]) -> Result<Vec<f32>> {
        let zeros = || Tensor::new([1, 1, STATE], vec![0.0f32; STATE]);
        // The state stays in the host between the runs.
        let (mut h, mut c) = (zeros()?, zeros()?);
        let mut probabilities = Vec::with_capacity(audio.len().div_ceil(FRAME));
        for rows in framed(audio) {
            let input = Tensor::new([rows.len() / ROW, ROW], rows)?;
            let run = self.graph.run().input("input", &input).input("h", &h).input("c", &c);
            let mut outputs = run.compute()?;
            let speech: Tensor<f32> = outputs.take("speech_probs")?;
            probabilities.extend_from_slice(speech.data());
            (h, c) = (outputs.take("hn")?, outputs.take("cn")?);
        }
        Ok(probabilities)
    }
}

/// How probabilities become segments.
#[derive(Debug, Clone)]
pub struct Segmenter {
    /// From this probability on there is speech.
    threshold: f32,
    /// Pauses up to this many seconds belong to a segment.
    pause: f32,
    /// Segments below this many seconds are noise.
    shortest: f32,
    /// Seconds that are added before and behind a segment.
    margin: f32,
}

impl Segmenter {
    fn from_config() -> Result<Self> {
        Ok(Self {
            threshold: config::or("threshold", 0.5)?,
            pause: config::or("pause_s", 0.1)?,
            shortest: config::or("shortest_s", 0.25)?,
            margin: config::or("margin_s", 0.03)?,
        })
    }

    /// Start and end of each segment in seconds, in order and apart from each other.
    fn segments(&self, probabilities: &[f32], samples: usize) -> Vec<[f32; 2]> {
        let mut segments: Vec<[f32; 2]> = Vec::new();
        for (frame, probability) in probabilities.iter().enumerate() {
            if *probability < self.threshold {
                continue;
            }
            let (start, end) = (seconds(frame * FRAME), seconds((frame + 1) * FRAME));
            match segments.last_mut() {
                Some(last) if start - last[1] <= self.pause => last[1] = end,
                _ => segments.push([start, end]),
            }
        }
        segments.retain(|[start, end]| end - start >= self.shortest);
        let whole = seconds(samples);
        let mut before = 0.0f32;
        for segment in &mut segments {
            segment[0] = (segment[0] - self.margin).max(before);
            segment[1] = (segment[1] + self.margin).min(whole);
            before = segment[1];
        }
        segments
    }
}

fn seconds(samples: usize) -> f32 {
    samples as f32 / RATE
}
