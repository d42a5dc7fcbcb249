//! What came of each field. A migration that drops a setting silently gives a run that is quietly another one, so the report
//! has an entry for every field of the input, in its order, and says what the other program does that its words do not.

use std::fmt;

use crate::Program;

/// What came of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the recipe, under these paths.
    Went {
        /// The recipe's fields.
        to: String,
        /// What is different there.
        note: Option<String>,
    },
    /// It was the other program's default, and the recipe needs no word for it.
    Default,
    /// The recipe needs no word for it, for this reason.
    NoNeed(String),
    /// The recipe has no word for it: why, and what to do instead.
    NoPlace(String),
    /// Another field decides in its place.
    Overruled(String),
    /// A field that is not known, with the nearest one that is.
    Unknown(Option<String>),
}

impl Verdict {
    /// It is in the recipe.
    pub(crate) fn went(to: impl Into<String>) -> Self {
        Self::Went { to: to.into(), note: None }
    }

    /// It is in the recipe, and is not quite the same.
    pub(crate) fn near(to: impl Into<String>, note: impl Into<String>) -> Self {
        Self::Went { to: to.into(), note: Some(note.into()) }
    }

    /// The recipe has no word for it.
    pub(crate) fn no_place(why: impl Into<String>) -> Self {
        Self::NoPlace(why.into())
    }

    /// The recipe needs no word for it.
    pub(crate) fn no_need(why: impl Into<String>) -> Self {
        Self::NoNeed(why.into())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Went { to, note: None } => write!(f, "-> {to}"),
            Self::Went { to, note: Some(note) } => write!(f, "-> {to}, but: {note}"),
            Self::Default => write!(f, "was the default: nothing to do"),
            Self::NoNeed(why) => write!(f, "not needed: {why}"),
            Self::NoPlace(why) => write!(f, "NO PLACE: {why}"),
            Self::Overruled(by) => write!(f, "overruled by {by}"),
            Self::Unknown(None) => write!(f, "UNKNOWN: not a field that sconce knows of"),
            Self::Unknown(Some(near)) => write!(f, "UNKNOWN: not a field that sconce knows of; did it mean `{near}`?"),
        }
    }
}

/// A field of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, as it is written there.
    pub field: String,
    /// Its value, shortened; secrets are not shown.
    pub value: String,
    /// What came of it.
    pub verdict: Verdict,
}

/// What came of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whose configuration it is.
    pub program: Program,
    /// Each field of it, in its order.
    pub entries: Vec<Entry>,
    /// Where the other program does something else than its words say, or than the recipe will.
    pub warnings: Vec<String>,
    /// What the recipe needs and the configuration does not say: the recipe's field, and what to write.
    pub asked: Vec<(String, String)>,
}

/// Columns of the report.
const WIDTH: usize = 110;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} fields", self.program, self.entries.len())?;
        for Entry { field, value, verdict } in &self.entries {
            let (said, verdict) = (plain(&format!("  {field} = {value}")), verdict.to_string());
            let one = format!("{said:<48} {verdict}");
            match one.chars().count() <= WIDTH {
                true => writeln!(f, "{}", plain(&one))?,
                false => {
                    writeln!(f, "{said}")?;
                    paragraph(f, &verdict, "      ", "      ")?;
                }
            }
        }
        if !self.warnings.is_empty() {
            writeln!(f, "warnings:")?;
            self.warnings.iter().try_for_each(|w| paragraph(f, w, "  - ", "    "))?;
        }
        if !self.asked.is_empty() {
            writeln!(f, "to be said in the recipe:")?;
            self.asked.iter().try_for_each(|(at, why)| paragraph(f, &format!("{at}: {why}"), "  - ", "    "))?;
        }
        Ok(())
    }
}

/// Writes a text in lines that fit.
fn paragraph(f: &mut fmt::Formatter<'_>, text: &str, first: &str, rest: &str) -> fmt::Result {
    for (i, line) in wrapped(text, WIDTH - rest.len()).iter().enumerate() {
        writeln!(f, "{}{line}", if i == 0 { first } else { rest })?;
    }
    Ok(())
}

/// A text without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// A text in lines of at most `width` characters, where its words allow it.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace().map(plain).filter(|word| !word.is_empty()) {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}
