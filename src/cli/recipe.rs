//! `sconce recipe extract`: the recipe and the lock that a weight file was made by.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sconce_core::train::{LOCK, RECIPE};
use sconce_nn::weights::{read_metadata, write_atomic};

use super::inspect::folder_metadata;
use super::{Failure, args, print};

/// What is done with recipes of weight files.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write the recipe and the lock that a weight file was made by.
    ///
    /// Every weight file and model folder that sconce makes holds them in its header. Folders of the machine that made it are cut
    /// down to their last name there: give your own with `--set`, or edit the recipe.
    Extract {
        /// A weight file or a model folder that sconce made.
        #[arg(value_name = "FILE|DIR")]
        path: PathBuf,

        /// The recipe's file; the lock's is beside it. Default: the weight file's name with the ending `.toml`.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let Command::Extract { path, out } = args.command;
    let made = MadeBy::of(&path)?;
    let named = || PathBuf::from(path.file_name().unwrap_or_default()).with_extension("toml");
    let out = out.unwrap_or_else(named);
    let lock = out.with_extension("lock");
    for (file, text) in [(&out, Some(&made.recipe)), (&lock, made.lock.as_ref())] {
        let Some(text) = text else { continue };
        if file.exists() {
            return Err(Failure::usage(format!("`{}` is there already: give another name with --out", file.display())));
        }
        write_atomic(file, |to| to.write_all(text.as_bytes())).map_err(Failure::run)?;
        print(&format!("wrote {}\n", file.display()))?;
    }
    Ok(())
}

/// What a header says of how its weights were made.
pub(super) struct MadeBy {
    pub recipe: String,
    /// Older files have none.
    pub lock: Option<String>,
}

impl MadeBy {
    /// Of a weight file, or of a model folder's denoiser.
    pub fn of(path: &Path) -> Result<Self, Failure> {
        let path = args::here(&path.display().to_string())?;
        let mut header: BTreeMap<String, String> = match path.is_dir() {
            true => folder_metadata(&path),
            false => read_metadata(&path).map_err(Failure::files)?,
        };
        match header.remove(RECIPE) {
            Some(recipe) => Ok(Self { recipe, lock: header.remove(LOCK) }),
            None => Err(Failure::files(format!("`{}` holds no recipe: it was not made by sconce", path.display()))),
        }
    }
}
