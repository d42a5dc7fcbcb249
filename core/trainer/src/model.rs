//! What a model family gives the trainer: a denoiser, what conditions it, what turns pictures into latents, and what
//! the checkpoint says about how it was trained. The trainer and the sampler see these traits and no family.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Device, Result, Tensor, bail};
use sconce_nn::Store;
use sconce_nn::checkpoint::checkpoint;
use sconce_nn::quant::Format;
use sconce_nn::store::{Keep, Reads};
use sconce_sdk::network::Condition;
use sconce_sdk::{Kind, Noise};
use serde_json::Value;

use crate::cond::Cond;
use crate::words::Vocabulary;

/// Whether a denoiser keeps its blocks' activations for the backward pass or computes them again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Recompute {
    /// Keep everything: fastest.
    #[default]
    Nothing,
    /// Keep each block's inputs alone: a third more time, a fraction of the memory.
    Blocks,
}

impl Recompute {
    /// Runs a unit of a network (a resnet, a transformer block), keeping all or its inputs only.
    pub fn run<F>(self, inputs: &[&Tensor], unit: F) -> Result<Tensor>
    where
        F: Fn(&[Tensor]) -> Result<Tensor> + Send + Sync + 'static,
    {
        match self {
            Self::Nothing => unit(&inputs.iter().map(|&x| x.clone()).collect::<Vec<_>>()),
            Self::Blocks => checkpoint(inputs, unit),
        }
    }
}

/// What [`Backbone::recompute`] was last told, for networks whose blocks ask it.
#[derive(Debug, Default)]
pub struct RecomputeCell(AtomicBool);

impl RecomputeCell {
    /// Sets it.
    pub fn set(&self, what: Recompute) {
        self.0.store(what == Recompute::Blocks, Ordering::Relaxed);
    }

    /// What it is.
    pub fn get(&self) -> Recompute {
        if self.0.load(Ordering::Relaxed) { Recompute::Blocks } else { Recompute::Nothing }
    }
}

/// The denoiser.
pub trait Backbone: Send + Sync {
    /// The network's output for noisy latents.
    ///
    /// `x`: B C H W, already scaled by the objective's input scale. `time`: B, f32, from [`Backbone::time`].
    fn forward(&self, x: &Tensor, time: &Tensor, cond: &Cond) -> Result<Tensor>;

    /// The network's own time for t in [0, 1] (999 for t = 1 in Stable Diffusion).
    fn time(&self, t: f64, noise: &Noise) -> f64;

    /// Its parameters and adaptable layers.
    fn store(&self) -> &Arc<Store>;

    /// Sets what is kept for the backward pass.
    fn recompute(&self, what: Recompute);

    /// Channels of the latents that it takes.
    fn channels(&self) -> usize;

    /// Latent sides must be multiples of this: what the network can take at all.
    fn side_multiple(&self) -> usize;

    /// The type that activations are computed in.
    fn dtype(&self) -> DType;

    /// What a user should be told of how it works on this device.
    fn remark(&self) -> Option<&'static str> {
        None
    }
}

/// Where a picture's pixels come from, for size and crop conditioning (SDXL, Podell et al. 2023, section 2.2).
/// All in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Geometry {
    /// Height and width of the original image.
    pub original: [u32; 2],
    /// Top and left of the crop, in the resized image.
    pub crop: [u32; 2],
    /// Height and width that the network is given.
    pub target: [u32; 2],
}

impl Geometry {
    /// An uncropped picture of this size.
    pub fn plain(height: u32, width: u32) -> Self {
        Self { original: [height, width], crop: [0, 0], target: [height, width] }
    }
}

/// What a prompt is for: some families treat an empty negative prompt apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PromptUse {
    /// A caption in training, or the positive prompt.
    Caption,
    /// The unconditional side of guidance where the user gave no negative prompt.
    Unconditional,
}

/// The text encoders with their tokenizers, and any other conditioning.
pub trait Conditioner: Send + Sync {
    /// Conditions for prompts, batch first, padded alike. Part of the graph where an encoder trains.
    fn encode(&self, prompts: &[(&str, PromptUse)]) -> Result<Cond>;

    /// Conditions that come from the pictures' geometry, on the encoders' device; empty where the family has none.
    fn geometry(&self, pictures: &[Geometry]) -> Result<Cond>;

