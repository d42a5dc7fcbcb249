//! `sconce sample`: draws a picture.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use image::RgbImage;
use indicatif::{ProgressBar, ProgressStyle};
use sconce_core::model::{Family, Geometry, LoadOptions, Model, Native};
use sconce_core::network::Network;
use sconce_core::recipe::SamplingTable;
use sconce_core::sample::{Sampler, decode};
use sconce_core::solver::Solver;
use sconce_core::words;
use sconce_nn::quant::Format;
use sconce_nn::rng::Stream;
use sconce_nn::store::Reads;
use sconce_nn::weights::{WeightFiles, save, write_atomic};
use sconce_sdk::{Choice, Kind, Objective, Schedule, Spacing};
use serde_json::Value;

use super::args::{self, DeviceArg, DtypeArg, EmbeddingArg, FilesArg, LoraArg, plugin};
use super::{Failure, print};

/// Draw a picture.
///
/// What the command line does not say comes from the checkpoint: what it predicts, on which schedule, and how it is to
/// be sampled. The program prints what it took from there.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sconce sample --model runs/my/model --prompt \"a red fox in the snow\"
  sconce sample --model models/sdxl --lora my.safetensors:0.8 --prompt \"a fox\" --solver dpmpp-2m
  sconce sample --model models/sdxl --prompt \"night sky\" --cfg-rescale 0.7 --spacing trailing

Latents files hold one tensor, `latents`, N C H W. To hold this program against another: save the
noise that the other starts from (unit variance), give it here by --init-latents, and compare what
--save-latents writes with the other's final latents, before the autoencoder's scale and shift are
undone.")]
pub struct Args {
    /// A diffusers folder, a single file as ComfyUI, Forge and A1111 load it, or `embedded:quickstart`.
    #[arg(long, value_name = "DIR|FILE")]
    pub model: String,

    /// Components beside a single file.
    #[command(flatten)]
    pub files: FilesArg,

    /// An adapter file to add, with its strength after a colon. May be repeated.
    #[arg(long, value_name = "FILE[:SCALE]")]
    pub lora: Vec<LoraArg>,

    /// A file of a learned word (an embedding), as ComfyUI, A1111, diffusers or sconce have it, and after `=` how the prompt
    /// says it. Default: as the file says, or its name. May be repeated.
    #[arg(long, value_name = "FILE[=WORD]")]
    pub embedding: Vec<EmbeddingArg>,

    /// What to draw. May be longer than 77 tokens, and in any script.
    #[arg(long, value_name = "TEXT")]
    pub prompt: String,

    /// What to steer away from. Default: the family's own rule for no text.
    #[arg(long, value_name = "TEXT")]
    pub negative: Option<String>,

    /// Steps. Default: those of the model's own pipeline, or 30.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub steps: Option<u32>,

    /// How to go from one noise level to the next (`sconce list solver`): a name, or a table such as
    /// `{ type = "euler-ancestral", eta = 0.5 }`. Default: the checkpoint's own.
    #[arg(long, value_name = "SOLVER")]
    pub solver: Option<String>,

    /// Where to put the noise levels (`sconce list spacing`): a name, or a table. Default: the checkpoint's own.
    #[arg(long, value_name = "SPACING")]
    pub spacing: Option<String>,

    /// Classifier-free guidance by two passes a step: 1 is none, more follows the prompt harder. Default: that of the model's
    /// own pipeline, or 5.
    #[arg(long, value_name = "SCALE")]
    pub cfg: Option<f64>,

    /// The guidance scale that a guidance-distilled model is told (FLUX.1-dev), in one pass a step. Default: that of its
    /// pipeline.
    #[arg(long, value_name = "SCALE")]
    pub guidance: Option<f64>,

    /// Share, from 0 to 1, of the guided output that is rescaled to the deviation of the unguided: 0.7 keeps a
    /// zero-terminal model from oversaturating.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub cfg_rescale: f64,

    /// Most tokens of the prompt that a long text encoder (T5) sees. Default: as many as the model's pipeline takes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=4096))]
    pub max_sequence_length: Option<u32>,

