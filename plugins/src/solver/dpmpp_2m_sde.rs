//! The second-order multistep solver with fresh noise at every step.

use candle_core::{Result, Tensor};
use sconce_core::solver::{Denoise, Solver};
use sconce_sdk::prelude::*;

use super::SolverType;
use super::dpmpp_2m::solve;
use crate::range;

/// SDE-DPM-Solver++(2M) (Lu et al. 2022b, section 5), as diffusers and k-diffusion run it. The picture keeps changing with
/// the number of steps.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Dpmpp2mSde {
    /// Amount of fresh noise: 0 is DPM++ 2M, 1 keeps the statistics of the forward process.
    #[serde(deserialize_with = "range::not_negative")]
    pub eta: f64,
    /// How the second order is reached.
    pub solver_type: SolverType,
}

impl Default for Dpmpp2mSde {
    fn default() -> Self {
        Self { eta: 1.0, solver_type: SolverType::Midpoint }
    }
}

impl Solver for Dpmpp2mSde {
    fn solve(&self, x: Tensor, levels: &[Level], model: &mut dyn Denoise) -> Result<Tensor> {
        solve(x, levels, model, self.eta, self.solver_type)
    }

    fn levels(&self, spacing: &dyn Spacing, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        spacing.levels_counting_last(schedule, steps)
    }
}

register!(Solver, "dpmpp-2m-sde", Dpmpp2mSde, aliases = ["dpmpp_2m_sde"]);
