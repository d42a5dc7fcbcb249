//! The tables of a recipe: one a decision, each field documented here once, for parsing, `sconce schema` and the docs.
//! A table that names a plugin (`type = "…"`) is a [`Choice`]; the others are what a run needs around the plugins.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use candle_core::{DType, Device};
use schemars::JsonSchema;
use sconce_nn::quant::Format;
use sconce_nn::store::Reads;
use sconce_sdk::{
    Choice, Distance, EmaStrategy, LrSchedule, Objective, Schedule, Spacing, Stored, TimestepSampler, Weighting,
};
use serde::{Deserialize, Serialize};

use super::convert::Convert;
use super::needs::NeedsTable;
use super::token::TokenTable;
use crate::adapter::{Adapter, AdapterLayout};
use crate::architecture::Architecture;
use crate::model::{LoadOptions, Native, Recompute};
use crate::network::Conversion;
use crate::noise::NoiseSource;
use crate::optimizer::Optimizer;
use crate::solver::Solver;

/// A training run, whole.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What the recipe asks of who runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<NeedsTable>,
    /// What is fine-tuned.
    pub model: ModelTable,
    /// Another denoiser in the place of the model's, whose text encoders and autoencoder it works with. No table: the model's
    /// own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backbone: Option<Choice<dyn Architecture>>,
    /// How much signal and noise there is at each time. Default: the checkpoint's own.
    pub schedule: Choice<dyn Schedule>,
    /// What the network learns to output. Default: the checkpoint's own.
    pub objective: Choice<dyn Objective>,
    /// How much the error counts at each noise level. Default: `native`.
    pub weighting: Choice<dyn Weighting>,
    /// Which times are trained on. Default: `uniform`.
    pub timesteps: Choice<dyn TimestepSampler>,
    /// How far an output is from its target. Default: `mse`.
    pub distance: Choice<dyn Distance>,
    /// What the pictures are mixed with. Default: `gaussian`.
    pub noise: Choice<dyn NoiseSource>,
    /// How averages of the weights follow them. Default: `none`.
    pub ema: Choice<dyn EmaStrategy>,
    /// What is added to the layers of a frozen model. No table: a full fine-tune.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<Choice<dyn Adapter>>,
    /// How weights follow their gradients.
    pub optimizer: Choice<dyn Optimizer>,
    /// The factor on every learning rate over the run. Default: `constant`.
    pub lr: Choice<dyn LrSchedule>,
    /// The pictures.
    pub data: DataTable,
    /// The run.
    pub train: TrainTable,
    /// The loss on pictures that are not trained on. No table: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<ValidationTable>,
    /// Pictures drawn as the run goes. No table: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<PreviewTable>,
    /// How pictures are sampled: for previews, and written into the saved model's scheduler config.
    pub sampling: SamplingTable,
    /// What is written at the end.
    #[serde(default)]
    pub output: OutputTable,
}

/// A floating type of weights and activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Float {
    /// 32 bits.
    #[default]
    F32,
    /// bfloat16: the range of f32, 8 bits of precision.
    Bf16,
    /// IEEE half: 11 bits of precision, overflows at 65,504.
    F16,
}

impl From<Stored> for Float {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::F32 => Self::F32,
            Stored::Bf16 => Self::Bf16,
            Stored::F16 => Self::F16,
        }
    }
}

impl From<Float> for DType {
    fn from(f: Float) -> Self {
        match f {
            Float::F32 => DType::F32,
            Float::Bf16 => DType::BF16,
            Float::F16 => DType::F16,
        }
    }
}

