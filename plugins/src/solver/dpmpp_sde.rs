//! The second-order single-step solver with fresh noise twice a step.

use candle_core::{Result, Tensor};
use sconce_core::solver::{Denoise, Denoised, Solver};
use sconce_sdk::prelude::*;

use super::{ancestral, combine, kept_and_fresh, lambdas, noise_left, start_of_k_diffusion, straight};
use crate::range;

/// DPM-Solver++ (2S) (Lu et al. 2022b, algorithm 1) between levels of fresh noise, as k-diffusion runs it: two calls of
/// the network a step. The picture keeps changing with the number of steps.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DpmppSde {
    /// Amount of fresh noise: 0 is deterministic, 1 keeps the statistics of the forward process.
    #[serde(deserialize_with = "range::share")]
    pub eta: f64,
    /// Where in a step, by log-SNR, the second call is made.
    #[serde(deserialize_with = "range::inside_unit")]
    pub r: f64,
}

impl Default for DpmppSde {
    fn default() -> Self {
        Self { eta: 1.0, r: 0.5 }
    }
}

impl DpmppSde {
    /// One step, from x0 and eps `here`, by way of the level `mid`.
    fn step(
        &self,
        here: &Denoised,
        [from, mid, to]: [&Level; 3],
        step: usize,
        model: &mut dyn Denoise,
    ) -> Result<Tensor> {
        let (first, second) = (model.noise(2 * step)?, model.noise(2 * step + 1)?);
        let x = ancestral(here, &from.noise, &mid.noise, self.eta, &first)?;
        let there = model.denoise(&x, mid)?;
        // Both noises are increments of one Brownian motion, which runs over sigma/alpha: the way to `mid` is a part of the
        // way to `to`.
        let part = (1.0 - noise_left(&from.noise, &mid.noise)) / (1.0 - noise_left(&from.noise, &to.noise));
        let fresh = combine(&first, part.sqrt(), &second, (1.0 - part).sqrt())?;
        let x = ancestral(here, &from.noise, &to.noise, self.eta, &fresh)?;
        let (kept, _) = kept_and_fresh(&from.noise, &to.noise, self.eta);
        let by = to.noise.alpha * (1.0 - noise_left(&from.noise, &to.noise) * kept) / (2.0 * self.r);
        x + combine(&there.x0, by, &here.x0, -by)?
    }
}

impl Solver for DpmppSde {
    /// `levels`: with the one of the second call between the two of each step, as [`DpmppSde::levels`] puts it, but in a step
    /// to no noise, which is Euler's.
    fn solve(&self, mut x: Tensor, mut levels: &[Level], model: &mut dyn Denoise) -> Result<Tensor> {
        for step in 0.. {
            let [from, rest @ ..] = levels else { break };
            let ahead = match rest {
                [] => break,
                [to] => straight(&model.denoise(&x, from)?, &to.noise)?,
                [mid, to, ..] => {
                    let here = model.denoise(&x, from)?;
                    self.step(&here, [from, mid, to], step, model)?
                }
            };
            (x, levels) = (ahead, &rest[rest.len().min(2) - 1..]);
            model.stepped(step, &x)?;
        }
        Ok(x)
    }

    fn levels(&self, spacing: &dyn Spacing, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        let ends = spacing.levels(schedule, steps);
        let lambda = lambdas(&ends);
        let mut levels = vec![ends[0]];
        for k in 0..steps {
            if ends[k + 1].noise.sigma > 0.0 {
                let t = schedule.t_of(2.0 * (lambda[k] + self.r * (lambda[k + 1] - lambda[k])));
                levels.push(Level { t, noise: schedule.at(t) });
            }
            levels.push(ends[k + 1]);
        }
        levels
    }

    fn start(&self, first: &Level) -> f64 {
        start_of_k_diffusion(first)
    }
}

register!(Solver, "dpmpp-sde", DpmppSde, aliases = ["dpmpp_sde", "DPMSolverSDEScheduler"]);