    /// A text encoder that is left out, where the model can do without: `text_encoder_3` is Stable Diffusion 3's T5. May be
    /// repeated.
    #[arg(long, value_name = "COMPONENT")]
    pub without: Vec<String>,

    /// Keep a component's matrices in few bits: int8, fp8 or nf4, such as `transformer=nf4`. May be repeated.
    #[arg(long, value_name = "COMPONENT=FORMAT", value_parser = quantised)]
    pub quantise: Vec<(String, Format)>,

    /// How many of the denoiser's blocks keep their matrices on the host.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub swap_blocks: usize,

    /// Seed of the noise.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// Width in pixels. Default: the model's own.
    #[arg(long, value_name = "PX")]
    pub width: Option<u32>,

    /// Height in pixels. Default: the model's own.
    #[arg(long, value_name = "PX")]
    pub height: Option<u32>,

    /// The picture's file.
    #[arg(long, value_name = "FILE", default_value = "out.png")]
    pub out: PathBuf,

    /// Start from this noise instead of the seed's: safetensors with one tensor `latents`, N C H W, of unit variance.
    #[arg(long, value_name = "FILE")]
    pub init_latents: Option<PathBuf>,

    /// Also write the final latents, as the denoiser keeps them.
    #[arg(long, value_name = "FILE")]
    pub save_latents: Option<PathBuf>,

    /// Type of weights and activations.
    #[arg(long, value_enum, value_name = "TYPE", default_value = "f32")]
    pub dtype: DtypeArg,

    /// Where to compute: `cpu`, `cuda:0`, `cuda:1` …
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub device: DeviceArg,
}

fn told(file: &Path, words: &[String]) -> Result<(), Failure> {
    words.iter().try_for_each(|word| print(&format!("word       {word}   [{}]\n", file.display())))
}

fn quantised(text: &str) -> Result<(String, Format), String> {
    let (component, format) = text.split_once('=').ok_or("expected a component and a format: transformer=nf4")?;
    Ok((component.to_owned(), format.parse()?))
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    args.validate()?;
    let path = args.files.locate(&args.model)?;
    let family = args::family(&path)?;
    let native = args.native(&*family, &path)?;
    let sampling = args.sampling(&native)?;
    let schedule = own::<dyn Schedule>(&native.schedule)?;
    let objective = own::<dyn Objective>(&native.objective)?;
    let device = args.device.open()?;
    let noise = args.init_latents.as_deref().map(|file| read_latents(file, &device)).transpose()?;

    let options = LoadOptions {
        device: device.clone(),
        dtype: args.dtype.into(),
        random: None,
        max_tokens: args.max_sequence_length.map(|n| n as usize),
        without: args.without.clone(),
        packed: args.quantise.iter().cloned().collect(),
        swap_blocks: args.swap_blocks,
        reads: Reads::WhenUsed,
    };
    let model = family.load(&path, &options).map_err(Failure::files)?;
    options.held_by(&model.stores()).map_err(Failure::files)?;
    for LoraArg { file, scale } in &args.lora {
        let brought = sconce_models::lora::attach(&*model, file, *scale).map_err(Failure::files)?;
        print(&format!("lora       {} at {scale}, on {} layers\n", file.display(), brought.layers))?;
        told(file, &brought.words)?;
    }
    for EmbeddingArg { file, word } in &args.embedding {
        let mut words = words::read(&model.conditioner().vocabularies(), file).map_err(Failure::files)?;
        match (word, words.as_mut_slice()) {
            (Some(word), [one]) => one.text.clone_from(word),
            (Some(word), all) => {
                let what = format!("{} holds {} words, so none of them is `{word}`", file.display(), all.len());
                return Err(Failure::usage(what).help("leave `=` and the word out: each has its own name"));
            }
            (None, _) => {}
        }
        told(file, &sconce_models::lora::teach(&*model, words).map_err(Failure::files)?)?;
    }
    let fit = Fit { model: &*model, native: &native };
    let [width, height] = fit.size(&args, noise.as_ref())?;
    let noise = match noise {
        Some(noise) => noise,
        None => fit.noise(args.seed, width, height, &device).map_err(Failure::run)?,
    };
    print(&settings(&args, &native, &sampling, [width, height]))?;

    let pictures = noise.dim(0).map_err(Failure::run)?;
    let network = Network::plain(&**model.backbone());
    let sampler = Sampler { network, schedule: &*schedule, objective: &*objective, sampling: &sampling };
    let prompts = vec![args.prompt.as_str(); pictures];
    let geometry = vec![Geometry::plain(height, width); pictures];
    let cond = sampler.condition(&**model.conditioner(), &prompts, &geometry).map_err(Failure::run)?;
    // Encoded: the denoiser may have their memory.
    model.conditioner().stores().iter().for_each(|store| store.release());
    let bar = ProgressBar::new(sampling.steps as u64).with_style(bar_style());
    let fresh = Stream::new(args.seed, "sampling noise");
    let latents = sampler.sample(&noise, &cond, &fresh, &mut |done, _| {
        bar.set_position(done as u64);
        Ok(())
    });
    bar.finish_and_clear();
    let latents = latents.map_err(Failure::run)?;

    if let Some(file) = &args.save_latents {
        save(file, &BTreeMap::from([("latents".to_owned(), latents.clone())]), &BTreeMap::new())
            .map_err(Failure::run)?;
    }
    let text = parameters(&args, &sampling, [width, height]);
    let drawn = decode(&**model.autoencoder(), &latents).map_err(Failure::run)?;
    for (i, picture) in drawn.iter().enumerate() {
        let file = if drawn.len() == 1 { args.out.clone() } else { numbered(&args.out, i + 1) };
        let png = png_with_text(picture, &text).map_err(Failure::run)?;
        write_atomic(&file, |out| out.write_all(&png)).map_err(Failure::run)?;
        print(&format!("{}\n", file.display()))?;
    }
    Ok(())
}

