//! `sconce convert`: a model from one layout into another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::DType;
use sconce_core::embedded::locate_model;
use sconce_models::original::file;
use sconce_nn::weights::read_metadata;

use super::args::{self, DtypeArg};
use super::inspect::folder_metadata;
use super::sample::component_file;
use super::{Failure, print};

/// Turn a model from one layout into another.
///
/// Between a diffusers folder and a single file as ComfyUI, Forge and A1111 load it, both ways and exactly: no number
/// changes unless --dtype asks for it. Tensors are read and written one by one, so that memory for the largest is enough.
/// A single file says in its header, and by the markers that those programs read, what it predicts and on which schedule.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sconce convert runs/my/model my-model.safetensors
  sconce convert civitai.safetensors models/theirs
  sconce convert models/sdxl sdxl-f16.safetensors --dtype f16
  sconce convert flux1-dev.safetensors models/flux --file vae=ae.safetensors \\
      --file text_encoder=clip_l.safetensors --file text_encoder_2=t5xxl_fp16.safetensors --file tokenizer_2=t5/tokenizer.json")]
pub struct Args {
    /// A diffusers folder, or a single file.
    #[arg(value_name = "IN")]
    from: String,

    /// What is written: a folder, or a file that ends in `.safetensors`. Must not be there yet.
    #[arg(value_name = "OUT")]
    to: PathBuf,

    /// The layout to write. Default: by the name of OUT.
    #[arg(long = "to", value_enum, value_name = "LAYOUT")]
    layout: Option<Layout>,

    /// The type to write. Default: as each tensor is stored.
    #[arg(long, value_enum, value_name = "TYPE")]
    dtype: Option<DtypeArg>,

    /// A component that a single file does not hold, or that takes the place of its own: `vae=ae.safetensors`. May be
    /// repeated.
    #[arg(long, value_name = "COMPONENT=FILE", value_parser = component_file)]
    file: Vec<(String, PathBuf)>,
}

/// A model's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Layout {
    /// A folder with one sub-folder a component.
    Diffusers,
    /// One file, under the names of the original code.
    SingleFile,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    if args.to.exists() {
        let failure = Failure::usage(format!("`{}` is there already", args.to.display()));
        return Err(failure.help("give another name, or remove it first"));
    }
    let files = args.file.iter().cloned().collect();
    let from = locate_model(&args.from, &files, Path::new(".")).map_err(Failure::files)?;
    let family = args::family(&from)?;
    let dtype = args.dtype.map(DType::from);
    let header = header(Path::new(&args.from), &from);
    let named =
        if args.to.extension().is_some_and(|e| e == "safetensors") { Layout::SingleFile } else { Layout::Diffusers };
    match args.layout.unwrap_or(named) {
        Layout::SingleFile => file::write(&from, &family, &args.to, dtype, &header).map_err(Failure::files)?,
        Layout::Diffusers => {
            let stores = family.shapes(&from).map_err(Failure::files)?;
            file::write_diffusers(&from, &stores, &args.to, dtype, &header).map_err(Failure::files)?;
        }
    }
    print(&format!("wrote {}\n", args.to.display()))
}

/// What the model's own header says; not what only its layout is made of.
fn header(given: &Path, folder: &Path) -> BTreeMap<String, String> {
    let mut header = match given.is_file() {
        true => read_metadata(given).unwrap_or_default(),
        false => folder_metadata(folder),
    };
    header.remove(file::CONFIGS);
    header.remove("format");
    header
}
