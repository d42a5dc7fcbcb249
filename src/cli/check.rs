//! `sconce check`: what a recipe means.

use sconce_core::check;
use sconce_core::recipe::{RecipeSource, resolve};

use super::{Failure, print, print_json};

/// Say what a recipe means, and what is wrong with it.
///
/// Resolves the recipe and computes what follows from it: the noise at both ends, what the loss weighs, the pictures and
/// their buckets, about how much memory. Reads configs and the headers of pictures; touches no weights. A recipe that
/// cannot work is refused, with the reason, and the exit code is 3.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sconce check my.toml
  sconce check my.toml --resolved > whole.toml      the recipe with every default, from all its layers
  sconce check my.toml --json | jq '.refusals'")]
pub struct Args {
    /// A recipe file (.toml, .yaml, .json), or a built-in recipe's name (`sconce list recipe`).
    #[arg(value_name = "RECIPE")]
    recipe: String,

    /// Change one field of the recipe, as in `sconce train`.
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    set: Vec<String>,

    /// Print the explanation as JSON.
    #[arg(long)]
    json: bool,

    /// Print the whole recipe instead, with every default filled in, and where each value comes from.
    #[arg(long, conflicts_with = "json")]
    resolved: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let resolved = resolve(&RecipeSource::named(&args.recipe), &args.set)?;
    if args.resolved {
        let origins: String =
            resolved.origins.iter().map(|(field, origin)| format!("#   {field}: {origin}\n")).collect();
        return print(&format!(
            "{}\n# Where these values come from; the others are their tables' defaults:\n{origins}",
            resolved.to_toml()
        ));
    }
    let mut report = check::explain(&resolved);
    if args.json {
        print_json(&report)?;
    } else {
        let refusals = std::mem::take(&mut report.refusals);
        print(&report.to_string())?;
        report.refusals = refusals;
    }
    if report.refusals.is_empty() { Ok(()) } else { Err(Failure::refused(&report.refusals)) }
}
