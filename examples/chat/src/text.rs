//! The text of an answer as it grows: whole characters only, and nothing that a stop text would take back.

/// A text that grows by the bytes of tokens.
#[derive(Debug)]
pub struct Growing {
    /// What there is of it, without stop texts.
    whole: String,
    /// Bytes of a character that is not whole yet.
    rest: Vec<u8>,
    /// Bytes that were given out as parts.
    sent: usize,
    /// Texts before the first of which it ends.
    stops: Vec<String>,
    /// Bytes of the longest of them.
    longest: usize,
    is_over: bool,
}

impl Growing {
    /// An empty text that ends before the first of `stops`.
    pub fn new(mut stops: Vec<String>) -> Self {
        stops.retain(|stop| !stop.is_empty());
        let longest = stops.iter().map(String::len).max().unwrap_or(0);
        Self { whole: String::new(), rest: Vec::new(), sent: 0, stops, longest, is_over: false }
    }

    /// Adds a token's bytes; `true` where a stop text has ended it.
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        if self.is_over {
            return true;
        }
        let before = self.whole.len();
        self.rest.extend_from_slice(bytes);
        self.take_characters();
        // A stop text may begin in what came earlier.
        let from = self.whole.floor_char_boundary(before.saturating_sub(self.longest));
        let seen = self.whole.get(from..).unwrap_or_default();
        if let Some(stop) = self.stops.iter().filter_map(|stop| seen.find(stop.as_str())).min() {
            self.whole.truncate(from + stop);
            self.is_over = true;
        }
        self.is_over
    }

    /// What may be said of it that was not said yet.
    pub fn part(&mut self) -> &str {
        let start = self.sent;
        let kept = if self.is_over { 0 } else { self.possible_stop() };
        self.sent = (self.whole.len() - kept).max(start);
        self.whole.get(start..self.sent).unwrap_or_default()
    }

    /// All of it. A character that never became whole is left out.
    pub fn finish(self) -> String {
        self.whole
    }

    /// Moves the characters that are whole to the text; bytes that are none become U+FFFD.
    fn take_characters(&mut self) {
        let rest = std::mem::take(&mut self.rest);
        let mut chunks = rest.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            self.whole.push_str(chunk.valid());
            let is_last = chunks.peek().is_none();
            if is_last && is_beginning(chunk.invalid()) {
                self.rest = chunk.invalid().to_vec();
            } else if !chunk.invalid().is_empty() {
                self.whole.push(char::REPLACEMENT_CHARACTER);
            }
        }
    }

    /// Bytes at the end of the text that may be the beginning of a stop text.
    fn possible_stop(&self) -> usize {
        let is_beginning = |length: &usize| {
            let end =
                self.whole.len().checked_sub(*length).and_then(|start| self.whole.get(start..));
            end.is_some_and(|end| self.stops.iter().any(|stop| stop.starts_with(end)))
        };
        (1..self.longest).rev().find(is_beginning).unwrap_or(0)
    }
}

/// Whether bytes may become a character when more come.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}
