//! The first-order solver.

use candle_core::{Result, Tensor};
use sconce_core::solver::{Denoise, Solver};
use sconce_sdk::prelude::*;

use super::{start_of_k_diffusion, straight};

/// Straight steps along the estimated noise (Karras et al. 2022, algorithm 1 without the correction).
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Euler {}

impl Solver for Euler {
    fn solve(&self, mut x: Tensor, levels: &[Level], model: &mut dyn Denoise) -> Result<Tensor> {
        for (step, pair) in levels.windows(2).enumerate() {
            x = straight(&model.denoise(&x, &pair[0])?, &pair[1].noise)?;
            model.stepped(step, &x)?;
        }
        Ok(x)
    }

    fn start(&self, first: &Level) -> f64 {
        start_of_k_diffusion(first)
    }
}

register!(Solver, "euler", Euler, aliases = ["EulerDiscreteScheduler"]);
