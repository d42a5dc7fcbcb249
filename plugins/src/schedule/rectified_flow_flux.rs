//! The straight path, noisier for larger pictures by the rule of Flux.

use std::sync::Arc;

use sconce_sdk::prelude::*;

use super::RectifiedFlow;
use crate::range;

/// `rectified-flow` with the shift e^mu, mu linear in the number of tokens (Flux; diffusers' `use_dynamic_shifting` with
/// its exponential shift): the same share of noise hides less of a larger picture. Where no size is known, it is at
/// `base_tokens`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RectifiedFlowFlux {
    /// mu at `base_tokens`.
    #[serde(deserialize_with = "range::finite")]
    pub base_shift: f64,
    /// mu at `max_tokens`; beyond, the line goes on.
    #[serde(deserialize_with = "range::finite")]
    pub max_shift: f64,
    /// 256: 256 x 256 pixels.
    #[serde(deserialize_with = "range::positive")]
    pub base_tokens: f64,
    /// Not `base_tokens`. 4096: 1024 x 1024 pixels.
    #[serde(deserialize_with = "range::positive")]
    pub max_tokens: f64,
    /// The side of the latents' square that is one token.
    #[serde(deserialize_with = "range::count")]
    pub patch: usize,
}

impl Default for RectifiedFlowFlux {
    fn default() -> Self {
        Self { base_shift: 0.5, max_shift: 1.15, base_tokens: 256.0, max_tokens: 4096.0, patch: 2 }
    }
}

impl RectifiedFlowFlux {
    fn of_tokens(&self, tokens: f64) -> RectifiedFlow {
        let slope = (self.max_shift - self.base_shift) / (self.max_tokens - self.base_tokens);
        RectifiedFlow { shift: (self.base_shift + slope * (tokens - self.base_tokens)).exp() }
    }
}

impl Schedule for RectifiedFlowFlux {
    fn at(&self, t: f64) -> Noise {
        self.of_tokens(self.base_tokens).at(t)
    }

    fn t_of(&self, log_snr: f64) -> f64 {
        self.of_tokens(self.base_tokens).t_of(log_snr)
    }

    fn at_size(&self, height: usize, width: usize) -> Option<Arc<dyn Schedule>> {
        Some(Arc::new(self.of_tokens(((height / self.patch) * (width / self.patch)) as f64)))
    }
}

register!(Schedule, "rectified-flow-flux", RectifiedFlowFlux, aliases = ["flux-shift", "flux_shift"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shift_is_that_of_the_picture() {
        let schedule = RectifiedFlowFlux::default();
        for (side, mu) in [(32, 0.5f64), (128, 1.15)] {
            let sized = schedule.at_size(side, side).unwrap();
            assert_eq!(sized.at(0.3), RectifiedFlow { shift: mu.exp() }.at(0.3));
        }
        assert_eq!(schedule.at(0.3), schedule.at_size(32, 32).unwrap().at(0.3));
    }
}
