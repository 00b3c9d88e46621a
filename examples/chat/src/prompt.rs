//! Prompts as tokens, and tokens as bytes of text.

use std::collections::HashMap;

use modelet_guest::{Error, Result};
use serde::Deserialize;
use tokenizers::Tokenizer;

/// What the model was told of itself, where nobody says anything else.
const SYSTEM: &str = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";

/// What goes before a message, and behind it.
const START: &str = "<|im_start|>";
const END: &str = "<|im_end|>";
/// What ends a text.
const TEXT_END: &str = "<|endoftext|>";

/// What is to be gone on with.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Prompt {
    /// A text as it stands.
    Text(String),
    /// A conversation.
    Messages(Vec<Message>),
}

/// One message of a conversation.
#[derive(Debug, Deserialize)]
pub struct Message {
    /// Whose it is.
    pub role: String,
    /// What it says.
    pub content: String,
}

/// The tokenizer, and what the model's own tokens mean.
pub struct Tokens {
    /// Finds no tokens of the model's own in a text: whoever writes a message could otherwise end it and
    /// begin another in somebody else's name.
    tokenizer: Tokenizer,
    start: u32,
    end: u32,
    text_end: u32,
    /// The byte that each character of a token stands for.
    bytes: HashMap<char, u8>,
    system: String,
}

impl Tokens {
    /// The tokenizer in a `tokenizer.json`; `system` is the message that begins conversations without
    /// one.
    ///
    /// # Errors
    /// When it is none, or none of this model.
    pub fn new(json: &[u8], system: Option<String>) -> Result<Self> {
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(Error::failed)?;
        tokenizer.set_encode_special_tokens(true);
        let id = |token: &str| {
            let id = tokenizer.token_to_id(token);
            id.ok_or_else(|| Error::failed(format!("the tokenizer does not know {token}")))
        };
        let (start, end, text_end) = (id(START)?, id(END)?, id(TEXT_END)?);
        let system = system.unwrap_or_else(|| SYSTEM.to_owned());
        Ok(Self { tokenizer, start, end, text_end, bytes: alphabet(), system })
    }

    /// A prompt as tokens, behind which the model's own begin.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        let messages = match prompt {
            Prompt::Text(text) => return self.text(text),
            Prompt::Messages(messages) => messages,
        };
        let mut tokens = Vec::new();
        if messages.first().is_none_or(|first| first.role != "system") {
            self.message("system", &self.system, &mut tokens)?;
        }
        for message in messages {
            self.message(&message.role, &message.content, &mut tokens)?;
        }
        tokens.push(self.start);
        tokens.extend(self.text("assistant\n")?);
        Ok(tokens)
    }

    fn message(&self, role: &str, content: &str, tokens: &mut Vec<u32>) -> Result<()> {
        tokens.push(self.start);
        tokens.extend(self.text(&format!("{role}\n{content}"))?);
        tokens.push(self.end);
        tokens.extend(self.text("\n")?);
        Ok(())
    }

    fn text(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(Error::failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Whether the model ends its message, or the text, with this token.
    pub fn is_end(&self, token: u32) -> bool {
        token == self.end || token == self.text_end
    }

    /// The bytes that a token adds to a text, which may be a part of a character; none where it is one of
    /// the model's own.
    ///
    /// # Errors
    /// When there is no such token.
    pub fn bytes(&self, token: u32) -> Result<Vec<u8>> {
        if self.tokenizer.get_added_vocabulary().get_added_tokens_decoder().contains_key(&token) {
            return Ok(Vec::new());
        }
        let spelt = self.tokenizer.id_to_token(token);
        let spelt = spelt.ok_or_else(|| Error::failed(format!("there is no token {token}")))?;
        let byte = |character| self.bytes.get(&character).copied();
        let bytes = spelt.chars().map(byte).collect::<Option<_>>();
        bytes.ok_or_else(|| Error::failed(format!("token {token} is not spelt in bytes: {spelt}")))
    }
}

/// The characters in which tokens spell bytes, as GPT-2 chose them: printable ones of Latin-1 are
/// themselves, and all others, in order, the characters from U+0100 on.
fn alphabet() -> HashMap<char, u8> {
    let is_itself = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let (own, others): (Vec<u8>, Vec<u8>) = (0..=u8::MAX).partition(is_itself);
    let own = own.into_iter().map(|byte| (char::from(byte), byte));
    ('\u{100}'..).zip(others).chain(own).collect()
}
