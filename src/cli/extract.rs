//! `sconce extract`: a LoRA out of two checkpoints.

use std::path::{Path, PathBuf};

use sconce_core::adapter::AdapterLayout;
use sconce_core::train::matches;
use sconce_models::diffusers::weights;
use sconce_models::lora::extract::extract;
use sconce_sdk::Choice;

use super::args::{self, DtypeArg, FilesArg};
use super::convert::{absent, header, write_adapter};
use super::{Failure, print};

/// Take what a fine-tune changed as a LoRA.
///
/// Of every layer the difference between two checkpoints is approximated by a product of the rank, as near as that rank allows.
/// The error that is left is told, and so is what a LoRA cannot hold (biases, norms).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sconce extract models/sdxl civitai.safetensors their-style.safetensors --rank 32
  sconce extract models/sd15 runs/my/model my.safetensors --rank 16 --to kohya --dtype f16")]
pub struct Args {
    /// The checkpoint that the fine-tune began with: a diffusers folder, or a single file.
    #[arg(value_name = "BASE")]
    base: String,

    /// The fine-tune: a folder or a file of the same family and sizes.
    #[arg(value_name = "TUNED")]
    tuned: String,

    /// The LoRA file. Must not be there yet.
    #[arg(value_name = "OUT")]
    out: PathBuf,

    /// The rank.
    #[arg(long, value_name = "RANK", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1024))]
    rank: u32,

    /// The layers, matched against `component.path`, with `*` for any text. May be repeated. Default: all.
    #[arg(long, value_name = "PATTERN")]
    target: Vec<String>,

    /// The layout to write: `peft` or `kohya`.
    #[arg(long, value_name = "LAYOUT", default_value = "peft")]
    to: String,

    /// The type to write.
    #[arg(long, value_enum, value_name = "TYPE", default_value = "f32")]
    dtype: DtypeArg,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    absent(&args.out)?;
    let layout: Choice<dyn AdapterLayout> = args::plugin(&args.to)?;
    let files = FilesArg::default();
    let (base, tuned) = (files.locate(&args.base)?, files.locate(&args.tuned)?);
    let (family, other) = (args::family(&base)?, args::family(&tuned)?);
    if family.name() != other.name() {
        return Err(Failure::files(format!(
            "{} is of the family {}, {} of {}",
            args.base,
            family.name(),
            args.tuned,
            other.name()
        )));
    }
    let stores = family.shapes(&base).map_err(Failure::files)?;
    let takes = |component: &str, path: &str| {
        args.target.is_empty() || args.target.iter().any(|target| matches(target, &format!("{component}.{path}")))
    };
    let from = |dir: &PathBuf| {
        let dir = dir.clone();
        move |component: &str| weights(&dir.join(component))
    };
    let found = extract(&stores, &from(&base), &from(&tuned), args.rank as usize, &takes).map_err(Failure::files)?;
    if found.adapters.is_empty() {
        return Err(Failure::files("the two have the same weights in all these layers"));
    }
    let mut header = header(Path::new(&args.tuned), &tuned);
    header.insert("sconce.extracted".to_owned(), format!("rank {}", args.rank));
    write_adapter(&args.out, &layout, &stores, &found.adapters, Some(args.dtype.into()), &header)?;
    let share = |part: f64, whole: f64| if whole > 0.0 { (part / whole).sqrt() } else { 0.0 };
    print(&format!(
        "wrote {}, {} layers, {} unchanged\nthe rank leaves out {:.2e} of what changed in them; {:.2e} of all that changed is \
         elsewhere\n",
        args.out.display(),
        found.adapters.len(),
        found.unchanged,
        share(found.left_out, found.whole),
        share(found.elsewhere, found.whole + found.elsewhere),
    ))
}