impl Args {
    fn validate(&self) -> Result<(), Failure> {
        for (flag, scale) in [("--cfg", self.cfg), ("--guidance", self.guidance)] {
            if scale.is_some_and(|scale| !scale.is_finite()) {
                return Err(Failure::usage(format!("{flag} must be a finite number")));
            }
        }
        if !(0.0..=1.0).contains(&self.cfg_rescale) {
            return Err(Failure::usage(format!("--cfg-rescale is {}, it goes from 0 to 1", self.cfg_rescale)));
        }
        Ok(())
    }

    /// What the checkpoint says, also about a solver and a spacing that are named here and are not its own.
    fn native(&self, family: &dyn Family, path: &Path) -> Result<Native, Failure> {
        let solver = self.solver.as_deref().map(plugin::<dyn Solver>).transpose()?;
        let spacing = self.spacing.as_deref().map(plugin::<dyn Spacing>).transpose()?;
        let names = (solver.as_ref().map(Choice::name), spacing.as_ref().map(Choice::name));
        let mut native = family.native_with(path, names.0, names.1).map_err(Failure::files)?;
        // A whole table on the command line leaves nothing to the checkpoint.
        for (flag, text, table, choice) in [
            ("solver", &self.solver, &mut native.solver, solver.map(|c| c.table())),
            ("spacing", &self.spacing, &mut native.spacing, spacing.map(|c| c.table())),
        ] {
            let Some((text, choice)) = text.as_ref().zip(choice) else { continue };
            let evidence = native.evidence.entry(flag.to_owned()).or_default();
            if text.trim_start().starts_with('{') {
                *table = choice;
                *evidence = format!("--{flag}");
            } else {
                *evidence = format!("--{flag}; {evidence}");
            }
        }
        Ok(native)
    }

    fn sampling(&self, native: &Native) -> Result<SamplingTable, Failure> {
        if self.guidance.is_some() && native.guidance.is_none() {
            let failure = Failure::usage(format!("--guidance: a model of the family {} takes none", native.family));
            return Err(failure.help("--cfg guides any model, by two passes a step"));
        }
        Ok(SamplingTable {
            solver: own(&native.solver)?,
            spacing: own(&native.spacing)?,
            steps: self.steps.map(|n| n as usize).or(native.steps).unwrap_or(30),
            cfg: self.cfg.or(native.cfg).unwrap_or(5.0),
            guidance: self.guidance.or(native.guidance),
            cfg_rescale: self.cfg_rescale,
            negative: self.negative.clone(),
        })
    }
}

