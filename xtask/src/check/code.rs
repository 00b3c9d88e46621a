//! Just enough of Rust's lexical grammar to look at code without its comments and literals.

/// One Rust file with its comments and literals blanked out, line for line.
pub(super) struct Code {
    text: String,
}

/// A function with a body.
#[derive(Debug, PartialEq)]
pub(super) struct Function {
    pub(super) name: String,
    /// Line of the `fn`, counted from 1.
    pub(super) line: usize,
    /// Lines from the `fn` to its closing brace.
    pub(super) lines: usize,
}

impl Code {
    /// Reads a file's text; text that is no Rust gives some answer, never a panic.
    pub(super) fn of(source: &str) -> Self {
        let mut text = String::with_capacity(source.len());
        let mut rest = source;
        while let Some(first) = rest.chars().next() {
            let blank = blank_length(rest, text.chars().next_back());
            let (skipped, after) = rest.split_at(blank);
            text.extend(skipped.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = after;
            if blank == 0 {
                text.push(first);
                rest = rest.get(first.len_utf8()..).unwrap_or_default();
            }
        }
        Self { text }
    }

    /// The code without comments and literals.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether the word stands anywhere as a whole word.
    pub(super) fn has_word(&self, word: &str) -> bool {
        words(&self.text).any(|(_, found)| found == word)
    }

    /// The code with the bodies of `#[cfg(test)]` modules blanked out too.
    pub(super) fn without_tests(&self) -> Self {
        const MARK: &str = "#[cfg(test)]";
        let mut text = String::with_capacity(self.text.len());
        let mut rest = self.text.as_str();
        while let Some(start) = rest.find(MARK) {
            let (before, marked) = rest.split_at(start);
            let end = item_length(marked);
            let (tests, after) = marked.split_at(end);
            text.push_str(before);
            text.extend(tests.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = after;
        }
        text.push_str(rest);
        Self { text }
    }

    /// All functions with a body, nested ones too, in the order of their `fn`.
    pub(super) fn functions(&self) -> Vec<Function> {
        let starts = words(&self.text).filter(|(_, word)| *word == "fn").map(|(start, _)| start);
        starts.filter_map(|start| self.function_at(start)).collect()
    }

    fn function_at(&self, start: usize) -> Option<Function> {
        let (before, item) = self.text.split_at_checked(start)?;
        let (_, name) = words(item).nth(1)?;
        // A pointer type such as `fn(u8)` has no name of its own before the parenthesis.
        let head = item.get(2..)?.trim_start();
        if !head.starts_with(name) {
            return None;
        }
        let body = item.get(..item_length(item))?;
        body.ends_with('}').then(|| Function {
            name: name.to_owned(),
            line: before.matches('\n').count() + 1,
            lines: body.matches('\n').count() + 1,
        })
    }
}

/// Bytes of the comment or literal that `rest` begins with; 0 if it begins with code.
fn blank_length(rest: &str, before: Option<char>) -> usize {
    let is_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment_length(rest);
    }
    if rest.starts_with('"') {
        return quoted_length(rest, '"');
    }
    if rest.starts_with('\'') && is_character(rest) {
        return quoted_length(rest, '\'');
    }
    if !is_word && let Some(length) = raw_string_length(rest) {
        return length;
    }
    0
}

/// Tells `'a'` and `'\n'` from the lifetime `'a`.
fn is_character(rest: &str) -> bool {
    let mut characters = rest.chars().skip(1);
    match (characters.next(), characters.next()) {
        (Some('\\'), _) => true,
        (Some(_), Some(second)) => second == '\'',
        _ => false,
    }
}

fn quoted_length(rest: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if c == quote => return at + quote.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

fn raw_string_length(rest: &str) -> Option<usize> {
    let prefix = ["r", "br", "cr"].into_iter().find(|prefix| {
        let marks = rest.strip_prefix(prefix).map(|after| after.trim_start_matches('#'));
        marks.is_some_and(|after| after.starts_with('"'))
    })?;
    let marks = rest.get(prefix.len()..)?;
    let hashes = marks.len() - marks.trim_start_matches('#').len();
    let open = prefix.len() + hashes + 1;
    let close = format!("\"{}", "#".repeat(hashes));
    let body = rest.get(open..)?;
    Some(body.find(&close).map_or(rest.len(), |end| open + end + close.len()))
}

/// Block comments nest.
fn block_comment_length(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(here) = rest.get(at..).filter(|here| !here.is_empty()) {
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// Bytes up to the end of the item that `text` begins with: its `;` or its closing brace.
fn item_length(text: &str) -> usize {
    let mut brackets = 0_usize;
    let mut braces = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets = brackets.saturating_sub(1),
            '{' => braces += 1,
            '}' => {
                braces = braces.saturating_sub(1);
                if braces == 0 {
                    return at + 1;
                }
            }
            ';' if brackets == 0 && braces == 0 => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The words of some code, each with the byte at which it begins.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut at = 0;
    text.split(move |c: char| !is_word(c)).filter_map(move |word| {
        let start = at;
        // `split` takes away one character of any length; the text tells which.
        at += word.len();
        at += text.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
        (!word.is_empty()).then_some((start, word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, line: usize, lines: usize) -> Function {
        Function { name: name.to_owned(), line, lines }
    }

    #[test]
    fn comments_and_literals_are_blank() {
        for source in [
            "// unsafe",
            "/* unsafe /* nested */ unsafe */",
            "let a = \"unsafe \\\" unsafe\";",
            "let a = r#\"unsafe \" unsafe\"#;",
            "let a = br\"unsafe\\\";",
            "let a = ('\"', '\\'', \"unsafe\");",
            "let a = \"unsafe",
        ] {
            assert!(!Code::of(source).has_word("unsafe"), "{source}");
        }
    }

    #[test]
    fn code_between_literals_stays() {
        for source in [
            "'\"'; unsafe {} '\"'",
            "fn a<'a>(b: &'a str) { unsafe {} }",
            "/* a */ unsafe",
            "number\"\" ; unsafe",
            "r##\"\"# \"##; unsafe",
        ] {
            assert!(Code::of(source).has_word("unsafe"), "{source}");
        }
        assert!(!Code::of("#[allow(unsafe_code)]").has_word("unsafe"));
    }

    #[test]
    fn lines_keep_their_numbers() {
        let code = Code::of("// one\n\"two\nthree\"\n/* four\n */ fn six() {\n}\n");
        assert_eq!(code.functions(), [function("six", 5, 2)]);
    }

    #[test]
    fn functions_are_measured_from_fn_to_brace() {
        let source = "\
trait T {
    fn declared(&self, a: [u8; 3]);
}
pub(crate) fn outer(call: fn(u8) -> u8)
where
    u8: Copy,
{
    fn inner() {}
    let text = \"}\";
}
";
        let expected = [function("outer", 4, 7), function("inner", 8, 1)];
        assert_eq!(Code::of(source).functions(), expected);
    }

    #[test]
    fn test_modules_are_left_out() {
        let source =
            "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() {}\n}\n#[cfg(test)]\nmod c;\nfn d() {}";
        let code = Code::of(source).without_tests();
        assert_eq!(code.functions(), [function("a", 1, 1), function("d", 8, 1)]);
    }

    #[test]
    fn what_is_no_rust_gives_an_answer() {
        for source in ["'", "\"", "r#", "r#\"", "/*", "fn", "fn fn", "}}", "é'é", "#[cfg(test)]"]
        {
            let code = Code::of(source);
            assert_eq!(code.text().chars().count(), source.chars().count());
            code.without_tests().functions();
        }
    }
}
