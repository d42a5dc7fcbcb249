//! The block with one stream: text and picture share its weights, and attention and feed-forward run side by side
//! (Dehghani et al. 2023, section 2).

use std::sync::Arc;

use candle_core::{D, Result, Tensor};
use sconce_core::model::Recompute;
use sconce_nn::{Linear, Scope, ops};

use crate::dit::{Attends, Modulation, Projections, Rotary, norm};

/// A block.
pub struct Single {
    attends: Attends,
    modulation: Modulation,
    projections: Projections,
    feed: Linear,
    out: Linear,
}

impl Single {
    /// The block at `scope`.
    pub fn new(scope: &Scope, attends: Attends) -> Result<Self> {
        let width = attends.width();
        Ok(Self {
            attends,
            modulation: Modulation::new(&scope.at("norm"), width, 3)?,
            projections: Projections::own(&scope.at("attn"), width, &attends)?,
            feed: Linear::new(&scope.at("proj_mlp"), width, 4 * width)?,
            out: Linear::new(&scope.at("proj_out"), 5 * width, width)?,
        })
    }

    /// `x`: B T+N D; `embedding`: B D.
    pub fn forward(&self, x: &Tensor, embedding: &Tensor, rotary: &Rotary) -> Result<Tensor> {
        let [shift, scale, gate] = &self.modulation.forward(embedding)?[..] else {
            unreachable!("three were asked for")
        };
        let h = ops::modulate(&norm(x)?, scale, shift)?;
        let attended = self.attends.over(&[self.projections.forward(&h)?], Some(rotary))?;
        let fed = ops::gelu_tanh(&self.feed.forward(&h)?)?;
        ops::gated_sum(x, gate, &self.out.forward(&Tensor::cat(&[&attended, &fed], D::Minus1)?)?)
    }

    /// [`Single::forward`], keeping all for the backward pass or its inputs only.
    pub fn run(
        self: &Arc<Self>,
        x: &Tensor,
        embedding: &Tensor,
        rotary: &Rotary,
        recompute: Recompute,
    ) -> Result<Tensor> {
        let (block, rotary) = (self.clone(), rotary.clone());
        recompute.run(&[x, embedding], move |t| block.forward(&t[0], &t[1], &rotary))
    }
}
