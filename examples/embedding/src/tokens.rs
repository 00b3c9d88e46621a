//! Texts as the graph takes them.

use modelet_guest::{Error, Result, Tensor};
use tokenizers::{PaddingParams, Tokenizer, TruncationParams};

/// Tokens of a text at most: what the model was trained with, and what bounds the work of a call.
const TOKENS: usize = 128;

/// The tokenizer in a `tokenizer.json`, with truncation and padding as the model wants them.
///
/// # Errors
/// When it is none.
pub fn tokenizer(json: &[u8]) -> Result<Tokenizer> {
    let mut tokenizer = Tokenizer::from_bytes(json).map_err(Error::failed)?;
    let truncation = TruncationParams { max_length: TOKENS, ..TruncationParams::default() };
    tokenizer.with_truncation(Some(truncation)).map_err(Error::failed)?;
    tokenizer.with_padding(Some(PaddingParams::default()));
    Ok(tokenizer)
}

/// Texts as the graph takes them, each padded to the longest: INT64 [texts, tokens].
pub struct Tokens {
    /// The tokens' numbers.
    pub ids: Tensor<i64>,
    /// 1 where there is a token, 0 where there is padding.
    pub mask: Tensor<i64>,
    /// All 0: there is one sentence a text.
    pub types: Tensor<i64>,
}

impl Tokens {
    /// Tokenizes texts, of which there is at least one.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn of(tokenizer: &Tokenizer, texts: &[String]) -> Result<Self> {
        let encodings = texts.iter().map(|text| tokenizer.encode_fast(text.as_str(), true));
        let mut encodings = encodings.collect::<Result<Vec<_>, _>>().map_err(Error::failed)?;
        if let Some(padding) = tokenizer.get_padding() {
            tokenizers::pad_encodings(&mut encodings, padding).map_err(Error::failed)?;
        }
        let length = encodings.first().map_or(0, |encoding| encoding.get_ids().len());
        let tensor = |numbers: fn(&tokenizers::Encoding) -> &[u32]| {
            let all = encodings.iter().flat_map(numbers).map(|number| i64::from(*number));
            Tensor::new([texts.len(), length], all.collect())
        };
        Ok(Self {
            ids: tensor(tokenizers::Encoding::get_ids)?,
            mask: tensor(tokenizers::Encoding::get_attention_mask)?,
            types: tensor(tokenizers::Encoding::get_type_ids)?,
        })
    }

    /// How many tokens each text has, without padding.
    pub fn counts(&self) -> Tensor<i64> {
        let length = self.mask.shape().get(1).copied().unwrap_or(0);
        let masks = self.mask.data().chunks(length.max(1));
        Tensor::vector(masks.map(|mask| mask.iter().sum()).collect())
    }
}