/// A plugin as the checkpoint describes it.
fn own<K: Kind + ?Sized>(table: &Value) -> Result<Choice<K>, Failure> {
    Choice::from_table(table).map_err(|e| Failure::files(e.to_string()).context("the checkpoint's settings"))
}

/// What the model's shapes ask of sizes.
struct Fit<'a> {
    model: &'a dyn Model,
    native: &'a Native,
}

impl Fit<'_> {
    /// Width and height in pixels.
    fn size(&self, args: &Args, noise: Option<&Tensor>) -> Result<[u32; 2], Failure> {
        let factor = self.model.autoencoder().factor() as u32;
        let own = self.native.resolution_px;
        let Some(noise) = noise else {
            let size = [args.width.unwrap_or(own), args.height.unwrap_or(own)];
            let multiple = factor * self.model.backbone().side_multiple() as u32;
            if size.iter().any(|side| *side == 0 || side % multiple != 0) {
                let failure = Failure::usage(format!("the picture cannot be {} x {} pixels", size[0], size[1]));
                return Err(failure.help(format!("this model draws sides that are multiples of {multiple}")));
            }
            return Ok(size);
        };
        let (_, channels, height, width) = noise.dims4().map_err(Failure::files)?;
        let wanted = self.model.autoencoder().channels();
        if channels != wanted {
            return Err(Failure::files(format!("the latents have {channels} channels, the model's have {wanted}")));
        }
        let size = [width as u32 * factor, height as u32 * factor];
        match (args.width.unwrap_or(size[0]), args.height.unwrap_or(size[1])) {
            (w, h) if [w, h] == size => Ok(size),
            (w, h) => Err(Failure::usage(format!(
                "--width and --height say {w} x {h} pixels, the latents are for {} x {}",
                size[0], size[1]
            ))),
        }
    }

    /// Unit-variance noise of a seed, 1 C h w.
    fn noise(&self, seed: u64, width: u32, height: u32, device: &Device) -> candle_core::Result<Tensor> {
        let factor = self.model.autoencoder().factor();
        let shape = (1, self.model.autoencoder().channels(), height as usize / factor, width as usize / factor);
        Stream::new(seed, "initial latents").normal(shape, device)
    }
}

/// The tensor `latents` of a file, N C H W in f32.
fn read_latents(file: &Path, device: &Device) -> Result<Tensor, Failure> {
    let weights = WeightFiles::open(&[file]).map_err(Failure::files)?;
    let what = file.display();
    match weights.info("latents") {
        Some((shape, _)) if shape.len() == 4 && shape.iter().all(|&n| n > 0) => {
            weights.tensor("latents", DType::F32, device).map_err(Failure::files)
        }
        Some((shape, _)) => Err(Failure::files(format!("{what}: `latents` has the shape {shape:?}, not N C H W"))),
        None => Err(Failure::files(format!("{what}: there is no tensor `latents`"))),
    }
}

/// What the picture is drawn with, and where each of it comes from.
fn settings(args: &Args, native: &Native, sampling: &SamplingTable, [width, height]: [u32; 2]) -> String {
    let mut out = format!("model      {} ({})\n", args.model, native.family);
    let mut say = |what: &str, value: String, evidence: &str| {
        let from = native.evidence.get(evidence).map(|e| format!("   [{e}]")).unwrap_or_default();
        out += &format!("{what:10} {value}{from}\n");
    };
    say("schedule", compact(&native.schedule), "schedule");
    say("objective", compact(&native.objective), "objective");
    say("solver", compact(&sampling.solver.table()), "solver");
    say("spacing", compact(&sampling.spacing.table()), "spacing");
    let own = args.width.is_none() && args.height.is_none() && args.init_latents.is_none();
    say("size", format!("{width} x {height}"), if own { "resolution_px" } else { "" });
    let noise = match &args.init_latents {
        Some(file) => format!("noise from {}", file.display()),
        None => format!("seed {}", args.seed),
    };
    let SamplingTable { steps, cfg, cfg_rescale, .. } = sampling;
    let told = sampling.guidance.map_or(String::new(), |scale| format!(", guidance {scale}"));
    say("sampling", format!("{steps} steps, cfg {cfg}{told}, cfg-rescale {cfg_rescale}, {noise}"), "");
    out
}

