//! FLUX.1 (Black Forest Labs 2024): a rectified-flow transformer whose first blocks have a stream of weights each for
//! picture and text, and whose later ones have one for both, as its `config.json` describes it. Every parameter is called as
//! in the weight file.

pub mod config;
pub mod family;
mod single;

use std::path::Path;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Result, Tensor};
use sconce_core::Cond;
use sconce_core::model::{Backbone, LoadOptions, Recompute, RecomputeCell};
use sconce_nn::{Linear, Store};
use sconce_sdk::Noise;

pub use self::config::Config;
use self::config::PATCH;
use self::single::Single;
use crate::diffusers;
use crate::dit::{Alone, Double, Embedding, Final, Layout, Order, Rotary, Text, to_latents, to_tokens};

/// The transformer. Its conditions: `context` (B L D), `pooled` (B P) and, where it knows its guidance, `guidance` (B).
pub struct Flux {
    store: Arc<Store>,
    config: Config,
    squares: Linear,
    context: Linear,
    embedding: Embedding,
    doubles: Vec<Arc<Double>>,
    singles: Vec<Arc<Single>>,
    last: Final,
    /// The angles of the size that was asked for last: text, rows, columns.
    rotary: Mutex<Option<([usize; 3], Rotary)>>,
    recompute: RecomputeCell,
}

impl Flux {
    /// Loads a transformer's folder.
    pub fn load(dir: &Path, options: &LoadOptions) -> Result<Self> {
        let flux = Self::new(diffusers::denoiser(dir, options)?, Config::read(dir)?)?;
        flux.store.finish()?;
        Ok(flux)
    }

    /// Builds the network that `config` describes on the parameters of `store`.
    pub fn new(store: Arc<Store>, config: Config) -> Result<Self> {
        let (root, width) = (store.root(), config.attends.width());
        let square = config.channels * PATCH * PATCH;
        let (doubles, singles) = (root.at("transformer_blocks"), root.at("single_transformer_blocks"));
        let layout = Layout { text: Text::GoesOn, alone: Alone::No };
        let double = |i: usize| Double::new(&doubles.at(i).block(), config.attends, layout).map(Arc::new);
        let single = |i: usize| Single::new(&singles.at(i).block(), config.attends).map(Arc::new);
        Ok(Self {
            squares: Linear::new(&root.at("x_embedder"), square, width)?,
            context: Linear::new(&root.at("context_embedder"), config.context, width)?,
            embedding: Embedding::new(&root.at("time_text_embed"), width, config.pooled, config.guided)?,
            doubles: (0..config.doubles).map(double).collect::<Result<_>>()?,
            singles: (0..config.singles).map(single).collect::<Result<_>>()?,
            last: Final::new(&root, width, square)?,
            rotary: Mutex::default(),
            recompute: RecomputeCell::default(),
            store,
            config,
        })
    }

    /// What it is made of.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn rotary(&self, size: [usize; 3]) -> Result<Rotary> {
        let mut kept = self.rotary.lock().expect("no holder panics");
        if let Some((_, rotary)) = kept.as_ref().filter(|(of, _)| *of == size) {
            return Ok(rotary.clone());
        }
        let [text, rows, columns] = size;
        let rotary = Rotary::new(&self.config.axes, text, rows, columns, self.store.device())?;
        *kept = Some((size, rotary.clone()));
        Ok(rotary)
    }
}

impl Backbone for Flux {
    fn forward(&self, x: &Tensor, time: &Tensor, cond: &Cond) -> Result<Tensor> {
        self.store.recall()?;
        let (_, _, height, width) = x.dims4()?;
        let (dtype, recompute) = (self.dtype(), self.recompute.get());
        let mut x = self.squares.forward(&to_tokens(&x.to_dtype(dtype)?, PATCH)?)?; // B N D
        let embedding = self.embedding.forward(time, cond, dtype)?; // B D
        let mut text = self.context.forward(&cond.get("context")?.to_dtype(dtype)?)?; // B T D
        let (tokens, places) = (text.dim(1)?, x.dim(1)?);
        let rotary = self.rotary([tokens, height / PATCH, width / PATCH])?;
        for block in &self.doubles {
            (x, text) = block.run(&x, &text, &embedding, Some(&rotary), recompute)?;
        }
        let mut all = Tensor::cat(&[&text, &x], 1)?; // B T+N D
        for block in &self.singles {
            all = block.run(&all, &embedding, &rotary, recompute)?;
        }
        let out = self.last.forward(&all.narrow(1, tokens, places)?, &embedding)?;
        to_latents(&out, PATCH, height, width, Order::ChannelFirst)
    }

    /// Thousandths of noise: of x = (1 - s) x0 + s eps, 1000 s.
    fn time(&self, _: f64, noise: &Noise) -> f64 {
        1000.0 * noise.sigma / (noise.alpha + noise.sigma)
    }

    fn store(&self) -> &Arc<Store> {
        &self.store
    }

    fn recompute(&self, what: Recompute) {
        self.recompute.set(what);
    }

    fn channels(&self) -> usize {
        self.config.channels
    }

    fn side_multiple(&self) -> usize {
        PATCH
    }

    fn dtype(&self) -> DType {
        self.store.dtype()
    }
}
