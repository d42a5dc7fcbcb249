//! The first-order solver with fresh noise at every step.

use candle_core::{Result, Tensor};
use sconce_core::solver::{Denoise, Solver};
use sconce_sdk::prelude::*;

use super::{ancestral, start_of_k_diffusion};
use crate::range;

/// Euler steps that go further down and come back up with fresh noise. The picture keeps changing with the number of
/// steps.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EulerAncestral {
    /// Amount of fresh noise: 0 is Euler, 1 keeps the statistics of the forward process.
    #[serde(deserialize_with = "range::share")]
    pub eta: f64,
}

impl Default for EulerAncestral {
    fn default() -> Self {
        Self { eta: 1.0 }
    }
}

impl Solver for EulerAncestral {
    fn solve(&self, mut x: Tensor, levels: &[Level], model: &mut dyn Denoise) -> Result<Tensor> {
        for (step, pair) in levels.windows(2).enumerate() {
            let denoised = model.denoise(&x, &pair[0])?;
            x = ancestral(&denoised, &pair[0].noise, &pair[1].noise, self.eta, &model.noise(step)?)?;
            model.stepped(step, &x)?;
        }
        Ok(x)
    }

    fn start(&self, first: &Level) -> f64 {
        start_of_k_diffusion(first)
    }
}

register!(
    Solver,
    "euler-ancestral",
    EulerAncestral,
    aliases = ["euler_ancestral", "euler_a", "EulerAncestralDiscreteScheduler"],
);
