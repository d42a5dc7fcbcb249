//! A backbone as a crate of its own, in tensors: a small convolutional network, whose layers take adapters and packing as any
//! other's do. Linked into a program by `use sconce_conv_mixer as _;`; a recipe says `[backbone] type = "conv-mixer"`.

use std::sync::Arc;

use sconce_core::Cond;
use sconce_core::architecture::Architecture;
use sconce_core::model::{Backbone, Recompute, RecomputeCell};
use sconce_models::embed::{Mlp, Waves};
use sconce_nn::ops::Conv;
use sconce_nn::{Conv2d, DType, GroupNorm, Linear, Result, Scope, Store, Tensor};
use sconce_sdk::Noise;
use sconce_sdk::network::About;
use sconce_sdk::prelude::*;

/// Residual blocks of 3x3 convolutions, which know the time and the mean of the prompt's words.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConvMixer {
    /// Channels of the latents.
    pub channels: usize,
    /// Channels inside, a multiple of 8.
    pub width: usize,
    /// Blocks.
    pub blocks: usize,
    /// Numbers of a word of the prompt.
    pub words: usize,
}

impl Default for ConvMixer {
    fn default() -> Self {
        Self { channels: 4, width: 64, blocks: 4, words: 768 }
    }
}

impl Architecture for ConvMixer {
    fn about(&self) -> About {
        About { channels: self.channels, side_multiple: 1, conditions: Vec::new(), native: Default::default() }
    }

    fn build(&self, store: Arc<Store>) -> Result<Arc<dyn Backbone>> {
        let (root, same) = (store.root(), Conv::padded(1));
        let block = |i: usize| Block::new(&root.at("blocks").at(i).block(), self.width).map(Arc::new);
        Ok(Arc::new(Network {
            enter: Conv2d::new(&root.at("enter"), self.channels, self.width, 3, same)?,
            time: Mlp::new(&root.at("time"), self.width, self.width)?,
            words: Linear::new(&root.at("words"), self.words, self.width)?,
            blocks: (0..self.blocks).map(block).collect::<Result<_>>()?,
            leave: Conv2d::new(&root.at("leave"), self.width, self.channels, 3, same)?,
            of: self.clone(),
            store,
            recompute: RecomputeCell::default(),
        }))
    }
}

struct Network {
    of: ConvMixer,
    store: Arc<Store>,
    enter: Conv2d,
    time: Mlp,
    words: Linear,
    blocks: Vec<Arc<Block>>,
    leave: Conv2d,
    recompute: RecomputeCell,
}

impl Backbone for Network {
    fn forward(&self, x: &Tensor, time: &Tensor, cond: &Cond) -> Result<Tensor> {
        self.store.recall()?;
        let dtype = self.dtype();
        let waves = Waves { cosine_first: true, shift: 0.0 }.of(time, self.of.width)?.to_dtype(dtype)?; // B D
        let mean = cond.get("context")?.to_dtype(dtype)?.mean(1)?; // B W
        let known = (self.time.forward(&waves)? + self.words.forward(&mean)?)?; // B D
        let mut x = self.enter.forward(&x.to_dtype(dtype)?)?; // B D H W
        for block in &self.blocks {
            let block = block.clone();
            x = self.recompute.get().run(&[&x, &known], move |x| block.forward(&x[0], &x[1]))?;
        }
        self.leave.forward(&x)
    }

    fn time(&self, t: f64, _: &Noise) -> f64 {
        1000.0 * t
    }

    fn store(&self) -> &Arc<Store> {
        &self.store
    }

    fn recompute(&self, what: Recompute) {
        self.recompute.set(what);
    }

    fn channels(&self) -> usize {
        self.of.channels
    }

    fn side_multiple(&self) -> usize {
        1
    }

    fn dtype(&self) -> DType {
        self.store.dtype()
    }
}

struct Block {
    norm: GroupNorm,
    enter: Conv2d,
    known: Linear,
    leave: Conv2d,
}

impl Block {
    fn new(scope: &Scope, width: usize) -> Result<Self> {
        let same = Conv::padded(1);
        Ok(Self {
            norm: GroupNorm::new(&scope.at("norm"), 8, width, 1e-5)?,
            enter: Conv2d::new(&scope.at("enter"), width, width, 3, same)?,
            known: Linear::new(&scope.at("known"), width, width)?,
            leave: Conv2d::new(&scope.at("leave"), width, width, 3, same)?,
        })
    }

    fn forward(&self, x: &Tensor, known: &Tensor) -> Result<Tensor> {
        let h = self.enter.forward(&self.norm.forward_silu(x)?)?; // B D H W
        let known = self.known.forward(known)?.unsqueeze(2)?.unsqueeze(3)?; // B D 1 1
        x + self.leave.forward(&sconce_nn::ops::silu(&h.broadcast_add(&known)?)?)?
    }
}

register!(Architecture, "conv-mixer", ConvMixer, aliases = ["conv_mixer"]);