    /// The condition of a network that was distilled to know its guidance by a number (FLUX.1-dev), for `count` pictures;
    /// empty where it takes none. `scale` is what [`Native::guidance`] speaks of.
    fn guidance(&self, _scale: f64, _count: usize) -> Result<Cond> {
        Ok(Cond::default())
    }

    /// Token ids as the encoders see them, one list a tokenizer, each a list of chunks: for `sconce inspect` and tests.
    fn token_ids(&self, prompt: &str) -> Result<Vec<Vec<Vec<u32>>>>;

    /// The encoders that words can be taught: none, where the family takes none.
    fn vocabularies(&self) -> Vec<&dyn Vocabulary> {
        Vec::new()
    }

    /// The encoders' parameters, by component name (`text_encoder`, `text_encoder_2`).
    fn stores(&self) -> Vec<Arc<Store>>;

    /// What decides [`Conditioner::encode`] beside the weights and the token ids, as a text of any form: caches are keyed
    /// by it.
    fn definition(&self) -> String;
}

/// The Gaussian that an encoder gives for each picture.
pub struct Moments {
    /// B C h w.
    pub mean: Tensor,
    /// B C h w, clamped to [-30, 20]; `None` for a deterministic encoder (the tiny autoencoder).
    pub log_variance: Option<Tensor>,
}

/// The affine map from raw latents to those that a denoiser sees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// See [`Scaling::scale`].
    pub factor: f64,
    /// See [`Scaling::scale`].
    pub shift: f64,
}

impl Scaling {
    /// (z - shift) factor.
    pub fn scale(&self, latents: &Tensor) -> Result<Tensor> {
        latents.affine(self.factor, -self.shift * self.factor)
    }

    /// And back: z / factor + shift.
    pub fn unscale(&self, latents: &Tensor) -> Result<Tensor> {
        latents.affine(1.0 / self.factor, self.shift)
    }
}

/// Between pictures and latents.
pub trait Autoencoder: Send + Sync {
    /// Pictures B 3 H W in [-1, 1] to the moments of *raw* latents (before shift and scale). Differentiable.
    fn encode(&self, pictures: &Tensor) -> Result<Moments>;

    /// Raw latents to pictures B 3 H W in about [-1, 1]. Differentiable.
    fn decode(&self, latents: &Tensor) -> Result<Tensor>;

    /// From raw latents to those that the denoiser sees, and back.
    fn scaling(&self) -> Scaling;

    /// Pixels a latent side stands for (8 in Stable Diffusion).
    fn factor(&self) -> usize;

    /// Latent channels.
    fn channels(&self) -> usize;

    /// Its parameters.
    fn store(&self) -> &Arc<Store>;

    /// What decides its results beside the weights, as a text of any form: caches are keyed by it.
    fn definition(&self) -> String;

    /// Makes the log-variance of every latent start near `value`, before training from nothing.
    fn start_log_variance(&self, value: f64) -> Result<()> {
        candle_core::bail!("train.autoencoder.first_log_variance = {value}: this autoencoder has no log-variance")
    }
}

/// What a checkpoint says about itself: recipe tables that stand below everything that the user writes.
#[derive(Clone, Debug, PartialEq)]
pub struct Native {
    /// The family's name in the registry (`sdxl`).
    pub family: String,
    /// The architecture's name in weight files' headers (ModelSpec 1.0.1: `stable-diffusion-xl-v1-base`).
    pub architecture: String,
    /// What kohya's scripts call it in LoRA files: `sdxl_base_v1-0`.
    pub base_version: String,
    /// `[schedule]` it was trained on.
    pub schedule: Value,
    /// `[objective]` it was trained for.
    pub objective: Value,
    /// `[spacing]` to sample it with.
    pub spacing: Value,
    /// `[solver]` to sample it with.
    pub solver: Value,
    /// Steps of its own pipeline, where they are not the usual thirty.
    pub steps: Option<usize>,
    /// Classifier-free guidance of its own pipeline, where it is not the usual five: 1 for a distilled model.
    pub cfg: Option<f64>,
    /// The guidance scale that its own pipeline tells it; `None` for one that takes none.
    pub guidance: Option<f64>,
    /// The denoiser's component: `unet`, `transformer`.
    pub denoiser: String,
    /// The component in whose place a [backbone] table put another one: nothing but its config is read.
    pub replaced: Option<String>,
    /// The side of the pictures it was trained on, in pixels.
    pub resolution_px: u32,
    /// Pixels that a latent's side stands for.
    pub latent_px: u32,
    /// Whether the denoiser was never trained as anything: it starts from nothing, and has no output of its own to keep.
    pub untrained: bool,
    /// Where each fact was read: field to file and key, or "the family's rule".
    pub evidence: BTreeMap<String, String>,
}

