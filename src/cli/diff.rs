//! `sconce diff`: what differs between two recipes.

use std::path::PathBuf;

use sconce_core::compare::compare;

use super::{Failure, plot, print, print_json};

/// Say what differs between two recipes: fields, and what they come to.
///
/// Resolves both recipes with all their layers and lists the fields that differ. Then it computes where over the noise
/// levels each of them trains: shares of the draws, of the loss and of the effective weight on the noisiest tenth of time
/// (900 to 1000 of 1000), the peak, and every range of log-SNR. The effective weight compares across schedules,
/// objectives, weightings and timesteps: it is the weight on the error of v, of area 1, from which Kingma & Gao's
/// (2023) weight on the error of epsilon follows by the factor 1 + 1/SNR.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sconce diff a.toml b.toml
  sconce diff quickstart 'quickstart{weighting=\"min-snr\"}' --plot diff.png
  sconce diff a.toml b.toml --json | jq '.noise.moved'")]
pub struct Args {
    /// A recipe: a file or a built-in recipe's name, with changes in braces: 'my.toml{weighting="min-snr"}'.
    #[arg(value_name = "A")]
    a: String,

    /// Another one.
    #[arg(value_name = "B")]
    b: String,

    /// Change one field of both, as in `sconce train`.
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    set: Vec<String>,

    /// Print the differences as JSON.
    #[arg(long)]
    json: bool,

    /// Draw both into this file, .svg or .png.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    args.plot.as_deref().map(plot::format).transpose()?;
    let (a, b) = (plot::recipe(&args.a, &args.set)?, plot::recipe(&args.b, &args.set)?);
    let comparison = compare([a.0.clone(), b.0.clone()], [&a.1, &b.1]);
    if args.json {
        print_json(&comparison)?;
    } else {
        print(&comparison.to_string())?;
    }
    match args.plot {
        Some(out) => plot::save(&plot::recipes("Two recipes", &[a, b])?, &out),
        None => Ok(()),
    }
}