/// A plugin's table on one line: `leading, steps_offset = 1`.
fn compact(table: &Value) -> String {
    let Value::Object(map) = table else { return table.to_string() };
    let field = |(key, value): (&String, &Value)| match (key.as_str(), value) {
        ("type", Value::String(name)) => name.clone(),
        (key, Value::Object(_)) => format!("{key} = ({})", compact(value)),
        (key, Value::String(text)) => format!("{key} = {text}"),
        (key, Value::Array(items)) if items.len() > 8 => format!("{key} = {} values", items.len()),
        (key, value) => format!("{key} = {value}"),
    };
    map.iter().map(field).collect::<Vec<_>>().join(", ")
}

/// The settings as other programs write them into pictures.
fn parameters(args: &Args, sampling: &SamplingTable, [width, height]: [u32; 2]) -> String {
    let negative = args.negative.as_ref().map(|n| format!("\nNegative prompt: {n}")).unwrap_or_default();
    let told = sampling.guidance.map_or(String::new(), |scale| format!(", Distilled CFG Scale: {scale}"));
    let loras = args.lora.iter().map(|l| format!(", LoRA: {}:{}", l.file.display(), l.scale));
    format!(
        "{}{negative}\nSteps: {}, Sampler: {}, Schedule type: {}, CFG scale: {}{told}, CFG rescale: {}, Seed: {}, Size: \
         {width}x{height}, Model: {}{}, Version: sconce {}",
        args.prompt,
        sampling.steps,
        compact(&sampling.solver.table()),
        compact(&sampling.spacing.table()),
        sampling.cfg,
        sampling.cfg_rescale,
        args.seed,
        args.model,
        loras.collect::<String>(),
        env!("CARGO_PKG_VERSION"),
    )
}

/// A PNG with the settings in its text chunk `parameters`: `tEXt` where Latin-1 holds them, else `iTXt`.
fn png_with_text(picture: &RgbImage, text: &str) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, picture.width(), picture.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let key = "parameters".to_owned();
    match text.chars().all(|c| u32::from(c) < 256) {
        true => encoder.add_text_chunk(key, text.to_owned())?,
        false => encoder.add_itxt_chunk(key, text.to_owned())?,
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(picture)?;
    writer.finish()?;
    Ok(bytes)
}

/// `out.png` as `out-2.png`.
fn numbered(file: &Path, number: usize) -> PathBuf {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let extension = file.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    file.with_file_name(format!("{stem}-{number}{extension}"))
}

fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:40} {pos}/{len} steps, {eta} left").expect("the template is right")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_on_a_line() {
        let table = serde_json::json!({ "type": "zero-terminal", "of": { "type": "linear", "steps": 10 } });
        assert_eq!(compact(&table), "zero-terminal, of = (linear, steps = 10)");
    }

    #[test]
    fn pictures_carry_their_settings_in_any_script() {
        for text in ["a fox", "狐 🦊"] {
            let bytes = png_with_text(&RgbImage::new(2, 3), text).unwrap();
            let reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
            let (latin, other) = (&reader.info().uncompressed_latin1_text, &reader.info().utf8_text);
            let found = latin.first().map(|chunk| chunk.text.clone());
            let found = found.or_else(|| other.first().map(|chunk| chunk.get_text().unwrap()));
            assert_eq!(found.as_deref(), Some(text));
        }
    }

    #[test]
    fn several_pictures_are_numbered() {
        assert_eq!(numbered(Path::new("a/out.png"), 2), Path::new("a/out-2.png"));
    }
}