/// How to load a model.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Where to.
    pub device: Device,
    /// Type of activations, and of the weights that do not train.
    pub dtype: DType,
    /// Components without weight files start from a seeded initialisation: their folders hold configs alone.
    pub random: Option<u64>,
    /// Most tokens of a prompt that a long text encoder (T5) sees. Default: as many as the family's pipeline.
    pub max_tokens: Option<usize>,
    /// Text encoders that are left out on purpose, by component, in families that can do without.
    pub without: Vec<String>,
    /// Components whose matrices are packed into few bits, and how.
    pub packed: BTreeMap<String, Format>,
    /// Blocks of the denoiser whose matrices stay on the host.
    pub swap_blocks: usize,
    /// When weights are read.
    pub reads: Reads,
}

impl LoadOptions {
    /// All of it from its files, on `device`, computed in `dtype`.
    pub fn new(device: Device, dtype: DType) -> Self {
        Self {
            device,
            dtype,
            random: None,
            max_tokens: None,
            without: Vec::new(),
            packed: BTreeMap::new(),
            swap_blocks: 0,
            reads: Reads::AtOnce,
        }
    }

    /// How a component's matrices are kept while they do not train. The blocks to swap are the denoiser's alone.
    pub fn keep(&self, component: &str) -> Keep {
        Keep { packed: self.packed.get(component).copied(), hosted_blocks: 0 }
    }

    /// Refuses a component that is to be packed and that the model does not have, and blocks to swap where there are fewer.
    /// `stores`: as [`Model::stores`] gives them.
    pub fn held_by(&self, stores: &[Arc<Store>]) -> Result<()> {
        let names: Vec<&str> = stores.iter().map(|store| store.component()).collect();
        let matrices = |name: &str| stores.iter().any(|store| store.component() == name && store.has_matrices());
        if let Some(plain) = self.packed.keys().find(|name| names.contains(&name.as_str()) && !matrices(name)) {
            bail!("`{plain}` has no linear layers whose matrices could be quantised");
        }
        if let Some(stray) = self.packed.keys().find(|name| !names.contains(&name.as_str())) {
            bail!("there is no component `{stray}` to quantise, the model has {}", names.join(", "));
        }
        let blocks = stores[0].blocks();
        if self.swap_blocks > blocks {
            bail!("{} blocks cannot be swapped: {} has {blocks}", self.swap_blocks, stores[0].component());
        }
        Ok(())
    }
}

/// A loaded model.
pub trait Model: Send + Sync {
    /// What the checkpoint says about itself.
    fn native(&self) -> &Native;
    /// The denoiser.
    fn backbone(&self) -> &Arc<dyn Backbone>;
    /// Its conditioning.
    fn conditioner(&self) -> &Arc<dyn Conditioner>;
    /// Its autoencoder.
    fn autoencoder(&self) -> &Arc<dyn Autoencoder>;
    /// The parameters of all its components, the denoiser's first.
    fn stores(&self) -> Vec<Arc<Store>> {
        let mut stores = vec![self.backbone().store().clone(), self.autoencoder().store().clone()];
        stores.extend(self.conditioner().stores());
        stores
    }
    /// Another autoencoder of the same latents, in a folder of its own: a tiny one draws previews in a fraction of the time.
    ///
    /// # Errors
    /// If its latents have other channels or sides.
    fn autoencoder_in(&self, dir: &Path, options: &LoadOptions) -> Result<Arc<dyn Autoencoder>>;
    /// Writes a whole diffusers folder with `weights` in place of the loaded values where given (key: component, then
    /// parameter), the native settings replaced by `trained_as`, and `metadata` in each weight file's header.
    fn save(&self, to: &Path, save: &SaveModel) -> Result<Vec<PathBuf>>;
    /// Writes a folder that [`Model::save`] wrote as a single file, under the names of the code that trained the family first.
    ///
    /// # Errors
    /// If the family has no such layout.
    fn single_file(&self, saved: &Path, to: &Path, metadata: &BTreeMap<String, String>) -> Result<()>;
}