/// What is fine-tuned.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelTable {
    /// A diffusers folder, or a single file as ComfyUI, Forge and A1111 load it; `embedded:quickstart` is the model inside
    /// the program.
    pub path: String,
    /// Components that a single file does not hold, or that take the place of its own:
    /// `{ vae = "ae.safetensors", text_encoder = "clip_l.safetensors", text_encoder_2 = "t5xxl.safetensors" }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, PathBuf>,
    /// The family, where it must not be read from the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// Type of activations and of weights that do not train (weights that train have f32 masters).
    #[serde(default)]
    pub dtype: Float,
    /// For a run whose objective or schedule is deliberately not the one that the checkpoint was trained with. `true`: the
    /// network goes on computing what it did, and its output is mapped to what the run asks for, so that it starts as good as
    /// it was, and is saved as what it was. `{ over_images = N }`: the mapping fades over so many images, after which the
    /// network itself computes what the run asks for, and is saved so. `{ over_images = 0 }`: at once, from an output that
    /// means something else.
    #[serde(default)]
    pub convert: Convert,
    /// Start from nothing, initialised by this seed: for each component whose folder holds a config and no weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random_seed: Option<u64>,
    /// Most tokens of a prompt that a long text encoder (T5) sees; the rest is cut off. Default: as many as the family's
    /// pipeline takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_sequence_length: Option<usize>,
    /// Components whose matrices are kept in few bits, under an adapter or in an encoder that does not train:
    /// `{ transformer = "nf4", text_encoder_2 = "int8" }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub quantise: BTreeMap<String, Packing>,
    /// How many of the denoiser's blocks keep their matrices on the host, from where they visit the device for each use.
    #[serde(default, skip_serializing_if = "zero")]
    pub swap_blocks: usize,
    /// Text encoders that are left out on purpose, by component, where the family can do without: `["text_encoder_3"]` saves
    /// Stable Diffusion 3 its T5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
}

impl ModelTable {
    /// What stands between the network and the run's schedule and objective after so many images; nothing for one that starts
    /// from nothing, which has no output of its own to keep.
    pub fn conversion(&self, native: &Native, images_seen: u64) -> candle_core::Result<Option<Conversion>> {
        match self.random_seed.is_some() || native.untrained {
            true => Ok(None),
            false => Conversion::of(self.convert, native, images_seen),
        }
    }

    /// What the family is told when it loads the model for a run.
    pub fn load_options(&self, device: &Device) -> LoadOptions {
        LoadOptions {
            device: device.clone(),
            dtype: self.dtype.into(),
            random: self.random_seed,
            max_tokens: self.max_sequence_length,
            without: self.without.clone(),
            packed: self.quantise.iter().filter_map(|(name, how)| Some((name.clone(), how.format()?))).collect(),
            swap_blocks: self.swap_blocks,
            // Encoders are read, used and let go of before the denoiser is needed.
            reads: Reads::WhenUsed,
        }
    }
}

/// How weights that do not train are kept in few bits, by blocks of 64 with a scale each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// As they are: takes back what a recipe below says.
    None,
    /// Whole numbers of eight bits: 8.25 bits a weight.
    Int8,
    /// Floats of eight bits, E4M3: 8.25 bits a weight.
    Fp8,
    /// Quantiles of the normal distribution, four bits (Dettmers et al. 2023): 4.25 bits a weight.
    Nf4,
}

impl Packing {
    /// The form of the matrices, where they are packed.
    pub fn format(self) -> Option<Format> {
        match self {
            Packing::None => None,
            Packing::Int8 => Some(Format::Int8),
            Packing::Fp8 => Some(Format::Fp8),
            Packing::Nf4 => Some(Format::Nf4),
        }
    }
}

/// The pictures.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataTable {
    /// Pictures in one forward pass.
    pub batch: usize,
    /// Where the pictures are.
    pub source: Vec<SourceTable>,
    /// Share of captions replaced by the empty one, for guidance.
    #[serde(default)]
    pub caption_dropout: f64,
    /// Where latents and text embeddings are kept between runs. Default: `cache` in the run's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
}

