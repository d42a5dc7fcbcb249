//! The feed-forward half of a block.

use candle_core::{Result, Tensor};
use sconce_nn::{Linear, Scope, ops};

/// To four times the width and back, through a GELU by its approximation with tanh.
#[derive(Clone)]
pub struct FeedForward {
    proj: Linear,
    out: Linear,
}

impl FeedForward {
    /// Of rows of `width`.
    pub fn new(scope: &Scope, width: usize) -> Result<Self> {
        let net = scope.at("net");
        Ok(Self {
            proj: Linear::new(&net.at(0).at("proj"), width, 4 * width)?,
            out: Linear::new(&net.at(2), 4 * width, width)?,
        })
    }

    /// B L D to the same.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.out.forward(&ops::gelu_tanh(&self.proj.forward(x)?)?)
    }
}
