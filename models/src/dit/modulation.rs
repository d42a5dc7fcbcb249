//! The modulation of rows by vectors that follow from time and text (adaLN-Zero, Peebles & Xie 2023, section 3.2). From
//! nothing it starts at zero, so that every block starts as the identity.

use candle_core::{D, Result, Tensor};
use sconce_nn::{Linear, Scope, ops};

/// Epsilon of every norm between the blocks' parts.
pub const EPS: f64 = 1e-6;

/// The norm without weights that goes before a modulation.
pub fn norm(x: &Tensor) -> Result<Tensor> {
    ops::layer_norm(x, None, None, EPS)
}

/// Some vectors of a sample.
#[derive(Clone)]
pub struct Modulation {
    linear: Linear,
    count: usize,
}

impl Modulation {
    /// `count` vectors of `width`, from an embedding of the same width.
    pub fn new(scope: &Scope, width: usize, count: usize) -> Result<Self> {
        Ok(Self { linear: Linear::zero(&scope.at("linear"), width, count * width)?, count })
    }

    /// B D to `count` times B D.
    pub fn forward(&self, embedding: &Tensor) -> Result<Vec<Tensor>> {
        self.linear.forward(embedding)?.chunk(self.count, D::Minus1)
    }
}

/// The norm, modulation and map to the output that end a network.
#[derive(Clone)]
pub struct Final {
    modulation: Modulation,
    out: Linear,
}

impl Final {
    /// From rows of `width` to rows of `output`.
    pub fn new(root: &Scope, width: usize, output: usize) -> Result<Self> {
        Ok(Self {
            modulation: Modulation::new(&root.at("norm_out"), width, 2)?,
            out: Linear::zero(&root.at("proj_out"), width, output)?,
        })
    }

    /// B L D to B L O.
    pub fn forward(&self, x: &Tensor, embedding: &Tensor) -> Result<Tensor> {
        let [scale, shift] = &self.modulation.forward(embedding)?[..] else { unreachable!("two were asked for") };
        self.out.forward(&ops::modulate(&norm(x)?, scale, shift)?)
    }
}
