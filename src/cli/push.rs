//! `sconce push`: what a run left becomes a repository on the Hub.

use std::path::{Path, PathBuf};

use sconce_core::hub::hub;
use sconce_hub::{Reference, Visibility};

use super::transfer::Bars;
use super::{Failure, print};

/// Push a run's result to the Hub: weights, card, recipe and pictures, in one commit.
///
/// The repository is made where there is none. A trained model's folder becomes the repository's root, so that diffusers loads
/// it by the repository's name. The token is read as the Python client reads it: HF_TOKEN, or its token file.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sconce push runs/my-lora hf://me/my-lora
  sconce push runs/my-lora hf://me/my-lora --private --message 'Another 2,000 pictures'")]
pub struct Args {
    /// The folder of a run that has ended.
    #[arg(value_name = "RUN")]
    run: PathBuf,

    /// The repository: `hf://owner/name`, with `@branch` for another branch than main.
    #[arg(value_name = "REPOSITORY")]
    to: String,

    /// Make the repository private, where it is made.
    #[arg(long)]
    private: bool,

    /// The commit's message.
    #[arg(long, default_value = "Upload by sconce")]
    message: String,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let place: Reference = args.to.parse().map_err(failed)?;
    let files = files(&args.run)?;
    let visibility = if args.private { Visibility::Private } else { Visibility::Public };
    let hub = hub().map_err(Failure::files)?;
    let url = hub.push(&place, &files, &args.message, visibility, &mut Bars::default()).map_err(failed)?;
    print(&format!("{} files are at {url}\n", files.len()))
}

fn failed(e: sconce_hub::Error) -> Failure {
    Failure::files(e.to_string())
}

/// The names in the repository and the files here.
fn files(run: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
    let card = run.join("README.md");
    if !card.is_file() || !run.join("recipe.toml").is_file() {
        let why = format!("{}: no run that has ended: there is no README.md and recipe.toml in it", run.display());
        return Err(
            Failure::files(why).help("a run writes them at its end; `sconce train … --resume` goes on with one")
        );
    }
    let mut found = vec![("README.md".to_owned(), card), ("recipe.toml".to_owned(), run.join("recipe.toml"))];
    // The model is the repository; pictures go beside it, checkpoints and caches stay here.
    collect(&run.join("model"), "", &mut found)?;
    collect(&run.join("previews"), "previews/", &mut found)?;
    let entries = std::fs::read_dir(run).map_err(|e| Failure::files(format!("{}: {e}", run.display())))?;
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()) {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if name.ends_with(".safetensors") || name.ends_with(".png") {
            found.push((name, path));
        }
    }
    found.sort();
    if !found.iter().any(|(name, _)| name.ends_with(".safetensors")) {
        return Err(Failure::files(format!("{}: there are no weights in it", run.display())));
    }
    Ok(found)
}

/// All files of a folder, if it is there, with `before` before their names.
fn collect(dir: &Path, before: &str, found: &mut Vec<(String, PathBuf)>) -> Result<(), Failure> {
    if !dir.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(dir).map_err(|e| Failure::files(format!("{}: {e}", dir.display())))? {
        let path = entry.map_err(|e| Failure::files(format!("{}: {e}", dir.display())))?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        match path.is_dir() {
            true => collect(&path, &format!("{before}{name}/"), found)?,
            false => found.push((format!("{before}{name}"), path)),
        }
    }
    Ok(())
}
