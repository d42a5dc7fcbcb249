//! The implicit sampler of DDPM's forward process.

use candle_core::{Result, Tensor};
use sconce_core::solver::{Denoise, Solver};
use sconce_sdk::prelude::*;

use super::{ancestral, straight};
use crate::range;
use crate::spacing::Last;

/// Denoising diffusion implicit models (Song et al. 2020). With eta = 0 its step is Euler's; what differs in practice is
/// where it starts (x is the noise itself) and where it may end.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ddim {
    /// Amount of fresh noise: 0 is deterministic, 1 is DDPM's.
    #[serde(deserialize_with = "range::share")]
    pub eta: f64,
    /// Where the picture is taken, in place of the spacing's own choice: `first-point` is diffusers' `set_alpha_to_one =
    /// false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Last>,
    /// Bound on the values of the estimated picture: diffusers' `clip_sample`, meant for models of pixels.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "range::maybe_positive")]
    pub clip: Option<f64>,
}

impl Solver for Ddim {
    fn solve(&self, mut x: Tensor, levels: &[Level], model: &mut dyn Denoise) -> Result<Tensor> {
        for (step, pair) in levels.windows(2).enumerate() {
            let mut denoised = model.denoise(&x, &pair[0])?;
            if let Some(bound) = self.clip {
                denoised.x0 = denoised.x0.clamp(-bound, bound)?;
            }
            x = if self.eta > 0.0 {
                ancestral(&denoised, &pair[0].noise, &pair[1].noise, self.eta, &model.noise(step)?)?
            } else {
                straight(&denoised, &pair[1].noise)?
            };
            model.stepped(step, &x)?;
        }
        Ok(x)
    }

    fn levels(&self, spacing: &dyn Spacing, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        let mut levels = spacing.levels(schedule, steps);
        if let (Some(last), Some(level)) = (self.last, levels.last_mut()) {
            *level = last.level(schedule);
        }
        levels
    }
}

register!(Solver, "ddim", Ddim, aliases = ["DDIMScheduler"]);