/// One folder of captioned pictures.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceTable {
    /// A folder of images, each with a `.txt` caption of its name, or all in `metadata.jsonl` (`file_name`, `text`).
    /// `embedded:quickstart` is the set inside the program. Masks are `name.mask.png` beside `name`, or the `mask` column
    /// of `metadata.jsonl`; see `mask`. Or a Parquet file, or a folder of them, as datasets on the hub are.
    pub path: String,
    /// Of Parquet files in several splits the one that is meant: `train`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// The column of pictures in Parquet files. Default: the only one that there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_column: Option<String>,
    /// The column of captions in Parquet files. Default: `text`, `caption` or `prompt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption_column: Option<String>,
    /// How often each picture counts in a pass over the data.
    #[serde(default = "one")]
    pub repeats: usize,
    /// The side of a square whose area the pictures are resized to, in pixels. Default: the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution_px: Option<u32>,
    /// What is done with pictures that are not square.
    #[serde(default)]
    pub aspect: Aspect,
    /// Pictures whose smaller side is below this are skipped (and reported), in pixels. Default: a quarter of
    /// `resolution_px`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smallest_px: Option<u32>,
    /// Mirrored copies.
    #[serde(default)]
    pub flip: Flip,
    /// Where pictures have masks, which say what of them is trained on: white in full, black as `train.mask` says.
    #[serde(default)]
    pub mask: MaskFrom,
    /// Plain grounds that pictures with transparency are put on, one copy each; an opaque picture ignores them.
    /// Default: white alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grounds: Vec<Ground>,
    /// The caption, made of `{caption}` and, with `grounds`, `{ground}`.
    #[serde(default = "caption_alone")]
    pub caption: String,
}

/// What is done with pictures that are not square.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Aspect {
    /// Buckets of equal area and several aspect ratios; the little that does not fit is cropped from the middle.
    #[default]
    Buckets,
    /// The largest square in the middle.
    Square,
}

/// Mirrored copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Flip {
    /// None.
    #[default]
    Never,
    /// Each time, with even odds, left and right swapped.
    Horizontal,
}

/// Where pictures have masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MaskFrom {
    /// Nowhere: all of each picture is trained on. Files named as masks are counted and not used.
    #[default]
    None,
    /// In `name.mask.png` beside the picture, or in the file that the `mask` column of `metadata.jsonl` names: grey, of
    /// the picture's size. A picture without one is trained on in full.
    File,
    /// In the picture's own alpha channel: what is transparent is black. An opaque picture is trained on in full.
    Alpha,
}

/// A plain colour behind a transparent picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ground {
    /// Its word in captions.
    pub name: String,
    /// Red, green and blue in 0 to 255.
    pub rgb: [u8; 3],
}

/// What a run trains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// The denoiser, and text encoders if `components` names them.
    #[default]
    Denoiser,
    /// The autoencoder: pictures in, pictures out.
    Autoencoder,
}

/// The run.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainTable {
    /// Pictures in the whole run: the clock that everything counts by.
    pub images: u64,
    /// Seed of everything random: two runs of one recipe are the same run.
    #[serde(default)]
    pub seed: u64,
    /// What is trained.
    #[serde(default)]
    pub task: Task,
    /// Components that train, each with the factor on the learning rate: `{ unet = 1.0, text_encoder = 0.1 }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub components: BTreeMap<String, f64>,
    /// An adapter file, in any layout, that the adapter starts from instead of from nothing: to go on with it, or with a LoRA
    /// at another rank (a lower one keeps what is nearest). Layers that are not in it start from nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter_from: Option<String>,
    /// Words of the user's own that the text encoders learn from the captions that say them. Where there is no adapter and
    /// `components` names nothing, they are all that is learned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token: Vec<TokenTable>,
    /// Rates and weight decays of single parameters, by their names; the first group that matches one counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group: Vec<GroupTable>,
    /// How weights that train are kept.
    #[serde(default)]
    pub weights: Kept,
    /// How long gradients are kept.
    #[serde(default)]
    pub gradients: Gradients,
    /// Batches whose gradients are added up before an update.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// The gradient's norm is cut to this. Zero: not at all.
    #[serde(default = "one_f64")]
    pub clip_norm: f64,
    /// What is computed again in the backward pass to save memory.
    #[serde(default)]
    pub recompute: Recompute,
    /// The guidance scale that a model is told in training which was distilled to know it (FLUX.1-dev). Default: 1, at which
    /// its output is the data's own and not a guided one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f64>,
    /// A checkpoint every so many images, from which `--resume` goes on. Zero: at the end alone.
    #[serde(default)]
    pub save_every_images: u64,
    /// How many checkpoints are kept.
    #[serde(default = "two")]
    pub keep: usize,
    /// How masks count. Only where a source has them (`data.source.mask`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<MaskTable>,
    /// How an autoencoder trains. Only with `task = "autoencoder"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoencoder: Option<AutoencoderTable>,
}

