//! The second-order multistep solver: second order at the price of one call a step.

use candle_core::{Result, Tensor};
use sconce_core::solver::{Denoise, Solver};
use sconce_sdk::prelude::*;

use super::{combine, noise_left};

/// DPM-Solver++(2M) (Lu et al. 2022b, algorithm 2), as diffusers runs it: midpoint form, first order at both ends.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Dpmpp2m {}

/// With fewer steps than this the last is first order, wherever it ends: at so coarse a step the extrapolation hurts.
const FEW: usize = 15;

/// ln(alpha/sigma). Without signal alpha counts as 2^-12: the second order needs a finite step, and this is diffusers'
/// stand-in. Nothing else is touched by it.
fn lambda(noise: &Noise) -> f64 {
    noise.alpha.max(1.0 / 4096.0).ln() - noise.sigma.ln()
}

impl Solver for Dpmpp2m {
    fn solve(&self, mut x: Tensor, levels: &[Level], model: &mut dyn Denoise) -> Result<Tensor> {
        let steps = levels.len() - 1;
        let mut before: Option<(Tensor, f64)> = None;
        for (step, pair) in levels.windows(2).enumerate() {
            let (from, to) = (&pair[0].noise, &pair[1].noise);
            let x0 = model.denoise(&x, &pair[0])?.x0;
            let first_order = step + 1 == steps && (to.sigma == 0.0 || steps < FEW);
            let data = match &before {
                Some((x0_before, lambda_before)) if !first_order => {
                    let ahead = 0.5 * (lambda(to) - lambda(from)) / (lambda(from) - lambda_before);
                    combine(&x0, 1.0 + ahead, x0_before, -ahead)?
                }
                _ => x0.clone(),
            };
            x = combine(&x, to.sigma / from.sigma, &data, to.alpha * (1.0 - noise_left(from, to)))?;
            before = Some((x0, lambda(from)));
            model.stepped(step, &x)?;
        }
        Ok(x)
    }

    fn levels(&self, spacing: &dyn Spacing, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        spacing.levels_counting_last(schedule, steps)
    }
}

register!(Solver, "dpmpp-2m", Dpmpp2m, aliases = ["dpmpp_2m", "DPMSolverMultistepScheduler"]);
