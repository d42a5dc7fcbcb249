//! `sconce train`: runs a recipe.

use std::path::PathBuf;

use super::Failure;
use super::args::DeviceArg;

/// Run a recipe.
///
/// Resolves the recipe, refuses what cannot work, then trains. Everything is written into the run's folder: logs,
/// previews, checkpoints, and at the end the model or the adapter files. Ctrl-C saves a checkpoint and stops.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sconce train quickstart
  sconce train my.toml
  sconce train my.toml --set train.images=200 --set optimizer.lr=5e-5
  sconce train my.toml --resume
  sconce train sdxl-lora --set model.path=models/sdxl --set 'data.source=[{ path = \"pictures\" }]'

A recipe's fields can also come from the environment: SCONCE_TRAIN__IMAGES=200 is train.images = 200. Stronger first:
--set, the environment, the recipe, what it extends, the checkpoint's own settings, the defaults.")]
pub struct Args {
    /// A recipe file (.toml, .yaml, .json), or a built-in recipe's name (`sconce list recipe`).
    #[arg(value_name = "RECIPE")]
    pub recipe: String,

    /// Change one field of the recipe; the value is TOML, or plain text.
    ///
    /// A table that names a plugin can be given by the name alone: `--set schedule=cosine`. `--set adapter=false`,
    /// `validation=false` or `preview=false` takes that table away. May be repeated; the last one wins.
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    pub set: Vec<String>,

    /// Go on from the newest checkpoint in the run's folder; the result is that of a run never stopped, bit for bit.
    #[arg(long)]
    pub resume: bool,

    /// The run's folder. Default: the recipe's `output.dir`, else `runs/` and the recipe's name.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Where to compute: `cpu`, `cuda:0`, `cuda:1` …
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub device: DeviceArg,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    execute(args)
}

// ---- the run itself: filled in with the trainer ----

fn execute(args: Args) -> Result<(), Failure> {
    let source = sconce_core::recipe::RecipeSource::named(&args.recipe);
    let resolved = sconce_core::recipe::resolve(&source, &args.set)?;
    let report = sconce_core::check::without_pictures(&resolved);
    if !report.refusals.is_empty() {
        return Err(Failure::refused(&report.refusals));
    }
    Err(Failure::run("this build has no trainer"))
}
