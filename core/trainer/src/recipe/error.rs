//! What is wrong with a recipe: each fault with its place, the field, and advice.

use std::fmt;

use sconce_sdk::ParamError;

use super::document::Position;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A recipe's text.
    File {
        /// As the user named it, or `built-in recipe NAME`.
        file: String,
        /// The place in it, where there is one.
        at: Option<Position>,
    },
    /// An environment variable.
    Environment(String),
    /// The command line's `--set`.
    Set(String),
    /// The checkpoint: what was read there.
    Native(String),
    /// A default: why.
    Default(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, at: Some(Position { line, column }) } => write!(f, "{file}:{line}:{column}"),
            Self::File { file, at: None } => write!(f, "{file}"),
            Self::Environment(variable) => write!(f, "environment variable {variable}"),
            Self::Set(argument) => write!(f, "--set {argument}"),
            Self::Native(evidence) => write!(f, "the checkpoint's own ({evidence})"),
            Self::Default(why) => write!(f, "default ({why})"),
        }
    }
}

/// What a fault is about, which scripts learn by the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The recipe.
    Recipe,
    /// The model or a data file that it names.
    Files,
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Where the value at fault was written.
    pub origin: Origin,
    /// The field's dotted path; empty for the whole recipe.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// Whose fault.
    pub blame: Blame,
}

impl Fault {
    pub(super) fn new(origin: Origin, field: &str, error: ParamError) -> Self {
        let message = plain(&error.message);
        Self { origin, field: field.to_owned(), message, help: error.help, blame: Blame::Recipe }
    }

    pub(super) fn syntax(file: &str, at: Option<Position>, message: &str) -> Self {
        let origin = Origin::File { file: file.to_owned(), at };
        // toml's messages run over several lines.
        Self::new(origin, "", ParamError::new(message.trim().replace('\n', ", ")))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.field.is_empty() {
            write!(f, "`{}`: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// Everything found wrong with a recipe.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", lines(.faults))]
pub struct RecipeError {
    /// At least one.
    pub faults: Vec<Fault>,
}

impl RecipeError {
    /// True where the recipe itself is fine and the files that it names are not.
    pub fn blames_files(&self) -> bool {
        self.faults.iter().all(|f| f.blame == Blame::Files)
    }
}

impl From<Fault> for RecipeError {
    fn from(fault: Fault) -> Self {
        Self { faults: vec![fault] }
    }
}

fn lines(faults: &[Fault]) -> String {
    let line = |f: &Fault| match &f.help {
        Some(help) => format!("{f}\n  help: {help}"),
        None => f.to_string(),
    };
    faults.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// serde's message in the words of a recipe instead of Rust's.
fn plain(message: &str) -> String {
    let mut message = message.to_owned();
    for (rust, word) in [
        ("u64", "a whole number from 0 up"),
        ("u32", "a whole number from 0 up"),
        ("usize", "a whole number from 0 up"),
        ("u8", "a whole number from 0 to 255"),
        ("i64", "a whole number"),
        ("f64", "a number"),
        ("f32", "a number"),
        ("a sequence", "a list"),
        ("a map", "a table"),
    ] {
        if let Some(head) = message.strip_suffix(&format!("expected {rust}")) {
            message = format!("{head}expected {word}");
        }
    }
    if let Some((head, _)) = message.split_once("expected struct ") {
        message = format!("{head}expected a table");
    }
    for (rust, word) in [
        ("invalid type: map", "invalid type: table"),
        ("invalid type: sequence", "invalid type: list"),
        ("invalid type: null", "invalid type: nothing"),
        ("invalid type: floating point", "invalid type: the number"),
        ("invalid type: integer", "invalid type: the number"),
        ("invalid value: integer", "invalid value: the number"),
        ("invalid value: floating point", "invalid value: the number"),
        ("invalid value: string", "invalid value: the text"),
        ("invalid type: string", "invalid type: the text"),
    ] {
        message = message.replacen(rust, word, 1);
    }
    message
}
