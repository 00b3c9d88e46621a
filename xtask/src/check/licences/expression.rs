//! SPDX licence expressions: `OR`, `AND`, `WITH` and parentheses, as crates write them.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};

/// Whether the allowed licences are enough to use what is under `expression`.
///
/// `MIT/Apache-2.0`, the way of older crates, means `OR`. An error if it cannot be read.
pub(super) fn is_satisfied(expression: &str, allowed: &BTreeSet<String>) -> Result<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let answer = any(&mut words, allowed)
        .with_context(|| format!("cannot read the licence expression '{expression}'"))?;
    ensure!(words.next().is_none(), "cannot read the licence expression '{expression}'");
    Ok(answer)
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

/// Terms joined by `OR`, which binds less than `AND`.
fn any(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> Result<bool> {
    let mut answer = all(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        answer |= all(words, allowed)?;
    }
    Ok(answer)
}

fn all(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> Result<bool> {
    let mut answer = licence(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        answer &= licence(words, allowed)?;
    }
    Ok(answer)
}

fn licence(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> Result<bool> {
    match words.next() {
        Some("(") => {
            let answer = any(words, allowed)?;
            ensure!(words.next() == Some(")"), "a parenthesis is not closed");
            Ok(answer)
        }
        None | Some(")" | "OR" | "AND" | "WITH") => bail!("a licence is missing"),
        Some(name) if words.next_if_eq(&"WITH").is_some() => {
            let exception = words.next().context("an exception is missing")?;
            Ok(allowed.contains(&format!("{name} WITH {exception}")))
        }
        Some(name) => Ok(allowed.contains(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn satisfied(expression: &str) -> Result<bool> {
        let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
        is_satisfied(expression, &allowed.into())
    }

    #[test]
    fn the_allowed_licences_must_be_enough() {
        for expression in [
            "MIT",
            "GPL-3.0 OR MIT",
            "MIT/Apache-2.0",
            "Apache-2.0 / MIT",
            "(MIT OR Apache-2.0) AND ISC",
            "GPL-3.0 AND Zlib OR MIT",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(satisfied(expression).unwrap(), "{expression}");
        }
        for expression in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "MIT AND (GPL-3.0 OR Zlib)",
            "Apache-2.0",
            "MIT WITH LLVM-exception",
        ] {
            assert!(!satisfied(expression).unwrap(), "{expression}");
        }
    }

    #[test]
    fn an_expression_that_cannot_be_read_is_an_error() {
        for expression in ["", "OR MIT", "MIT OR", "(MIT", "MIT)", "MIT ISC", "MIT WITH"] {
            assert!(satisfied(expression).is_err(), "'{expression}'");
        }
    }
}
