//! It says what it heard, as far as it may.
#![allow(clippy::unwrap_used, reason = "a test that is wrong may panic")]

use modelet_guest::testing::{Host, call};
use modelet_guest::{Result, Tensor};
use parrot::Parrot;

/// The text, why it ended, and the tokens.
fn said(messages: &str, parameters: &str) -> Result<(String, String, Vec<i64>)> {
    let input = |text: &str| Tensor::vector(vec![text.to_owned()]).into();
    let inputs = vec![("messages", input(messages)), ("parameters", input(parameters))];
    let mut outputs = call(&mut Parrot, inputs)?;
    let mut text = |name| outputs.take::<String>(name).map(|text| text.into_data().concat());
    Ok((text("text")?, text("finish_reason")?, outputs.take("usage")?.into_data()))
}

const TALK: &str = r#"[{"role": "system", "content": "Be brief."},
    {"role": "user", "content": "one two three four"}]"#;

#[test]
fn the_last_message_comes_back_as_far_as_it_may() {
    let answer = |text: &str, reason: &str, words| (text.into(), reason.into(), vec![6, words]);
    assert_eq!(said(TALK, "{}").unwrap(), answer("one two three four", "stop", 4));
    let short = said(TALK, r#"{"max_tokens": 2}"#).unwrap();
    assert_eq!(short, answer("one two", "length", 2));
    let stopped = said(TALK, r#"{"stop": ["five", " th"]}"#).unwrap();
    assert_eq!(stopped, answer("one two", "stop", 2));
    let within = said(TALK, r#"{"stop": ["e t"]}"#).unwrap();
    assert_eq!(within, answer("on", "stop", 1));
    let turned = said(TALK, r#"{"seed": 7}"#).unwrap();
    assert_eq!(turned, answer("four one two three", "stop", 4));
    assert_eq!(said(r#""a text""#, "{}").unwrap().0, "a text");
}

#[test]
fn every_word_is_emitted_and_a_failure_comes_where_it_is() {
    let host = Host::new().streamed().install();
    said(TALK, "{}").unwrap();
    let parts = host.emitted().into_iter().map(|mut part| part.take::<String>("text").unwrap());
    let parts: Vec<_> = parts.map(|part| part.into_data().concat()).collect();
    assert_eq!(parts, ["one ", "two ", "three ", "four"]);
    drop(host);
    let host = Host::new().streamed().install();
    let error = said(r#""one !fail because of this""#, "{}").unwrap_err();
    assert_eq!((error.to_string().as_str(), host.emitted().len()), ("because of this", 1));
    assert!(said("not JSON", "{}").unwrap_err().is_bad_input());
}