/// How masks count: the loss of each latent pixel is weighed by the mask's mean over the pixels that it stands for.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MaskTable {
    /// Weight of what the mask leaves out, against 1 for what it keeps.
    pub outside: f64,
    /// What the weights of a picture's places are divided by.
    pub normalise: Normalise,
}

/// What the weights of a picture's places are divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Normalise {
    /// Nothing: a picture of which half is kept counts half.
    #[default]
    Never,
    /// Their mean: every picture counts the same, however little of it is kept.
    ByArea,
}

/// What holds for some parameters alone.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupTable {
    /// Parameters, matched against `component.path`, with `*` for any text: `unet.down_blocks.*`, `*.lora_B.weight`.
    pub targets: Vec<String>,
    /// Factor on the learning rate, beside that of the component.
    #[serde(default = "one_f64")]
    pub lr_factor: f64,
    /// In place of the optimizer's weight decay. Default: the optimizer's, and none for biases and norms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
}

/// How weights that train are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// In f32, whatever type the model computes in.
    #[default]
    F32,
    /// In bf16, with updates that are rounded up or down at random such that none is lost on average: half the memory
    /// of weights and gradients.
    Bf16Stochastic,
}

impl Kept {
    /// The type in memory.
    pub fn dtype(self) -> DType {
        match self {
            Kept::F32 => DType::F32,
            Kept::Bf16Stochastic => DType::BF16,
        }
    }
}

/// How long gradients are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Gradients {
    /// Until all are known; then the norm is cut and the weights are updated.
    #[default]
    All,
    /// Each until its weight is updated, inside the backward pass: all of them are never in memory at once. Needs
    /// `clip_norm = 0`, `accumulate = 1`, and an optimizer that updates each weight by itself.
    Released,
}

/// How an autoencoder trains.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderTable {
    /// Weight of the Kullback-Leibler divergence from a unit Gaussian, per latent value, against the mean error per
    /// pixel value.
    #[serde(default = "kl_weight")]
    pub kl_weight: f64,
    /// Train on random squares of this side, in pixels. Default: whole pictures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop_px: Option<u32>,
    /// The encoder's log-variance at the start, where it starts from nothing: low, so that the decoder sees the mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_log_variance: Option<f64>,
}

/// The loss on held-out pictures, at fixed quantiles of the timestep distribution with fixed noise.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ValidationTable {
    /// Share of the pictures that is held out.
    pub share: f64,
    /// Every so many images.
    pub every_images: u64,
    /// Noise levels for each picture.
    #[serde(default = "four")]
    pub quantiles: usize,
}

