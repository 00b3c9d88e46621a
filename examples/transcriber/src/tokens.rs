//! Tokens as text.

use modelet_guest::{Error, Result};

/// What stands for a space in a token.
const SPACE: char = '\u{2581}';

/// What each token spells, by its number.
pub struct Tokens(Vec<Vec<u8>>);

impl Tokens {
    /// Reads the model's list: each token behind its length, a byte, or two from 128 on.
    ///
    /// # Errors
    /// When it ends in a token.
    pub fn read(mut list: &[u8]) -> Result<Self> {
        let mut tokens = Vec::new();
        while let Some((length, rest)) = length(list) {
            let (token, rest) = rest
                .split_at_checked(length)
                .ok_or_else(|| Error::failed("the list of tokens ends in one"))?;
            tokens.push(token.to_vec());
            list = rest;
        }
        Ok(Self(tokens))
    }

    /// The text that tokens spell; characters may be spelt by several. Those of the model's own, `<s>` and
    /// the like, spell nothing.
    pub fn text(&self, tokens: &[usize]) -> String {
        let spelt = tokens.iter().filter_map(|token| self.0.get(*token));
        let spelt = spelt.filter(|token| !is_own(token)).flatten().copied().collect::<Vec<_>>();
        String::from_utf8_lossy(&spelt).replace(SPACE, " ").trim().to_owned()
    }
}

fn is_own(token: &[u8]) -> bool {
    token.starts_with(b"<") && token.ends_with(b">")
}

fn length(list: &[u8]) -> Option<(usize, &[u8])> {
    match list {
        [] => None,
        [low, high, rest @ ..] if *low >= 128 => {
            Some((usize::from(*low) + 128 * usize::from(*high) - 128, rest))
        }
        [length, rest @ ..] => Some((usize::from(*length), rest)),
    }
}
