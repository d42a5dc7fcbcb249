//! Stable Diffusion 3 and 3.5 (Esser et al. 2024): a transformer with a stream of weights for the picture and one for the
//! text, as its `config.json` describes it. Every parameter is called as in the weight file.

pub mod config;
pub mod family;
mod places;

use std::path::Path;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Result, Tensor, bail};
use sconce_core::Cond;
use sconce_core::model::{Backbone, LoadOptions, Recompute, RecomputeCell};
use sconce_nn::ops::Conv;
use sconce_nn::{Conv2d, Linear, Store};
use sconce_sdk::Noise;

pub use self::config::Config;
use crate::diffusers;
use crate::dit::{Alone, Double, Embedding, Final, Guided, Layout, Order, Text, to_latents};

/// The buffer of places.
const PLACES: &str = "pos_embed.pos_embed";

/// The transformer. Its conditions: `context` (B L D) and `pooled` (B P).
pub struct Mmdit {
    store: Arc<Store>,
    config: Config,
    patches: Conv2d,
    /// The places of the size that was asked for last: rows, columns, 1 N D.
    places: Mutex<Option<(usize, usize, Tensor)>>,
    embedding: Embedding,
    context: Linear,
    blocks: Vec<Arc<Double>>,
    last: Final,
    recompute: RecomputeCell,
}

impl Mmdit {
    /// Loads a transformer's folder.
    pub fn load(dir: &Path, options: &LoadOptions) -> Result<Self> {
        let mmdit = Self::new(diffusers::denoiser(dir, options)?, Config::read(dir)?)?;
        mmdit.store.finish()?;
        Ok(mmdit)
    }

    /// Builds the network that `config` describes on the parameters of `store`.
    pub fn new(store: Arc<Store>, config: Config) -> Result<Self> {
        let (root, width, patch) = (store.root(), config.attends.width(), config.patch);
        let pos_embed = root.at("pos_embed");
        let squares = Conv { stride: patch, ..Conv::default() };
        let patches = Conv2d::new(&pos_embed.at("proj"), config.channels, width, patch, squares)?;
        let side = config.places;
        let trained = config.trained_places;
        pos_embed.buffer("pos_embed", (1, side * side, width), move || places::table(side, trained, width))?;
        let blocks = root.at("transformer_blocks");
        let block = |i: usize| {
            let text = if i + 1 == config.layers { Text::Ends } else { Text::GoesOn };
            let alone = if config.alone.contains(&i) { Alone::Too } else { Alone::No };
            Double::new(&blocks.at(i).block(), config.attends, Layout { text, alone }).map(Arc::new)
        };
        Ok(Self {
            patches,
            places: Mutex::default(),
            embedding: Embedding::new(&root.at("time_text_embed"), width, config.pooled, Guided::No)?,
            context: Linear::new(&root.at("context_embedder"), config.context, width)?,
            blocks: (0..config.layers).map(block).collect::<Result<_>>()?,
            last: Final::new(&root, width, patch * patch * config.channels)?,
            recompute: RecomputeCell::default(),
            store,
            config,
        })
    }
}

impl Mmdit {
    /// What it is made of.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The middle of the table of places, for a picture of `rows` x `columns` squares: 1 N D.
    fn places(&self, rows: usize, columns: usize) -> Result<Tensor> {
        let mut kept = self.places.lock().expect("no holder panics");
        if let Some((_, _, places)) = kept.as_ref().filter(|(r, c, _)| (*r, *c) == (rows, columns)) {
            return Ok(places.clone());
        }
        let side = self.config.places;
        if rows > side || columns > side {
            let most = side * self.config.patch;
            bail!(
                "latents of {} x {} are larger than the {most} x {most} that this model has places for \
                 (`pos_embed_max_size`): take a smaller picture",
                rows * self.config.patch,
                columns * self.config.patch
            );
        }
        let table = self.store.buffer(PLACES)?.reshape((side, side, self.config.attends.width()))?;
        let middle = table.narrow(0, (side - rows) / 2, rows)?.narrow(1, (side - columns) / 2, columns)?;
        let places = middle.contiguous()?.flatten_to(1)?.unsqueeze(0)?;
        let places = places.to_dtype(self.dtype())?.to_device(self.store.device())?;
        *kept = Some((rows, columns, places.clone()));
        Ok(places)
    }
}

impl Backbone for Mmdit {
    fn forward(&self, x: &Tensor, time: &Tensor, cond: &Cond) -> Result<Tensor> {
        self.store.recall()?;
        let (_, _, height, width) = x.dims4()?;
        let (patch, dtype, recompute) = (self.config.patch, self.dtype(), self.recompute.get());
        if height % patch != 0 || width % patch != 0 {
            bail!("latents of {height} x {width} do not divide into squares of {patch}");
        }
        let squares = self.patches.forward(&x.to_dtype(dtype)?)?; // B D H/p W/p
        let (_, _, rows, columns) = squares.dims4()?;
        let squares = squares.flatten_from(2)?.transpose(1, 2)?.contiguous()?; // B N D
        let mut x = squares.broadcast_add(&self.places(rows, columns)?)?;
        let embedding = self.embedding.forward(time, cond, dtype)?; // B D
        let mut text = self.context.forward(&cond.get("context")?.to_dtype(dtype)?)?; // B L D
        for block in &self.blocks {
            (x, text) = block.run(&x, &text, &embedding, None, recompute)?;
        }
        to_latents(&self.last.forward(&x, &embedding)?, patch, height, width, Order::ChannelLast)
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
        self.config.patch
    }

    fn dtype(&self) -> DType {
        self.store.dtype()
    }
}
