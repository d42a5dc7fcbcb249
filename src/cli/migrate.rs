//! `sconce migrate`: a recipe from another trainer's configuration, or from a recipe of an older version.

use std::fs::File;
use std::io::{Read, stdin};
use std::path::{Path, PathBuf};

use sconce_migrate::{Migration, Wanted, migrate};
use sconce_nn::weights::write_atomic;

use super::{Failure, convert, print};

/// Make a recipe of another trainer's configuration.
///
/// Reads kohya's sd-scripts (a TOML file, a command line or a script with one, a dataset's TOML), OneTrainer (JSON) and
/// diffusion-pipe (TOML), and finds out by itself which of them it is. The recipe goes to standard output, or to --out; what
/// came of each field goes to standard error: where it is, or why it has no place, and where the other program does something
/// else than its words say. What the recipe still needs stands in it as a comment. A recipe of an older sconce is brought to
/// this version. Nothing of what is read is run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sconce migrate kohya.toml > my.toml
  sconce migrate train_lora.sh --out my.toml
  sconce migrate config.json --dataset concepts.json --out my.toml
  sconce migrate - < command.txt")]
pub struct Args {
    /// The configuration; `-` reads it from standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Where the recipe is written. Must not be there yet.
    #[arg(long, value_name = "RECIPE")]
    out: Option<PathBuf>,

    /// The file of the pictures' folders, where it is not where the configuration says: the dataset's TOML, OneTrainer's concepts.
    #[arg(long, value_name = "FILE")]
    dataset: Option<PathBuf>,
}

/// Bytes that are read of a file; no configuration has as many.
const MOST: u64 = 1 << 22;

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    args.out.as_deref().map(convert::absent).transpose()?;
    let shown = args.file.display();
    let text = match args.file.to_str() {
        Some("-") => text(stdin().lock()),
        _ => read(&args.file),
    };
    let text = text.map_err(|why| Failure::usage(format!("cannot read `{shown}`: {why}")))?;
    let folder = args.file.parent().unwrap_or(Path::new(""));
    let done = migrate(&text, &mut |wanted, name| match &args.dataset {
        Some(dataset) if wanted == Wanted::Dataset => read(dataset),
        _ => {
            let beside = folder.join(name);
            read(if beside.exists() { &beside } else { Path::new(name) })
        }
    });
    let Migration { recipe, report } =
        done.map_err(|e| Failure::recipe(e).context(format!("cannot migrate `{shown}`")))?;
    match &args.out {
        Some(out) => write_atomic(out, |to| to.write_all(recipe.as_bytes())).map_err(Failure::run)?,
        None => print(&recipe)?,
    }
    eprint!("{report}");
    Ok(())
}

/// A file's text: not that of a device or a pipe, which a configuration may name and which may never end.
fn read(file: &Path) -> Result<String, String> {
    let is_file = std::fs::metadata(file).map_err(|e| e.to_string())?.is_file();
    if !is_file {
        return Err("it is no file".into());
    }
    text(File::open(file).map_err(|e| e.to_string())?)
}

fn text(from: impl Read) -> Result<String, String> {
    let mut bytes = Vec::new();
    from.take(MOST).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 == MOST {
        return Err("it is larger than any configuration".into());
    }
    String::from_utf8(bytes).map_err(|_| "it is no text in UTF-8".into())
}
