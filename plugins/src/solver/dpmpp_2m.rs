//! The second-order multistep solver: second order at the price of one call a step.

use candle_core::{Result, Tensor};
use sconce_core::solver::{Denoise, Solver};
use sconce_sdk::prelude::*;

use super::{combine, lambdas, noise_left};

/// DPM-Solver++(2M) (Lu et al. 2022b, algorithm 2), as diffusers runs it: first order at both ends.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Dpmpp2m {
    /// How the second order is reached.
    pub solver_type: SolverType,
}

/// How much the trend of x0 counts in a step: two forms of one second-order method, named as diffusers and k-diffusion name
/// them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SolverType {
    /// x0 is taken where it is expected to be in the middle of the step.
    #[default]
    Midpoint,
    /// x0 is taken to change evenly in log-SNR, which is integrated exactly.
    Heun,
}

impl SolverType {
    /// The place in a step of length h, from 0 to 1, whose x0 stands for the whole step.
    fn place(self, h: f64) -> f64 {
        match self {
            Self::Midpoint => 0.5,
            Self::Heun => -1.0 / (-h).exp_m1() - 1.0 / h,
        }
    }
}

/// With fewer steps than this the last is first order, wherever it ends: at so coarse a step the extrapolation hurts.
const FEW: usize = 15;

/// The solver with a share eta of fresh noise; 0 is the deterministic one.
pub(super) fn solve(
    mut x: Tensor,
    levels: &[Level],
    model: &mut dyn Denoise,
    eta: f64,
    solver_type: SolverType,
) -> Result<Tensor> {
    let (steps, lambda) = (levels.len() - 1, lambdas(levels));
    let mut before: Option<Tensor> = None;
    for (step, pair) in levels.windows(2).enumerate() {
        let (from, to) = (&pair[0].noise, &pair[1].noise);
        let x0 = model.denoise(&x, &pair[0])?.x0;
        let first_order = step + 1 == steps && (to.sigma == 0.0 || steps < FEW);
        let data = match &before {
            Some(x0_before) if !first_order => {
                let h = lambda[step + 1] - lambda[step];
                let ahead = solver_type.place((1.0 + eta) * h) * h / (lambda[step] - lambda[step - 1]);
                combine(&x0, 1.0 + ahead, x0_before, -ahead)?
            }
            _ => x0.clone(),
        };
        let kept = noise_left(from, to);
        let old = to.sigma / from.sigma * kept.powf(eta);
        x = combine(&x, old, &data, to.alpha * (1.0 - kept.powf(1.0 + eta)))?;
        if eta > 0.0 {
            x = (x + (model.noise(step)? * (to.sigma * (1.0 - kept.powf(2.0 * eta)).sqrt()))?)?;
        }
        before = Some(x0);
        model.stepped(step, &x)?;
    }
    Ok(x)
}

impl Solver for Dpmpp2m {
    fn solve(&self, x: Tensor, levels: &[Level], model: &mut dyn Denoise) -> Result<Tensor> {
        solve(x, levels, model, 0.0, self.solver_type)
    }

    fn levels(&self, spacing: &dyn Spacing, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        spacing.levels_counting_last(schedule, steps)
    }
}

register!(Solver, "dpmpp-2m", Dpmpp2m, aliases = ["dpmpp_2m", "DPMSolverMultistepScheduler"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_one_for_short_steps() {
        assert!((SolverType::Heun.place(1e-4) - SolverType::Midpoint.place(1e-4)).abs() < 1e-4);
        // Most of a long step's weight is at its end.
        assert!(SolverType::Heun.place(20.0) > 0.9);
    }
}
