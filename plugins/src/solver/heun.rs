//! The second-order solver that asks twice a step.

use candle_core::{Result, Tensor};
use sconce_core::solver::{Denoise, Solver};
use sconce_sdk::prelude::*;

use super::{combine, start_of_k_diffusion, straight};

/// Euler's step, corrected by the noise estimated where it leads (Karras et al. 2022, algorithm 1): two calls of the
/// network a step. The correction needs sigma/alpha at both ends, so a step from no signal or to no noise is Euler's.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Heun {}

impl Solver for Heun {
    fn solve(&self, mut x: Tensor, levels: &[Level], model: &mut dyn Denoise) -> Result<Tensor> {
        for (step, pair) in levels.windows(2).enumerate() {
            let (from, to) = (&pair[0].noise, &pair[1].noise);
            let here = model.denoise(&x, &pair[0])?;
            x = straight(&here, to)?;
            if from.alpha > 0.0 && to.sigma > 0.0 {
                let there = model.denoise(&x, &pair[1])?;
                // x'/alpha' = x0 + rho eps + (rho' - rho)(eps + eps')/2, where x' = alpha' (x0 + rho' eps) so far.
                let by = 0.5 * (to.sigma - to.alpha * from.sigma / from.alpha);
                x = (x + combine(&there.eps, by, &here.eps, -by)?)?;
            }
            model.stepped(step, &x)?;
        }
        Ok(x)
    }

    fn start(&self, first: &Level) -> f64 {
        start_of_k_diffusion(first)
    }
}

register!(Solver, "heun", Heun, aliases = ["HeunDiscreteScheduler"]);
