//! Texts become the tokens of the reference tokenizer.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that is wrong may panic")]

use std::path::PathBuf;

use embedding::{Tokens, tokenizer};

/// A file of the folder that `cargo xtask setup` makes.
fn model_file(name: &str) -> Vec<u8> {
    let folder = std::env::var_os("MODELET_MODELS").expect("MODELET_MODELS, which xtask sets");
    std::fs::read(PathBuf::from(folder).join(name)).unwrap()
}

#[test]
fn five_hundred_sentences_have_the_ids_of_the_reference() {
    let tokenizer = tokenizer(&model_file("minilm-tokenizer.json")).unwrap();
    let sentences = String::from_utf8(model_file("sentences.txt")).unwrap();
    // Some sentences have other line ends in them.
    let sentences: Vec<_> = sentences.trim_end_matches('\n').split('\n').collect();
    let ids = model_file("sentences-ids.json");
    let reference: Vec<Vec<i64>> = serde_json::from_slice(&ids).unwrap();
    assert_eq!((sentences.len(), reference.len()), (500, 500));
    for (sentence, reference) in sentences.iter().zip(reference) {
        let tokens = Tokens::of(&tokenizer, &[(*sentence).to_owned()]).unwrap();
        assert_eq!(tokens.ids.data(), reference, "{sentence}");
        assert!(tokens.mask.data().iter().all(|mask| *mask == 1));
    }
}

#[test]
fn shorter_texts_are_padded_and_the_padding_is_masked() {
    let tokenizer = tokenizer(&model_file("minilm-tokenizer.json")).unwrap();
    let texts = ["A man is eating food.", "Hi"].map(str::to_owned);
    let tokens = Tokens::of(&tokenizer, &texts).unwrap();
    assert_eq!(tokens.ids.shape(), [2, 8]);
    assert_eq!(tokens.ids.row(0).unwrap(), [101, 1037, 2158, 2003, 5983, 2833, 1012, 102]);
    assert_eq!(tokens.ids.row(1).unwrap(), [101, 7632, 102, 0, 0, 0, 0, 0]);
    assert_eq!(tokens.mask.row(1).unwrap(), [1, 1, 1, 0, 0, 0, 0, 0]);
    assert_eq!(tokens.counts().data(), [8, 3]);
}
