//! Which token is taken.
#![allow(clippy::unwrap_used, reason = "a test that is wrong may panic")]

use std::collections::BTreeMap;

use chat::sampling::{Defaults, Parameters, Sampler};

/// Shares of 60, 30 and 10 in a hundred, and one that is too small to be taken.
fn scores() -> Vec<f32> {
    vec![0.1f32.ln(), 0.6f32.ln(), -100.0, 0.3f32.ln()]
}

fn sampler(parameters: Parameters, seed: u64) -> Sampler {
    let plain = Parameters { temperature: Some(1.0), top_p: Some(1.0), ..Parameters::default() };
    let parameters = Parameters {
        temperature: parameters.temperature.or(plain.temperature),
        top_p: parameters.top_p.or(plain.top_p),
        ..parameters
    };
    Sampler::new(parameters, &Defaults::default(), seed)
}

/// How often each token is taken in a thousand first draws.
fn drawn(parameters: &Parameters) -> BTreeMap<u32, u32> {
    let mut counts = BTreeMap::new();
    for seed in 0..1000 {
        let token = sampler(parameters.clone(), seed).next(&scores()).unwrap();
        *counts.entry(token).or_default() += 1;
    }
    counts
}

#[track_caller]
fn near(counts: &BTreeMap<u32, u32>, token: u32, share: u32) {
    let count = counts.get(&token).copied().unwrap_or(0);
    assert!(count.abs_diff(share) < 60, "{counts:?}");
}

#[test]
fn tokens_come_as_often_as_their_shares_say() {
    let counts = drawn(&Parameters::default());
    near(&counts, 1, 600);
    near(&counts, 3, 300);
    near(&counts, 0, 100);
    assert_eq!(counts.len(), 3);
}

#[test]
fn the_temperature_sharpens_and_flattens() {
    let at = |temperature| {
        drawn(&Parameters { temperature: Some(temperature), ..Parameters::default() })
    };
    assert_eq!(at(0.0), BTreeMap::from([(1, 1000)]));
    // Shares of 36, 9 and 1.
    near(&at(0.5), 1, 783);
    near(&at(0.5), 3, 196);
    assert!(at(2.0).get(&0) > drawn(&Parameters::default()).get(&0));
}

#[test]
fn the_likeliest_are_left() {
    let two = drawn(&Parameters { top_k: Some(2), ..Parameters::default() });
    near(&two, 1, 667);
    assert_eq!(two.keys().copied().collect::<Vec<_>>(), [1, 3]);
    let most = drawn(&Parameters { top_p: Some(0.8), ..Parameters::default() });
    assert_eq!(most.keys().copied().collect::<Vec<_>>(), [1, 3]);
    let one = drawn(&Parameters { top_p: Some(0.0), ..Parameters::default() });
    assert_eq!(one, BTreeMap::from([(1, 1000)]));
}

#[test]
fn penalties_are_for_what_was_there() {
    let greedy = Parameters { temperature: Some(0.0), ..Parameters::default() };
    let scores = [2.0, 1.9, 0.0];
    // A prompt's tokens count for repetition, and only for that.
    let repeats = Parameters { repetition_penalty: Some(1.5), ..greedy.clone() };
    let mut sampler = sampler(repeats, 0);
    sampler.prompt(&[0]);
    assert_eq!(sampler.next(&scores).unwrap(), 1);
    assert_eq!(sampler.next(&scores).unwrap(), 0);
    for (parameters, expected) in [
        (Parameters { presence_penalty: Some(0.2), ..greedy.clone() }, [0, 1, 0, 0]),
        (Parameters { frequency_penalty: Some(0.2), ..greedy.clone() }, [0, 1, 0, 1]),
        (greedy, [0, 0, 0, 0]),
    ] {
        let mut sampler = self::sampler(parameters, 0);
        sampler.prompt(&[0]);
        assert_eq!([0; 4].map(|_| sampler.next(&scores).unwrap()), expected);
    }
}

#[test]
fn a_seed_is_one_text_and_another_seed_another() {
    let text = |seed| {
        let mut sampler = sampler(Parameters::default(), seed);
        [0; 40].map(|_| sampler.next(&scores()).unwrap())
    };
    assert_eq!(text(7), text(7));
    assert_ne!(text(7), text(8));
}

#[test]
fn the_highest_score_is_found_wherever_it_is() {
    let greedy = Parameters { temperature: Some(0.0), ..Parameters::default() };
    for place in [0, 1, 15, 16, 31, 32, 36] {
        let mut scores = vec![-1.0f32; 37];
        scores.iter_mut().skip(place).step_by(20).for_each(|score| *score = 0.5);
        let place = u32::try_from(place).unwrap();
        assert_eq!(sampler(greedy.clone(), 0).next(&scores).unwrap(), place);
    }
}

#[test]
fn scores_that_are_none_are_an_error() {
    let mut sampler = sampler(Parameters::default(), 0);
    assert!(sampler.next(&[]).is_err());
    assert!(sampler.next(&[f32::NAN]).is_err());
    let penalised = Parameters { presence_penalty: Some(1.0), ..Parameters::default() };
    assert!(self::sampler(penalised, 0).next(&[f32::NAN]).is_err());
}
