//! The second-order solver that asks twice a step.

use candle_core::{Result, Tensor};
use sconce_core::solver::{Denoise, Solver};
use sconce_sdk::prelude::*;

use super::{combine, start_of_k_diffusion, straight};

/// Euler's step, corrected by the noise estimated where it leads (Karras et al. 2022, algorithm 1): two calls of the
/// network a step. The slope that is averaged is that of x/alpha by sigma/alpha; on a rectified flow (alpha + sigma = 1)
/// it is that of x by sigma, as in diffusers. Where it does not exist, which is without signal or without noise, the step
/// is Euler's.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Heun {}

/// The factor on the change of eps over a straight step, or `None` where there is no slope.
///
/// With c = alpha + k sigma the way of x/c by sigma/c is straight for any k, and d(x/c) = (eps - k x0) d(sigma/c). Averaging
/// that slope adds to x' half of (sigma' alpha - sigma alpha')/c c'/alpha' (eps' - eps), as x0' - x0 = -sigma'/alpha' (eps' -
/// eps) where both make the same x'. k is 0, but 1 where that makes c = 1.
fn correction(from: &Noise, to: &Noise) -> Option<f64> {
    let flow = [from, to].iter().all(|n| (n.alpha + n.sigma - 1.0).abs() < 1e-9);
    let divisor = if flow { to.alpha } else { from.alpha };
    (divisor > 0.0 && to.sigma > 0.0).then(|| 0.5 * (to.sigma * from.alpha - from.sigma * to.alpha) / divisor)
}

impl Solver for Heun {
    fn solve(&self, mut x: Tensor, levels: &[Level], model: &mut dyn Denoise) -> Result<Tensor> {
        for (step, pair) in levels.windows(2).enumerate() {
            let (from, to) = (&pair[0].noise, &pair[1].noise);
            let here = model.denoise(&x, &pair[0])?;
            x = straight(&here, to)?;
            if let Some(by) = correction(from, to) {
                let there = model.denoise(&x, &pair[1])?;
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

register!(Solver, "heun", Heun, aliases = ["HeunDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"]);
