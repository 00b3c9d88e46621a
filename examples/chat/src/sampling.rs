//! Which token comes next, given the score of each.

use std::collections::HashMap;

use modelet_guest::{Error, Result, config, highest};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use serde::Deserialize;

/// Tokens whose share is below e to the power of minus this, of the likeliest one's, are never taken: all
/// of them together are less than a hundred-thousandth.
const FARTHEST: f32 = 24.0;

/// What the caller wants; what is missing is for the model to choose.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Parameters {
    /// Tokens at most.
    pub max_tokens: Option<usize>,
    /// Texts before which it ends.
    #[serde(default)]
    pub stop: Vec<String>,
    /// The same seed gives the same text.
    pub seed: Option<i64>,
    /// What scores are divided by; 0 takes the likeliest.
    pub temperature: Option<f32>,
    /// The likeliest tokens that together have this share are left.
    pub top_p: Option<f32>,
    /// So many of the likeliest tokens are left.
    pub top_k: Option<usize>,
    /// What scores of tokens that were there are divided by, or multiplied where they are negative.
    pub repetition_penalty: Option<f32>,
    /// What scores lose for every time that the answer has had a token.
    pub frequency_penalty: Option<f32>,
    /// What they lose for its having been there at all.
    pub presence_penalty: Option<f32>,
}

/// What is chosen where the caller does not.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// Tokens at most.
    pub max_tokens: usize,
    /// As the model's authors recommend.
    pub temperature: f32,
    /// As they recommend, too.
    pub top_p: f32,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { max_tokens: 256, temperature: 0.2, top_p: 0.9 }
    }
}

impl Defaults {
    /// What the operator has set, and the rest.
    ///
    /// # Errors
    /// When a setting is no number.
    pub fn from_config() -> Result<Self> {
        let Self { max_tokens, temperature, top_p } = Self::default();
        Ok(Self {
            max_tokens: config::or("max_tokens", max_tokens)?,
            temperature: config::or("temperature", temperature)?,
            top_p: config::or("top_p", top_p)?,
        })
    }
}

/// Takes one token after the other.
#[derive(Debug)]
pub struct Sampler {
    temperature: f32,
    top_p: f32,
    top_k: usize,
    repetition_penalty: f32,
    frequency_penalty: f32,
    presence_penalty: f32,
    random: ChaCha8Rng,
    /// The tokens there were, and how often the answer has had each.
    counts: HashMap<u32, u32>,
}

/// A token that may come, and its score or share.
type Candidate = (u32, f32);

impl Sampler {
    /// One for these parameters.
    pub fn new(parameters: Parameters, defaults: &Defaults, seed: u64) -> Self {
        Self {
            temperature: parameters.temperature.unwrap_or(defaults.temperature),
            top_p: parameters.top_p.unwrap_or(defaults.top_p),
            top_k: parameters.top_k.unwrap_or(usize::MAX),
            repetition_penalty: parameters.repetition_penalty.unwrap_or(1.0),
            frequency_penalty: parameters.frequency_penalty.unwrap_or(0.0),
            presence_penalty: parameters.presence_penalty.unwrap_or(0.0),
            random: ChaCha8Rng::seed_from_u64(seed),
            counts: HashMap::new(),
        }
    }

    /// Tells it of the prompt's tokens.
    pub fn prompt(&mut self, tokens: &[u32]) {
        self.counts.extend(tokens.iter().map(|token| (*token, 0)));
    }

    /// Takes the next token.
    ///
    /// # Errors
    /// When there are no scores, or none that is a number.
    pub fn next(&mut self, scores: &[f32]) -> Result<u32> {
        let changed = self.penalised(scores);
        let score = |(token, score): (usize, &f32)| {
            let token = u32::try_from(token).ok()?;
            Some((token, changed.get(&token).copied().unwrap_or(*score)))
        };
        let best = best(scores, &changed)?;
        let token = if self.temperature > 0.0 {
            let least = best.1 - FARTHEST * self.temperature;
            let candidates = scores.iter().enumerate().filter_map(score);
            let candidates = candidates.filter(|(_, score)| *score >= least).collect();
            self.draw(candidates, best.1)
        } else {
            best.0
        };
        *self.counts.entry(token).or_default() += 1;
        Ok(token)
    }

    /// The scores that penalties change.
    fn penalised(&self, scores: &[f32]) -> HashMap<u32, f32> {
        let is_free = self.repetition_penalty == 1.0
            && self.frequency_penalty == 0.0
            && self.presence_penalty == 0.0;
        if is_free {
            return HashMap::new();
        }
        let changed = self.counts.iter().filter_map(|(token, count)| {
            let score = *scores.get(*token as usize)?;
            let factor = self.repetition_penalty;
            let score = if score > 0.0 { score / factor } else { score * factor };
            let presence = if *count > 0 { self.presence_penalty } else { 0.0 };
            Some((*token, score - presence - self.frequency_penalty * *count as f32))
        });
        changed.collect()
    }

    /// Draws one of the candidates, of which there is at least the best.
    fn draw(&mut self, mut candidates: Vec<Candidate>, best: f32) -> u32 {
        // By token where scores are equal, so that a seed always means the same.
        candidates.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        candidates.truncate(self.top_k.max(1));
        for (_, score) in &mut candidates {
            *score = ((*score - best) / self.temperature).exp();
        }
        let total: f32 = candidates.iter().map(|(_, share)| share).sum();
        let mut left = 0.0;
        let enough = candidates.iter().position(|(_, share)| {
            left += share;
            left >= self.top_p * total
        });
        if let Some(last) = enough {
            candidates.truncate(last + 1);
        }
        let total: f32 = candidates.iter().map(|(_, share)| share).sum();
        // 24 bits are all that the numbers below 1 have.
        let mut place = (self.random.next_u32() >> 8) as f32 / (1 << 24) as f32 * total;
        let drawn = candidates.iter().find(|(_, share)| {
            place -= share;
            place < 0.0
        });
        drawn.or(candidates.last()).map_or(0, |(token, _)| *token)
    }
}

/// The token of the highest score, the first of several.
fn best(scores: &[f32], changed: &HashMap<u32, f32>) -> Result<Candidate> {
    let found = if changed.is_empty() {
        highest(scores).and_then(|place| Some((place, *scores.get(place)?)))
    } else {
        let changed = |(token, score): (usize, &f32)| {
            let other = u32::try_from(token).ok().and_then(|token| changed.get(&token));
            (token, other.copied().unwrap_or(*score))
        };
        let all = scores.iter().enumerate().map(changed).filter(|(_, score)| !score.is_nan());
        all.reduce(|best, next| if next.1 > best.1 { next } else { best })
    };
    let (token, score) = found.ok_or_else(|| Error::failed("the graph gave no scores"))?;
    Ok((u32::try_from(token)?, score))
}
