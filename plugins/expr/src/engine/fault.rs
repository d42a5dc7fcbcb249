//! What is wrong with a formula, and where: the line at fault, a caret under the place, and what to write instead.

use std::ops::Range;

use sconce_sdk::ParamError;
use winnow::error::ParserError;
use winnow::stream::{Location, Stream};

/// Why a formula cannot be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// The bytes at fault.
    pub span: Range<usize>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Whether the grammar may still try something else.
    pub(super) open: bool,
}

impl Fault {
    /// That this is wrong with these bytes.
    pub fn new(span: Range<usize>, what: impl Into<String>) -> Self {
        Self { span, what: what.into(), help: None, open: false }
    }

    /// With advice.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same in a bracket, which may end here too.
    pub(super) fn or_closing(self, or: &str) -> Self {
        Self { what: self.what.replace("an operator is", &format!("an operator, a `)`{or} is")), ..self }
    }

    /// The error for a recipe: what is wrong, and two lines that show where in `text`.
    pub fn explain(self, text: &str) -> ParamError {
        let error = match text.trim() {
            "" => ParamError::new(self.what),
            _ => ParamError::new(format!("{}\n{}", self.what, shown(text, self.span))),
        };
        match self.help {
            Some(help) => error.help(help),
            None => error,
        }
    }
}

/// Letters and signs that papers write and a formula spells out.
const SPELLED: [(char, &str); 18] = [
    ('α', "alpha"),
    ('β', "beta"),
    ('γ', "gamma"),
    ('δ', "delta"),
    ('ε', "eps"),
    ('λ', "lambda"),
    ('μ', "mu"),
    ('π', "pi"),
    ('ρ', "rho"),
    ('σ', "sigma"),
    ('τ', "tau"),
    ('·', "*"),
    ('×', "*"),
    ('÷', "/"),
    ('−', "-"),
    ('²', "^2"),
    ('≤', "<="),
    ('≥', ">="),
];

/// What stands at `at`, where a value was to stand.
pub(super) fn missing_value(text: &str, at: usize) -> Fault {
    match text[at..].chars().next() {
        None if text.trim().is_empty() => Fault::new(at..at, "is empty"),
        None => Fault::new(at..at, "ends where a value is missing"),
        Some(c) => {
            let fault = Fault::new(at..at + c.len_utf8(), format!("a value is missing before `{}`", plain(c)));
            spelled(fault, c)
        }
    }
}

/// What stands at `at`, where an operator or the end was to stand.
pub(super) fn missing_operator(text: &str, at: usize) -> Fault {
    let Some(c) = text[at..].chars().next() else { return Fault::new(at..at, "ends too early") };
    let fault = |what: &str| Fault::new(at..at + c.len_utf8(), what);
    let shown = plain(c);
    match c {
        ')' => fault("this bracket was not opened"),
        ',' => fault("a `,` stands between the values of a function alone"),
        '=' => fault("a formula gives nothing a value").help("`==` compares"),
        '<' | '>' | '!' if !text[at..].starts_with("! ") => fault("comparisons do not follow one another")
            .help("write (a < b) * (b < c): both hold where the product is 1"),
        '&' => fault("there is no `&`").help("write (a < b) * (b < c): both hold where the product is 1"),
        '|' => fault("there is no `|`").help("write max(a < b, b < c): one of them holds where it is 1"),
        '?' | ':' => fault("there is no `?`").help("write if(a < b, x, y)"),
        '%' => fault("there is no `%`").help("write mod(a, b)"),
        c if c.is_alphanumeric() || "(._".contains(c) => {
            spelled(fault("an operator is missing before this").help("a product is written with `*`"), c)
        }
        _ => spelled(fault(&format!("`{shown}` has no meaning in a formula")), c),
    }
}

fn spelled(fault: Fault, c: char) -> Fault {
    match SPELLED.iter().find(|(sign, _)| *sign == c) {
        Some((sign, word)) => fault.help(format!("write `{word}` for {sign}")),
        None => fault,
    }
}

impl<I: Stream + Location> ParserError<I> for Fault {
    type Inner = Self;

    fn from_input(input: &I) -> Self {
        let at = input.current_token_start();
        Self { open: true, ..Self::new(at..at, "cannot be read from here") }
    }

    fn is_backtrack(&self) -> bool {
        self.open
    }

    fn into_inner(self) -> Result<Self, Self> {
        Ok(self)
    }
}

/// The most of a line that is shown on each side of the place.
const AROUND: usize = 40;

/// The line of the span's start with carets under it; of a long line, the part around it.
fn shown(text: &str, span: Range<usize>) -> String {
    let start = floor(text, span.start);
    let line_start = text[..start].rfind('\n').map_or(0, |i| i + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |i| start + i);
    let end = floor(text, span.end).clamp(start, line_end);
    let before: Vec<char> = text[line_start..start].chars().collect();
    let at: Vec<char> = text[start..end].chars().take(AROUND).collect();
    let after: Vec<char> = text[end..line_end].chars().take(AROUND + 1).collect();
    let cut = before.len().saturating_sub(AROUND);
    let lead = if cut > 0 { "…" } else { "" };
    let tail = if after.len() > AROUND { "…" } else { "" };
    let visible = |part: &[char]| part.iter().map(|c| plain(*c)).collect::<String>();
    let line = [visible(&before[cut..]), visible(&at), visible(&after[..after.len().min(AROUND)])].concat();
    let indent = lead.chars().count() + before.len() - cut;
    format!("    {lead}{line}{tail}\n    {}{}", " ".repeat(indent), "^".repeat(at.len().max(1)))
}

/// The start of the character that a byte is in.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0)
}

/// A character that can do nothing to a terminal, and takes one column.
pub(super) fn plain(c: char) -> char {
    match c {
        c if c.is_ascii_graphic() || c.is_alphabetic() || SPELLED.iter().any(|(sign, _)| *sign == c) => c,
        c if c.is_whitespace() => ' ',
        _ => '\u{fffd}',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caret_stands_under_the_place() {
        assert_eq!(shown("min(srn, 1)", 4..7), "    min(srn, 1)\n        ^^^");
        assert_eq!(shown("1 +", 3..3), "    1 +\n       ^");
        assert_eq!(shown("1 +\n  2 * x", 10..11), "      2 * x\n          ^");
        let long = format!("{}x{}", "1 + ".repeat(50), " + 1".repeat(50));
        let lines: Vec<String> = shown(&long, 200..201).lines().map(str::to_owned).collect();
        assert_eq!(lines[0].chars().nth(lines[1].chars().count() - 1), Some('x'));
        assert!(lines[0].chars().count() < 100);
        assert_eq!(shown("a\u{1b}[31m", 1..2), "    a\u{fffd}[31m\n     ^");
    }
}
