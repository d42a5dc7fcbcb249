//! The other variant of UniPC.

use candle_core::{Result, Tensor};
use sconce_core::solver::{Denoise, Solver};
use sconce_sdk::prelude::*;

use super::unipc::{order, solve};

/// UniPC with B(h) = h (Zhao et al. 2023, section 3.1): `uni_pc` in ComfyUI, where its order is 3, and `solver_type = bh1`
/// in diffusers. Said to be the better of the two in few steps without guidance.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UniPcBh1 {
    /// Order of the predictor, 1 to 3: 2 under guidance, 3 without. The first and the last steps are of lower order.
    #[serde(deserialize_with = "order")]
    pub order: usize,
}

impl Default for UniPcBh1 {
    fn default() -> Self {
        Self { order: 2 }
    }
}

impl Solver for UniPcBh1 {
    fn solve(&self, x: Tensor, levels: &[Level], model: &mut dyn Denoise) -> Result<Tensor> {
        solve(x, levels, model, self.order, |h| h)
    }

    fn levels(&self, spacing: &dyn Spacing, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        spacing.levels_counting_last(schedule, steps)
    }
}

register!(Solver, "unipc-bh1", UniPcBh1, aliases = ["uni_pc"]);
