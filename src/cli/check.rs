//! `sconce check`: what a recipe means.

use std::path::PathBuf;

use sconce_core::check;

use super::{Failure, plot, print, print_json};

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
  sconce check my.toml --json | jq '.refusals'
  sconce check my.toml --plot my.svg                what it does over time and noise, as curves
  sconce check my.toml --plot both.png --with sdxl-lora")]
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

    /// Draw noise, draws, weight, sampling levels, learning rate and average into this file, .svg or .png.
    #[arg(long, value_name = "FILE", conflicts_with = "resolved")]
    plot: Option<PathBuf>,

    /// Other recipes in the same plot (`sconce diff` says what differs).
    #[arg(long, value_name = "RECIPE", num_args = 1.., requires = "plot")]
    with: Vec<String>,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    args.plot.as_deref().map(plot::format).transpose()?;
    let (label, resolved) = plot::recipe(&args.recipe, &args.set)?;
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
    if !report.refusals.is_empty() {
        return Err(Failure::refused(&report.refusals));
    }
    let Some(out) = args.plot else { return Ok(()) };
    let title = if args.with.is_empty() { label.clone() } else { "Recipes".into() };
    let others = args.with.iter().map(|other| plot::recipe(other, &args.set)).collect::<Result<Vec<_>, _>>()?;
    let all: Vec<_> = [(label, resolved)].into_iter().chain(others).collect();
    plot::save(&plot::recipes(&title, &all)?, &out)
}
