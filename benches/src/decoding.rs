//! What the sandbox costs models that write token by token: the same graphs driven by the example's guest,
//! and by this process on the calling thread, in turn. The bare side hands caches on as the host does,
//! without a copy, so that the graph's own work is the same.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use modelet_host::engine::memory::{resident_bytes, return_free_memory};
use modelet_host::nn::backend::Cancel;
use modelet_host::nn::graph::Graph;
use modelet_host::tensor::{Datatype, NamedTensor, Tensor};
use serde_json::{Value, json};

use crate::guests::elements;
use crate::pairs::Ratio;
use crate::served::{Ready, Served, floats, model_file};

/// What is gone on with, as the model's tokens and as a text.
const PROMPT: [i64; 7] = [504, 808, 1525, 282, 39361, 2496, 338];
const PROMPT_TEXT: &str = "The first law of thermodynamics states that";
/// Tokens of an answer.
const TOKENS: usize = 64;
/// Pairs of measurements.
const PAIRS: usize = 7;
/// Conversations at once, on the larger of two measurements.
const CONVERSATIONS: usize = 4;
/// Tokens of the prompt whose cache is weighed.
const LONG: usize = 1000;
/// Bytes that one position of a conversation has to be remembered by.
const POSITION_BYTES: usize = 30 * 2 * 3 * 64 * 4;
/// Samples of a second of sound.
const RATE: usize = 16_000;

/// Tokens a second, bare and in the sandbox; and how fast recordings are written down.
pub fn measure() -> Value {
    let served = Served::start(&std::env::current_exe().unwrap());
    let chat = served.example("chat");
    let graph = chat.graph_of("past_k");
    let conversations: Vec<_> = [1, CONVERSATIONS]
        .into_iter()
        .map(|count| at_once(&served, &chat, &graph, count))
        .collect();
    let memory = memory(&served, &chat);
    let transcriber = served.example("transcriber");
    json!({
        "chat": conversations,
        "memory": memory,
        "transcriber": recording(&served, &transcriber),
    })
}

/// So many conversations at once, bare and in the sandbox, in turn.
fn at_once(served: &Served, chat: &Ready, graph: &Arc<Graph>, count: usize) -> Value {
    let bare = || {
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..count {
                scope.spawn(|| generate(graph, &PROMPT, TOKENS));
            }
        });
        begun.elapsed()
    };
    let guests = RefCell::new(Vec::new());
    let sandbox = || {
        let begun = Instant::now();
        let inputs = || asked(PROMPT_TEXT, TOKENS);
        served.runtime().block_on(async {
            let calls = (0..count).map(|_| served.call(chat, inputs()));
            for called in futures_util::future::join_all(calls).await {
                called.outcome.unwrap();
                guests.borrow_mut().push(milliseconds(called.guest) / TOKENS as f64);
            }
        });
        begun.elapsed()
    };
    // Instances that have read their tokenizer, and pages that are there.
    let _warm = (bare(), sandbox());
    let pairs: Vec<_> = (0..PAIRS).map(|_| (bare(), sandbox())).collect();
    let rate = |took: Duration| (count * TOKENS) as f64 / took.as_secs_f64();
    let rates: Vec<_> = pairs.iter().map(|(bare, own)| (rate(*own), rate(*bare))).collect();
    let median =
        |pick: fn(&(f64, f64)) -> f64| crate::pairs::median(rates.iter().map(pick).collect());
    json!({
        "conversations": count,
        "tokens_s": median(|rates| rates.0),
        "bare_tokens_s": median(|rates| rates.1),
        "guest_ms_a_token": crate::pairs::median(guests.into_inner()),
        "ratio": Ratio::of(&rates),
    })
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Goes on with a prompt greedily, without a sandbox.
fn generate(graph: &Graph, prompt: &[i64], tokens: usize) -> Vec<i64> {
    let mut caches = ["past_k", "past_v"].map(|name| floats(name, &[30, 1, 3, 0, 64], |_| 0.0));
    let (mut ids, mut written) = (prompt.to_vec(), Vec::new());
    while written.len() < tokens {
        let [keys, values] = caches;
        let outputs = run(graph, &[integers("input_ids", &[1, ids.len()], &ids), keys, values]);
        caches = [("past_k", "present_k"), ("past_v", "present_v")]
            .map(|(past, present)| (past.to_owned(), output(&outputs, present)));
        ids = vec![likeliest(&output(&outputs, "logits"))];
        written.extend(&ids);
    }
    written
}

/// What a conversation takes in memory, beside what it has to remember.
fn memory(served: &Served, chat: &Ready) -> Value {
    let text = " word".repeat(LONG);
    let call = |tokens| served.call(chat, asked(&text, tokens));
    // Instances first: they are kept when the conversation is over.
    served.runtime().block_on(async {
        futures_util::future::join_all((0..CONVERSATIONS).map(|_| call(1))).await
    });
    return_free_memory();
    let before = resident_bytes();
    let most = served.runtime().block_on(async {
        let calls = futures_util::future::join_all((0..CONVERSATIONS).map(|_| call(TOKENS / 2)));
        let mut calls = std::pin::pin!(calls);
        let mut most = 0;
        loop {
            let look = tokio::time::timeout(Duration::from_millis(5), &mut calls);
            let is_over = look.await.is_ok();
            return_free_memory();
            most = most.max(resident_bytes());
            if is_over {
                return most;
            }
        }
    });
    let positions = (LONG + TOKENS / 2) * CONVERSATIONS;
    json!({
        "conversations": CONVERSATIONS,
        "positions": positions,
        "cache_bytes": positions * POSITION_BYTES,
        "resident_bytes": most.saturating_sub(before),
    })
}