/// What [`Model::save`] is told.
pub struct SaveModel<'a> {
    /// Values that replace the model's own, by component and parameter name.
    pub weights: &'a BTreeMap<String, BTreeMap<String, Tensor>>,
    /// Config values that replace the model's own, by component: `vae` to `scaling_factor`.
    pub configs: &'a BTreeMap<String, serde_json::Map<String, Value>>,
    /// The type of the saved weights.
    pub dtype: DType,
    /// What the saved model predicts, on which schedule, and how to sample it.
    pub trained_as: &'a Native,
    /// Header of every weight file.
    pub metadata: &'a BTreeMap<String, String>,
    /// The largest weight file, in bytes: a component that is more is written in shards.
    pub shard_bytes: Option<u64>,
}

/// A model family: how to know one, and how to load it. Registered by name (`sdxl`, `flux`).
pub trait Family: Send + Sync {
    /// True if the folder or file is of this family, by its configs or keys, never by its name.
    fn detect(&self, path: &Path) -> Result<bool>;
    /// What it says about itself, without touching weights.
    fn native(&self, path: &Path) -> Result<Native>;
    /// The same, sampled by a solver or a spacing that is not its own: what the checkpoint's files say about those.
    fn native_with(&self, path: &Path, solver: Option<&str>, spacing: Option<&str>) -> Result<Native> {
        let mut native = self.native(path)?;
        for (table, name) in [(&mut native.solver, solver), (&mut native.spacing, spacing)] {
            if let Some(name) = name.filter(|&name| table["type"] != name) {
                *table = serde_json::json!({ "type": name });
            }
        }
        Ok(native)
    }
    /// The parameters and layers of all components (the denoiser's, the autoencoder's, then the text encoders') without
    /// their values and without touching weights: what a recipe can be held against before anything is loaded.
    fn shapes(&self, path: &Path) -> Result<Vec<Arc<Store>>>;
    /// The conditions that its encoders give, without touching weights: what a denoiser of another making is held against.
    /// Empty where that cannot be told.
    fn conditions(&self, _path: &Path) -> Result<Vec<Condition>> {
        Ok(Vec::new())
    }
    /// Fails if its parts do not fit each other, as far as that can be told without touching weights.
    fn fits(&self, _path: &Path) -> Result<()> {
        Ok(())
    }
    /// What the sides of training buckets are multiples of, in pixels, without touching weights. 64 suits every denoiser of
    /// up to three halvings on latents of an eighth of the picture's side. A sampler may draw other sizes:
    /// [`Backbone::side_multiple`].
    fn bucket_step_px(&self, _path: &Path) -> Result<u32> {
        Ok(64)
    }
    /// For a denoiser that is a transformer over tokens of one size: those of a square picture, and what each passes through.
    /// For the estimate of memory.
    fn tokens(&self, _path: &Path, _side_px: u32) -> Result<Option<Tokens>> {
        Ok(None)
    }
    /// Whether a saved model has a layout in a single file, too: [`Model::single_file`].
    fn has_single_file(&self) -> bool {
        true
    }
    /// Loads the denoiser alone.
    ///
    /// # Errors
    /// If the folder is of another family.
    fn backbone(&self, path: &Path, options: &LoadOptions) -> Result<Arc<dyn Backbone>>;
    /// Loads what stands around a denoiser, which may be one of another making that takes the same conditions.
    ///
    /// # Errors
    /// If the folder is of another family, or the denoiser takes latents of other channels.
    fn around(&self, path: &Path, backbone: Arc<dyn Backbone>, options: &LoadOptions) -> Result<Box<dyn Model>>;
    /// Loads all of it.
    fn load(&self, path: &Path, options: &LoadOptions) -> Result<Box<dyn Model>> {
        self.around(path, self.backbone(path, options)?, options)
    }
}

/// A picture in a transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Tokens of the picture.
    pub picture: usize,
    /// Most tokens of the text, by the family's pipeline.
    pub text: usize,
    /// Numbers of a token.
    pub width: usize,
    /// Blocks that each passes through.
    pub blocks: usize,
}

impl Kind for dyn Family {
    const NAME: &'static str = "family";
    const ABOUT: &'static str = "how a model family is recognised, loaded and saved";
}
