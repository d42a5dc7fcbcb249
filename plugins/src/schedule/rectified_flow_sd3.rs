//! The straight path, noisier for larger pictures by the rule of Stable Diffusion 3.

use std::sync::Arc;

use sconce_sdk::prelude::*;

use super::RectifiedFlow;
use crate::range;

/// `rectified-flow` with a shift in proportion to the picture's side (Esser et al. 2024, equation 23): of n equal pixels
/// under noise the mean is known to sigma/sqrt(n), so m pixels need sqrt(m/n) times the noise to be as uncertain. The paper
/// trains at 256 pixels without a shift; at 1024 it settled on 3 rather than the 4 of this rule. Where no size is known, it
/// is at `base_side`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RectifiedFlowSd3 {
    /// The shift at `base_side`.
    #[serde(deserialize_with = "range::positive")]
    pub shift: f64,
    /// Side of the square latents that have this shift: 32 is 256 pixels.
    #[serde(deserialize_with = "range::positive")]
    pub base_side: f64,
}

impl Default for RectifiedFlowSd3 {
    fn default() -> Self {
        Self { shift: 1.0, base_side: 32.0 }
    }
}

impl Schedule for RectifiedFlowSd3 {
    fn at(&self, t: f64) -> Noise {
        RectifiedFlow { shift: self.shift }.at(t)
    }

    fn t_of(&self, log_snr: f64) -> f64 {
        RectifiedFlow { shift: self.shift }.t_of(log_snr)
    }

    fn at_size(&self, height: usize, width: usize) -> Option<Arc<dyn Schedule>> {
        let side = ((height * width) as f64).sqrt();
        Some(Arc::new(RectifiedFlow { shift: self.shift * side / self.base_side }))
    }
}

register!(Schedule, "rectified-flow-sd3", RectifiedFlowSd3, aliases = ["sd3-shift", "sd3_shift"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_times_the_side_is_four_times_the_shift() {
        let schedule = RectifiedFlowSd3::default();
        assert_eq!(schedule.at_size(128, 128).unwrap().at(0.5).sigma, 0.8);
        assert_eq!(schedule.at_size(64, 256).unwrap().at(0.5).sigma, 0.8);
        assert_eq!(schedule.at(0.5).sigma, 0.5);
    }
}
