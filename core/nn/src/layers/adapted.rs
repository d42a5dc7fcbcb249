//! The place on a linear or convolution where adapters go. The layer's own forward is handed to the adapter as a
//! function, so that an adapter may add to the output (LoRA), replace the weight (DoRA, full difference) or scale what
//! comes in and out (IA3), and several stack.

use std::sync::{Arc, RwLock};

use candle_core::{Result, Tensor};

use crate::ops::{Conv, conv2d, linear, linear_held};
use crate::store::{Param, Scope};

/// What a layer is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// `.. I` to `.. O`, weight `O I`.
    Linear {
        /// Input features.
        input: usize,
        /// Output features.
        output: usize,
    },
    /// `B I H W` to `B O H W`, weight `O I K K`.
    Conv {
        /// Input channels.
        input: usize,
        /// Output channels.
        output: usize,
        /// Side of the square kernel.
        kernel: usize,
        /// Stride and padding.
        conv: Conv,
    },
}

/// What an adapter does on one layer.
pub trait LayerAdapter: Send + Sync {
    /// The adapted layer's output for `x`; `base` is the layer without this adapter.
    fn forward(&self, x: &Tensor, layer: &Adapted, base: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor>;

    /// The weight and bias of a plain layer that computes what a layer of this weight and bias does with the adapter: for
    /// merging. All f32; in the graph of what trains.
    fn merged(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<(Tensor, Option<Tensor>)>;
}

/// A linear or convolution, with its adapters. Clones are the same layer.
#[derive(Clone)]
pub struct Adapted {
    path: String,
    shape: Shape,
    weight: Param,
    bias: Option<Param>,
    adapters: Arc<RwLock<Vec<Arc<dyn LayerAdapter>>>>,
}

impl Adapted {
    pub(super) fn new(scope: &Scope, shape: Shape, weight: Param, bias: Option<Param>) -> Self {
        let this = Self { path: scope.path().to_owned(), shape, weight, bias, adapters: Arc::default() };
        scope.register(&this);
        this
    }

    /// The layer's path in its component: `down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What the layer is.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The layer's own weight.
    pub fn weight(&self) -> &Param {
        &self.weight
    }

    /// The layer's own bias.
    pub fn bias(&self) -> Option<&Param> {
        self.bias.as_ref()
    }

    /// Puts an adapter on top of those that are there.
    pub fn attach(&self, adapter: Arc<dyn LayerAdapter>) {
        self.adapters.write().expect("no writer panics").push(adapter);
    }

    /// Takes all adapters off.
    pub fn detach(&self) {
        self.adapters.write().expect("no writer panics").clear();
    }

    /// The operation with another weight: what adapters that change the weight call.
    pub fn apply(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        match self.shape {
            Shape::Linear { .. } => linear(x, weight, bias),
            Shape::Conv { conv, .. } => conv2d(x, weight, bias, conv),
        }
    }

    /// The layer with its adapters.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let adapters = self.adapters.read().expect("no writer panics").clone();
        self.through(x, &adapters)
    }

    fn through(&self, x: &Tensor, adapters: &[Arc<dyn LayerAdapter>]) -> Result<Tensor> {
        match adapters.split_last() {
            None => {
                let bias = self.bias.as_ref().map(Param::tensor).transpose()?;
                match (self.shape, self.weight.frozen()) {
                    (Shape::Linear { .. }, Some(held)) => linear_held(x, &held, bias.as_ref()),
                    _ => self.apply(x, &self.weight.tensor()?, bias.as_ref()),
                }
            }
            Some((last, below)) => last.forward(x, self, &|x| self.through(x, below)),
        }
    }
}
