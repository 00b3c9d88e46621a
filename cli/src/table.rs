//! Tables and field lists for people, the same on a terminal and in a pipe.

use comfy_table::Table;
use comfy_table::presets::NOTHING;

/// A table under upper-case headings; columns are two spaces apart and nothing is wrapped, so that
/// a line is a row for `grep` and `awk` too.
pub(crate) fn table<const N: usize>(
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let headings = headings.map(str::to_uppercase);
    lay_out(std::iter::once(headings).chain(rows))
}

/// Names and values, one pair a line; pairs with an empty value are left out.
pub(crate) fn fields<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let filled = pairs.into_iter().filter(|(_, value)| !value.is_empty());
    lay_out(filled.map(|(name, value)| [format!("{name}:"), value]))
}

/// Text in which control characters are spelled out, except line ends: what a publisher wrote must
/// not move the cursor of who reads it.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { c.to_string() } else { visible(c) }).collect()
}

fn lay_out<const N: usize>(rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    for row in rows {
        table.add_row(row.map(|cell| cell.chars().map(visible).collect::<String>()));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

fn visible(c: char) -> String {
    if c.is_control() { c.escape_default().to_string() } else { c.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_without_borders_or_trailing_space() {
        let text = table(
            ["name", "bytes"],
            [["mnist".to_owned(), "12".to_owned()], ["a".to_owned(), String::new()]],
        );
        assert_eq!(text, "NAME   BYTES\nmnist  12\na");
    }

    #[test]
    fn empty_fields_are_left_out() {
        let text =
            fields([("model", "m".to_owned()), ("owner", String::new()), ("id", "1".to_owned())]);
        assert_eq!(text, "model:  m\nid:     1");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let text = table(["a"], [["x\u{1b}[2Jy\nz".to_owned()]]);
        assert_eq!(text, "A\nx\\u{1b}[2Jy\\nz");
        assert_eq!(plain("a\nb\r"), "a\nb\\r");
    }
}
