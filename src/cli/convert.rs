//! `sconce convert`: a model, or a LoRA, from one layout into another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Tensor};
use sconce_core::adapter::{AdapterLayout, Saved};
use sconce_core::embedded::whole;
use sconce_core::model::Family;
use sconce_models::folder::copy::{Writing, copy};
use sconce_models::lora::{self, extract::resized};
use sconce_models::original::file::CONFIGS;
use sconce_models::original::write::write;
use sconce_nn::Store;
use sconce_nn::weights::{read_metadata, save};
use sconce_sdk::Choice;

use super::args::{self, DtypeArg, FilesArg};
use super::inspect::folder_metadata;
use super::{Failure, print};

/// Turn a model, or a LoRA, from one layout into another.
///
/// Between a diffusers folder and a single file as ComfyUI, Forge and A1111 load it, both ways and exactly: no number
/// changes unless --dtype asks for it. Tensors are read and written one by one, so that memory for the largest is enough.
/// A single file says in its header, and by the markers that those programs read, what it predicts and on which schedule.
///
/// A LoRA is read in whichever layout it is (PEFT's, kohya's, ComfyUI's, OneTrainer's, SimpleTuner's, that of diffusers before
/// PEFT, that of the first LoRA repository) and written as `peft` or `kohya`, for the model that --model names.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sconce convert runs/my/model my-model.safetensors
  sconce convert civitai.safetensors models/theirs
  sconce convert models/sdxl sdxl-f16.safetensors --dtype f16
  sconce convert flux1-dev.safetensors models/flux --file vae=ae.safetensors \\
      --file text_encoder=clip_l.safetensors --file text_encoder_2=t5xxl_fp16.safetensors
  sconce convert style.safetensors style-kohya.safetensors --model models/sdxl --to kohya
  sconce convert style.safetensors style-8.safetensors --model models/sdxl --to peft --rank 8")]
pub struct Args {
    /// A diffusers folder, a single file, or a LoRA file.
    #[arg(value_name = "IN")]
    from: String,

    /// What is written: a folder, or a file that ends in `.safetensors`. Must not be there yet.
    #[arg(value_name = "OUT")]
    out: PathBuf,

    /// The layout to write: `diffusers` or `single-file` for a model (default: by the name of OUT), `peft` or `kohya` for a
    /// LoRA.
    #[arg(long, value_name = "LAYOUT")]
    to: Option<String>,

    /// For a LoRA: the model that it is for, a folder or a single file. No weights of it are read.
    #[arg(long, value_name = "DIR|FILE", requires = "to")]
    model: Option<String>,

    /// For a LoRA: the rank to write. The nearest product of that rank, layer by layer; what it leaves out is told.
    #[arg(long, value_name = "RANK", requires = "model", value_parser = clap::value_parser!(u32).range(1..=1024))]
    rank: Option<u32>,

    /// The type to write. Default: as each tensor is stored.
    #[arg(long, value_enum, value_name = "TYPE")]
    dtype: Option<DtypeArg>,

    /// The largest weight file of a diffusers folder, in megabytes: a component that is more is written in shards with an index.
    /// Default: no limit.
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u32).range(1..))]
    shard_mb: Option<u32>,

    #[command(flatten)]
    files: FilesArg,
}

/// A model's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// A folder with one sub-folder a component.
    Diffusers,
    /// One file, under the names of the original code.
    SingleFile,
}

impl Layout {
    /// By the name of what is written.
    pub(super) fn of(out: &Path) -> Self {
        if out.extension().is_some_and(|e| e == "safetensors") { Self::SingleFile } else { Self::Diffusers }
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    absent(&args.out)?;
    let dtype = args.dtype.map(DType::from);
    if let (Some(model), Some(layout)) = (&args.model, &args.to) {
        let model = args.files.locate(model)?;
        let stores = args::family(&model)?.shapes(&model).map_err(Failure::files)?;
        let layout: Choice<dyn AdapterLayout> = args::plugin(layout)?;
        let from = &args::here(&args.from)?;
        let mut found = lora::read(&stores, from).map_err(Failure::files)?;
        if let Some(rank) = args.rank {
            let (mut whole, mut left) = (0.0, 0.0);
            for adapter in &mut found {
                let (resized, all, out) = resized(adapter, rank as usize).map_err(Failure::files)?;
                (*adapter, whole, left) = (resized, whole + all, left + out);
            }
            let share = if whole > 0.0 { (left / whole).sqrt() } else { 0.0 };
            eprintln!("the rank leaves out {share:.2e} of what the LoRA adds");
        }
        write_adapter(&args.out, &layout, &stores, &found, dtype, &header(from, from))?;
        return print(&format!("wrote {}, {} layers\n", args.out.display(), found.len()));
    }
    let layout = match args.to.as_deref() {
        None => Layout::of(&args.out),
        Some("diffusers") => Layout::Diffusers,
        Some("single-file") => Layout::SingleFile,
        Some(other) => {
            let failure =
                Failure::usage(format!("`{other}` is no layout of a model: there are diffusers and single-file"));
            return Err(failure.help("for a LoRA, say which model it is for: --model DIR"));
        }
    };
    let from = args.files.locate(&args.from)?;
    let family = args::family(&from)?;
    let header = header(Path::new(&args.from), &from);
    let shard_bytes = args.shard_mb.map(|mb| u64::from(mb) * 1_000_000);
    if shard_bytes.is_some() && layout == Layout::SingleFile {
        return Err(Failure::usage("--shard-mb is for a diffusers folder: a single file is one"));
    }
    written(&from, &family, &args.out, layout, &Writing { dtype, shard_bytes, ..Writing::as_it_is(&header) })?;
    print(&format!("wrote {}\n", args.out.display()))
}

/// Refuses to write over something.
pub(super) fn absent(out: &Path) -> Result<(), Failure> {
    match out.exists() {
        true => {
            let failure = Failure::usage(format!("`{}` is there already", out.display()));
            Err(failure.help("give another name, or remove it first"))
        }
        false => Ok(()),
    }
}

/// Writes a model in a layout.
pub(super) fn written(
    from: &Path,
    family: &Choice<dyn Family>,
    out: &Path,
    layout: Layout,
    how: &Writing,
) -> Result<(), Failure> {
    let done = match layout {
        Layout::SingleFile => write(from, family, out, how),
        Layout::Diffusers => {
            let stores = family.shapes(from).map_err(Failure::files)?;
            whole(out, |tmp| copy(from, &stores, tmp, how))
        }
    };
    done.map_err(Failure::files)
}

/// Writes an adapter in a layout, in `dtype` or as it is.
pub(super) fn write_adapter(
    out: &Path,
    layout: &Choice<dyn AdapterLayout>,
    stores: &[Arc<Store>],
    adapters: &[Saved],
    dtype: Option<DType>,
    header: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    let cast = |(key, t): (String, Tensor)| Ok((key, t.to_dtype(dtype.unwrap_or(t.dtype()))?));
    let written = layout.write(stores, adapters).and_then(|tensors| {
        let tensors = tensors.into_iter().map(cast).collect::<candle_core::Result<_>>()?;
        save(out, &tensors, header)
    });
    written.map_err(Failure::files)
}

/// What the model's own header says; not what only its layout is made of.
pub(super) fn header(given: &Path, folder: &Path) -> BTreeMap<String, String> {
    let mut header = match given.is_file() {
        true => read_metadata(given).unwrap_or_default(),
        false => folder_metadata(folder),
    };
    header.remove(CONFIGS);
    header.remove("format");
    header
}