/// One recording, bare and in the sandbox, in turn.
fn recording(served: &Served, transcriber: &Ready) -> Value {
    let file = model_file("recordings/sense_and_sensibility_01_austen_64kb-0870.wav");
    // 16 bits a sample behind a head of 44 bytes.
    let samples: Vec<f32> = file[44..]
        .as_chunks()
        .0
        .iter()
        .map(|sample| f32::from(i16::from_le_bytes(*sample)) / 32768.0)
        .collect();
    let (encoder, decoder) =
        (transcriber.graph_of("input_values"), transcriber.graph_of("use_cache_branch"));
    let inputs = || {
        let parameters = ("parameters".to_owned(), elements(&[b"{}"]));
        vec![("audio".to_owned(), elements(&[&file])), parameters]
    };
    let bare = || {
        let begun = Instant::now();
        transcribe(&encoder, &decoder, &samples);
        begun.elapsed().as_secs_f64()
    };
    let guests = RefCell::new(Vec::new());
    let sandbox = || {
        let begun = Instant::now();
        let called = served.runtime().block_on(served.call(transcriber, inputs()));
        called.outcome.unwrap();
        guests.borrow_mut().push(milliseconds(called.guest));
        begun.elapsed().as_secs_f64()
    };
    let _warm = (bare(), sandbox());
    let pairs: Vec<_> = (0..3 * PAIRS).map(|_| (bare(), sandbox())).collect();
    let speeds: Vec<_> = pairs.iter().map(|(bare, own)| (1.0 / own, 1.0 / bare)).collect();
    let seconds = samples.len() as f64 / RATE as f64;
    let median = |pick: fn(&(f64, f64)) -> f64| {
        seconds * crate::pairs::median(speeds.iter().map(pick).collect())
    };
    json!({
        "seconds": seconds,
        "times_real_time": median(|speeds| speeds.0),
        "bare_times_real_time": median(|speeds| speeds.1),
        "guest_ms": crate::pairs::median(guests.into_inner()),
        "ratio": Ratio::of(&speeds),
    })
}

/// Writes down a recording without a sandbox; the number of tokens.
fn transcribe(encoder: &Graph, decoder: &Graph, samples: &[f32]) -> usize {
    let shape = [1, samples.len()];
    let mask = integers("attention_mask", &shape, &vec![1; samples.len()]);
    let sound = floats("input_values", &shape, |place| samples[place]);
    let heard = output(&run(encoder, &[sound, mask.clone()]), "last_hidden_state");
    let heard = ("encoder_hidden_states".to_owned(), heard);
    let mask = ("encoder_attention_mask".to_owned(), mask.1);
    let names = (0..6).flat_map(|layer| {
        ["decoder", "encoder"].into_iter().flat_map(move |part| {
            ["key", "value"].map(|kind| format!("past_key_values.{layer}.{part}.{kind}"))
        })
    });
    let mut caches: Vec<_> = names.map(|name| floats(&name, &[1, 8, 0, 36], |_| 0.0)).collect();
    let (mut token, mut tokens) = (1, 0);
    while tokens < samples.len() * 13 / (2 * RATE) {
        let flag = vec![u8::from(tokens > 0)];
        let flag = Tensor::new(Datatype::Bool, vec![1], flag.into()).unwrap();
        let mut inputs =
            vec![heard.clone(), mask.clone(), integers("input_ids", &[1, 1], &[token])];
        inputs.push(("use_cache_branch".to_owned(), flag));
        inputs.extend(caches.iter().cloned());
        let outputs = run(decoder, &inputs);
        for (name, cache) in &mut caches {
            if tokens == 0 || name.contains("decoder") {
                *cache = output(&outputs, &name.replace("past_key_values", "present"));
            }
        }
        token = likeliest(&output(&outputs, "logits"));
        if token == 2 {
            break;
        }
        tokens += 1;
    }
    tokens
}

/// The inputs of a call of `chat`, greedy.
fn asked(text: &str, tokens: usize) -> Vec<NamedTensor> {
    let parameters = json!({ "temperature": 0, "max_tokens": tokens }).to_string();
    let text = Value::from(text).to_string();
    [("messages", text), ("parameters", parameters)]
        .map(|(name, text)| (name.to_owned(), elements(&[text.as_bytes()])))
        .into()
}

fn run(graph: &Graph, inputs: &[NamedTensor]) -> Vec<NamedTensor> {
    graph.run(inputs, &Cancel::new()).unwrap()
}

fn output(outputs: &[NamedTensor], name: &str) -> Tensor {
    outputs.iter().find(|(output, _)| output == name).unwrap().1.clone()
}

fn integers(name: &str, shape: &[usize], values: &[i64]) -> NamedTensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    (name.to_owned(), Tensor::new(Datatype::Int64, shape.to_vec(), data.into()).unwrap())
}

/// The place of the highest score.
fn likeliest(scores: &Tensor) -> i64 {
    let scores = scores.data().as_chunks().0.iter().map(|score| f32::from_le_bytes(*score));
    scores.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0 as i64
}