/// Pictures drawn as the run goes.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PreviewTable {
    /// One picture each; an autoencoder's run shows held-out pictures and what comes back instead.
    #[serde(default)]
    pub prompts: Vec<String>,
    /// Every so many images; zero: before and after alone.
    #[serde(default)]
    pub every_images: u64,
    /// Noise of the first picture.
    #[serde(default)]
    pub seed: u64,
    /// Grounds of the data whose luminance is measured in the corners of drawn pictures, before and after: how much of
    /// the data's dynamic range the model reaches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measure_grounds: Vec<String>,
    /// What is drawn on each of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measure_captions: Vec<String>,
    /// The folder of an autoencoder that decodes them in place of the model's: a tiny one (TAESD, TAEF1) takes a fraction of
    /// time and memory, and shows a little less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoencoder: Option<String>,
    /// Height in pixels. Default: the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height_px: Option<u32>,
    /// Width in pixels. Default: the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width_px: Option<u32>,
}

/// How pictures are sampled.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SamplingTable {
    /// How a sampler goes from one noise level to the next. Default: the checkpoint's own.
    pub solver: Choice<dyn Solver>,
    /// Where a sampler puts its noise levels. Default: the checkpoint's own.
    pub spacing: Choice<dyn Spacing>,
    /// Steps.
    #[serde(default = "thirty")]
    pub steps: usize,
    /// Classifier-free guidance (Ho & Salimans 2022): 1 is none.
    #[serde(default = "five")]
    pub cfg: f64,
    /// The guidance scale that a model is told which was distilled to know it (FLUX.1-dev); others take none. Default: that
    /// of the model's own pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f64>,
    /// Share of the guided output that is rescaled to the conditional one's deviation (Lin et al. 2023, section 3.4).
    #[serde(default)]
    pub cfg_rescale: f64,
    /// The unconditional side of guidance; no text means the family's own rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative: Option<String>,
}

/// A whole model's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ModelLayout {
    /// A folder, `model/`.
    Diffusers,
    /// One file, `model.safetensors`, under the names of the original code.
    SingleFile,
}

/// What is written at the end.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputTable {
    /// The run's folder. Default: `runs/` and the recipe's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// Type of saved weights.
    #[serde(default)]
    pub dtype: Float,
    /// Layouts of a whole model: a diffusers folder, or one file for ComfyUI, Forge and A1111.
    #[serde(default = "model_layouts")]
    pub model_layouts: BTreeSet<ModelLayout>,
    /// The largest weight file of a diffusers folder, in megabytes (millions of bytes): a component that is more is written in
    /// shards with an index. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard_mb: Option<u64>,
    /// Layouts of an adapter's files: `peft` for diffusers, `kohya` for ComfyUI, Forge and A1111. Default: both.
    #[serde(default = "adapter_layouts")]
    pub adapter_layouts: Vec<Choice<dyn AdapterLayout>>,
    /// The title in the weight files' headers. Default: the recipe's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Who made it, for the headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// What it is, for the headers and the card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Under which licence it is given, for the headers and the card: `CC-BY-4.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
}

impl Default for AutoencoderTable {
    fn default() -> Self {
        Self { kl_weight: kl_weight(), crop_px: None, first_log_variance: None }
    }
}

impl Default for OutputTable {
    fn default() -> Self {
        Self {
            dir: None,
            dtype: Float::default(),
            model_layouts: model_layouts(),
            shard_mb: None,
            adapter_layouts: adapter_layouts(),
            title: None,
            author: None,
            description: None,
            license: None,
        }
    }
}

fn zero(n: &usize) -> bool {
    *n == 0
}
fn one() -> usize {
    1
}
fn one_f64() -> f64 {
    1.0
}
fn two() -> usize {
    2
}
fn four() -> usize {
    4
}
fn thirty() -> usize {
    30
}
fn five() -> f64 {
    5.0
}
fn kl_weight() -> f64 {
    1e-6
}
fn caption_alone() -> String {
    "{caption}".to_owned()
}
fn model_layouts() -> BTreeSet<ModelLayout> {
    BTreeSet::from([ModelLayout::Diffusers])
}
fn adapter_layouts() -> Vec<Choice<dyn AdapterLayout>> {
    ["peft", "kohya"].iter().filter_map(|name| Choice::named(name).ok()).collect()
}
