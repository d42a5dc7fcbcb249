//! How a command fails: a message with its causes and advice, and an exit code that scripts can use.

use std::fmt;
use std::process::ExitCode;

use sconce_core::check::Note;
use sconce_core::recipe::{Blame, RecipeError};
use sconce_core::train::Failed;
use sconce_sdk::ParamError;

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Run = 1,
    Usage = 2,
    Recipe = 3,
    Files = 4,
    Interrupted = 130,
}

/// A command's failure, as the user reads it.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    errors: Vec<Error>,
}

#[derive(Debug)]
struct Error {
    word: &'static str,
    message: String,
    causes: Vec<String>,
    help: Option<String>,
}

impl Failure {
    /// The run failed.
    pub fn run(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(Exit::Run, error)
    }

    /// The command line asks for what there is not.
    pub fn usage(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(Exit::Usage, error)
    }

    /// A plugin named on the command line cannot be made.
    pub fn plugin(error: ParamError) -> Self {
        let ParamError { path, message, help } = error;
        let message = if path.is_empty() { message } else { format!("`{}`: {message}", path.join(".")) };
        Self { exit: Exit::Usage, errors: vec![Error { word: "error", message, causes: vec![], help }] }
    }

    /// A model or data file is bad or missing.
    pub fn files(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(Exit::Files, error)
    }

    /// A recipe, or what is to become one, is bad.
    pub fn recipe(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(Exit::Recipe, error)
    }

    /// The user stopped it; `message` says what was saved.
    pub fn interrupted(message: impl Into<String>) -> Self {
        let mut failure = Self::new(Exit::Interrupted, message.into());
        failure.errors[0].word = "stopped";
        failure
    }

    /// `check` refuses the recipe.
    pub fn refused(refusals: &[Note]) -> Self {
        let error = |n: &Note| Error {
            word: "refused",
            message: n.message.clone(),
            causes: vec![],
            help: Some(n.help.clone()),
        };
        let exit = if refusals.iter().all(|n| n.blame == Blame::Files) { Exit::Files } else { Exit::Recipe };
        Self { exit, errors: refusals.iter().map(error).collect() }
    }

    fn new(exit: Exit, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let error = error.into();
        let causes = std::iter::successors(error.source(), |e| e.source());
        let causes = causes.map(|e| sconce_core::message(&e)).collect();
        Self { exit, errors: vec![Error { word: "error", message: sconce_core::message(&error), causes, help: None }] }
    }

    /// With what was being done; the message so far becomes the cause.
    #[must_use]
    pub fn context(mut self, doing: impl Into<String>) -> Self {
        if let [error] = self.errors.as_mut_slice() {
            let cause = std::mem::replace(&mut error.message, doing.into());
            error.causes.insert(0, cause);
        }
        self
    }

    /// With advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        if let Some(error) = self.errors.last_mut() {
            error.help = Some(help.into());
        }
        self
    }

    /// The code that the process ends with.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }
}

impl From<RecipeError> for Failure {
    fn from(error: RecipeError) -> Self {
        let exit = if error.blames_files() { Exit::Files } else { Exit::Recipe };
        let errors = error.faults.into_iter().map(|fault| Error {
            word: "error",
            message: fault.to_string(),
            causes: vec![],
            help: fault.help,
        });
        Self { exit, errors: errors.collect() }
    }
}

impl From<Failed> for Failure {
    fn from(error: Failed) -> Self {
        match error {
            Failed::Files(e) => Self::files(e),
            Failed::Run(e) => Self::run(e),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Error { word, message, causes, help } in &self.errors {
            writeln!(f, "{word}: {message}")?;
            for cause in causes {
                writeln!(f, "  because: {cause}")?;
            }
            if let Some(help) = help {
                writeln!(f, "  help: {help}")?;
            }
        }
        Ok(())
    }
}
