//! `sconce merge`: LoRAs into the weights that they were trained on.

use std::path::{Path, PathBuf};

use candle_core::DType;
use sconce_models::folder::copy::Writing;
use sconce_models::lora::Merge;

use super::args::{self, DtypeArg, FilesArg, LoraArg};
use super::convert::{Layout, absent, header, written};
use super::{Failure, print};

/// Merge LoRAs into a model.
///
/// Each weight becomes itself plus the strength times (alpha / rank) B A, summed in f32 and written in the type that it was
/// stored in, or in --dtype. The result draws what the model draws with the LoRAs beside it, without their cost.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sconce merge models/sdxl merged --lora style.safetensors:0.8
  sconce merge civitai.safetensors merged.safetensors --lora a.safetensors --lora b.safetensors:0.5 --dtype f16")]
pub struct Args {
    /// A diffusers folder, or a single file.
    #[arg(value_name = "MODEL")]
    model: String,

    /// What is written: a folder, or a file that ends in `.safetensors`. Must not be there yet.
    #[arg(value_name = "OUT")]
    out: PathBuf,

    /// A LoRA file, in any layout, with its strength after a colon. May be repeated.
    #[arg(long, value_name = "FILE[:SCALE]", required = true)]
    lora: Vec<LoraArg>,

    /// The type to write. Default: as each tensor is stored.
    #[arg(long, value_enum, value_name = "TYPE")]
    dtype: Option<DtypeArg>,

    #[command(flatten)]
    files: FilesArg,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    absent(&args.out)?;
    let from = args.files.locate(&args.model)?;
    let family = args::family(&from)?;
    let stores = family.shapes(&from).map_err(Failure::files)?;
    let loras: Vec<(&Path, f64)> = args.lora.iter().map(|l| (l.file.as_path(), l.scale)).collect();
    let merge = Merge::of(&stores, &loras).map_err(Failure::files)?;
    eprintln!("{} weights change", merge.layers());
    let mut header = header(Path::new(&args.model), &from);
    let said = args.lora.iter().map(|l| format!("{}:{}", l.file.display(), l.scale));
    header.insert("sconce.merged".to_owned(), said.collect::<Vec<_>>().join(" "));
    let edit = |component: &str, name: &str, value| merge.edit(component, name, value);
    let how = Writing { dtype: args.dtype.map(DType::from), edit: &edit, ..Writing::as_it_is(&header) };
    written(&from, &family, &args.out, Layout::of(&args.out), &how)?;
    print(&format!("wrote {}\n", args.out.display()))
}
