//! Recipes from the configurations of other trainers: kohya's sd-scripts (TOML, a command line, its dataset's TOML),
//! OneTrainer (JSON) and diffusion-pipe (TOML, its dataset's TOML), and from recipes of older versions of sconce.
//!
//! Each program has a folder with a table of rules, one a field: where it goes, or why it has no place. One engine
//! (`case/engine.rs`) asks them for every field of the input, so that none is lost; what a program's defaults mean and sconce's do
//! not is said in the recipe. The crate touches no disk: what a configuration names is read by a callback.

mod case;
mod detect;
mod diffusion_pipe;
mod draft;
mod family;
mod flow;
mod kohya;
mod literal;
mod older;
mod onetrainer;
mod optim;
mod place;
mod report;
mod rule;
mod value;

use std::fmt;

pub use report::{Entry, Report, Verdict};

/// Whose configuration it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// kohya's sd-scripts.
    SdScripts,
    /// OneTrainer.
    OneTrainer,
    /// diffusion-pipe.
    DiffusionPipe,
    /// An older sconce.
    Sconce,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SdScripts => "sd-scripts (kohya)",
            Self::OneTrainer => "OneTrainer",
            Self::DiffusionPipe => "diffusion-pipe",
            Self::Sconce => "sconce",
        })
    }
}

/// What another file is for that a configuration names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The pictures: sd-scripts' and diffusion-pipe's dataset TOML, OneTrainer's concepts.
    Dataset,
    /// The prompts of previews.
    Prompts,
    /// More of the configuration itself: sd-scripts' `--config_file`.
    Config,
}

/// Reads a file that a configuration names; an error says why it cannot.
pub type Read<'a> = dyn FnMut(Wanted, &str) -> Result<String, String> + 'a;

/// A recipe, and what came of the configuration's fields.
#[derive(Clone, Debug)]
pub struct Migration {
    /// The recipe, in TOML, with comments. What is still to be said stands in comments alone.
    pub recipe: String,
    /// What came of each field.
    pub report: Report,
}

/// Why there is no recipe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Larger than any configuration.
    #[error("the configuration has {bytes} bytes: more than {} are none", value::LARGEST)]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// More folders of pictures, or settings of them, than any configuration has.
    #[error("the configuration names more than {limit} {what}: that is none")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// Not in the syntax that it begins in.
    #[error("this is no {syntax}: {message}")]
    Syntax {
        /// What it was taken for.
        syntax: &'static str,
        /// Where it ends to be.
        message: String,
    },
    /// Of no program that is known.
    #[error(
        "this is no configuration that sconce knows: {0} (it reads sd-scripts' TOML and command \
             lines, OneTrainer's JSON and diffusion-pipe's TOML, and finds out by itself which of them \
             it is)"
    )]
    Unrecognised(String),
    /// A field with a value of another type.
    #[error("`{field}` is {found}, where {expected} is expected")]
    Wrong {
        /// The field.
        field: String,
        /// What it takes.
        expected: &'static str,
        /// What it has.
        found: String,
    },
    /// A part of a program that sconce has nothing for.
    #[error("{0}")]
    Unsupported(String),
    /// A recipe of a version that is not out yet.
    #[error("the recipe is for sconce {0}, and this is {version}: update sconce", version = older::CURRENT)]
    Newer(String),
}

/// Makes a recipe of a configuration, whosever it is. What it names is read by `read`.
pub fn migrate(text: &str, read: &mut Read) -> Result<Migration, Error> {
    // Windows' editors put a mark in front.
    let text = text.trim_start_matches('\u{feff}');
    match detect::detect(text)? {
        detect::Input::Kohya(config) => kohya::toml(config, read),
        detect::Input::KohyaCommand => kohya::command(text, read),
        detect::Input::KohyaDataset(dataset) => kohya::dataset_alone(dataset),
        detect::Input::OneTrainer(config) => onetrainer::json(config, read),
        detect::Input::DiffusionPipe(config) => diffusion_pipe::toml(config, read),
        detect::Input::DiffusionPipeDataset(dataset) => diffusion_pipe::dataset_alone(dataset),
        detect::Input::Sconce(recipe) => older::migrate(text, &recipe),
    }
}
