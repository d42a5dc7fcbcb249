//! `sconce lock`: what a run of a recipe depends on, pinned.

use std::path::{Path, PathBuf};

use sconce_core::lock::Lock;
use sconce_core::recipe::{RecipeSource, resolve};
use sconce_nn::weights::write_atomic;

use super::args::DeviceArg;
use super::{Failure, print};

/// Pin everything that a run of a recipe depends on.
///
/// Writes the hashes of the model's files, of the pictures with their captions, the versions of the plugins and of the program,
/// the seed and the kind of machine into a file beside the recipe. From then on `sconce train` refuses to run another one, and
/// says which line differs; and on the same kind of machine the run is the same, bit for bit.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sconce lock my.toml                    writes my.lock
  sconce train my.toml                   holds itself against it
  sconce train my.toml --unlocked        takes no notice of it
  sconce lock hf://owner/name/style.toml --set data.path=pictures --out style.lock")]
pub struct Args {
    /// A recipe, as in `sconce train`.
    #[arg(value_name = "RECIPE")]
    recipe: String,

    /// Change one field of the recipe, as in `sconce train`.
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    set: Vec<String>,

    /// The lock's file. Default: the recipe's with the ending `.lock`.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Where the run is to compute: `cpu`, `cuda:0`, `cuda:1` …
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceArg,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let source = RecipeSource::named(&args.recipe);
    let Some(out) = args.out.clone().or_else(|| beside(&source)) else {
        return Err(Failure::usage("the recipe is no file of this machine: say where its lock is to be, --out FILE"));
    };
    let resolved = resolve(&source, &args.set)?;
    let lock = Lock::of_files(&resolved, &args.device.open()?).map_err(Failure::files)?;
    write_atomic(&out, |to| to.write_all(lock.to_toml().as_bytes())).map_err(Failure::run)?;
    print(&format!("wrote {}\n", out.display()))
}

/// Where a recipe's lock is: beside its file.
pub(super) fn beside(source: &RecipeSource) -> Option<PathBuf> {
    match source {
        RecipeSource::File(file) => Some(file.with_extension("lock")),
        _ => None,
    }
}

/// A lock's file.
pub(super) fn read(file: &Path) -> Result<Lock, Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::files(format!("{}: {e}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|e| failed(&e))?;
    Lock::parse(&text).map_err(|e| failed(&e))
}
