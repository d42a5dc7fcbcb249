//! `sconce repro`: makes a weight file again, and says whether it is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::{DType, Device, Tensor};
use sconce_core::lock::Lock;
use sconce_core::recipe::{RecipeSource, Syntax, resolve};
use sconce_core::train::{Options, Start};
use sconce_nn::weights::{WeightFiles, bytes_of};

use super::args::DeviceArg;
use super::recipe::MadeBy;
use super::{Failure, print, train};

/// Run the recipe in a weight file's header again, and compare.
///
/// Weights that come out the same, bit for bit, were made as their header says. Where they do not, the lines in which the two
/// runs' locks differ tell why.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sconce repro style.safetensors --set data.path=pictures
  sconce repro runs/my/model --out runs/again")]
pub struct Args {
    /// A weight file or a model folder that sconce made.
    #[arg(value_name = "FILE|DIR")]
    path: PathBuf,

    /// Change one field of the recipe: where the pictures are here. Paths of the machine that made it are cut short in the header.
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    set: Vec<String>,

    /// The folder of the new run. Default: `runs/` and the file's name with `-again`.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Where to compute: `cpu`, `cuda:0`, `cuda:1` …
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceArg,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let made = MadeBy::of(&args.path)?;
    let stem = args.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let source = RecipeSource::Text { name: stem.clone(), text: made.recipe, syntax: Syntax::Toml };
    let resolved = resolve(&source, &args.set)?;
    let out = args.out.unwrap_or_else(|| Path::new("runs").join(format!("{stem}-again")));
    let stop = Arc::new(AtomicBool::new(false));
    let options = Options { out, device: args.device.open()?, start: Start::Fresh, stop, lock: None };
    let written = train::complete(&resolved, &options)?;

    let name = args.path.file_name().unwrap_or_default();
    let again = match args.path.is_dir() {
        true => Some(options.out.join(name)).filter(|folder| folder.is_dir()),
        false => written.iter().find(|file| file.file_name() == Some(name)).cloned(),
    };
    let Some(again) = again else {
        let wrote = written.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
        return Err(Failure::run(format!("the run wrote no `{}`, only {wrote}", name.display())));
    };
    let verdict = compare(&args.path, &again).map_err(Failure::files)?;
    if verdict.differ == 0 {
        return print(&format!("the same, bit for bit: {} tensors of {}\n", verdict.all, again.display()));
    }
    let mut why = String::new();
    if let (Some(was), Some(is)) = (made.lock, MadeBy::of(&again)?.lock) {
        let locks = Lock::parse(&was).and_then(|was| Ok((was, Lock::parse(&is)?))).map_err(Failure::files)?;
        why = locks.0.differences(&locks.1).join("\n    ");
    }
    let failure = Failure::run(format!(
        "{} of {} tensors differ, by {:.1e} of their norm at most",
        verdict.differ, verdict.all, verdict.largest
    ));
    Err(match why.is_empty() {
        true => failure.help("the two runs' locks are alike: the machines differ in a way that they do not tell"),
        false => failure.help(format!("the runs depended on different things:\n    {why}")),
    })
}

/// What came of a comparison.
struct Verdict {
    all: usize,
    differ: usize,
    /// The largest |a - b| / |a| of a tensor.
    largest: f64,
}

fn compare(was: &Path, is: &Path) -> candle_core::Result<Verdict> {
    let (was, is) = (files(was)?, files(is)?);
    let names: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let mut verdict = Verdict { all: 0, differ: 0, largest: 0.0 };
    for name in names {
        let (Some(a), Some(b)) = (was.get(name), is.get(name)) else {
            let all = was.get(name).or(is.get(name)).map_or(0, |file| file.keys().count());
            verdict = Verdict { all: verdict.all + all, differ: verdict.differ + all, largest: f64::INFINITY };
            continue;
        };
        let keys: BTreeSet<&str> = a.keys().chain(b.keys()).collect();
        for key in keys {
            verdict.all += 1;
            let far = match (a.info(key), b.info(key)) {
                (Some(x), Some(y)) if x == y => apart(&a.stored(key, &Device::Cpu)?, &b.stored(key, &Device::Cpu)?)?,
                _ => Some(f64::INFINITY),
            };
            if let Some(far) = far {
                verdict.differ += 1;
                verdict.largest = verdict.largest.max(far);
            }
        }
    }
    Ok(verdict)
}

/// |a - b| / |a|; nothing where their bytes are the same.
fn apart(a: &Tensor, b: &Tensor) -> candle_core::Result<Option<f64>> {
    if bytes_of(a)? == bytes_of(b)? {
        return Ok(None);
    }
    let norm = |t: &Tensor| t.to_dtype(DType::F64)?.sqr()?.sum_all()?.sqrt()?.to_scalar::<f64>();
    let off = norm(&(a.to_dtype(DType::F64)? - b.to_dtype(DType::F64)?)?)?;
    Ok(Some(off / norm(a)?.max(f64::MIN_POSITIVE)))
}

/// The weight files of a file or a folder, by their names in it.
fn files(path: &Path) -> candle_core::Result<BTreeMap<String, WeightFiles>> {
    let mut all = BTreeMap::new();
    if path.is_file() {
        all.insert(String::new(), WeightFiles::open(&[path])?);
        return Ok(all);
    }
    for entry in std::fs::read_dir(path)?.flatten() {
        let inner = std::fs::read_dir(entry.path()).into_iter().flatten().flatten().map(|e| e.path());
        for file in inner.filter(|file| file.extension().is_some_and(|e| e == "safetensors")) {
            let name = file.strip_prefix(path).unwrap_or(&file).display().to_string();
            all.insert(name, WeightFiles::open(&[&file])?);
        }
    }
    Ok(all)
}
