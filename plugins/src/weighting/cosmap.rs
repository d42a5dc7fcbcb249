//! Rectified flow, weighted as though it followed the cosine.

use std::f64::consts::FRAC_2_PI;

use sconce_sdk::prelude::*;

use super::snr;

/// 2/(pi (1 - 2 sigma + 2 sigma²)) on the error of a rectified flow's velocity (Esser et al. 2024, section 3.1, there as a
/// density of times: the timesteps `cosmap` draw what this weighs). With r = sqrt(SNR) that is 2 (1 + r)²/(pi (1 + r²)), and
/// the velocity's error is (1 + r)² times the data's, so on the data it is 2 (1 + r)^4/(pi (1 + r²)).
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cosmap {}

impl Weighting for Cosmap {
    fn on_x0(&self, log_snr: f64) -> f64 {
        let snr = snr(log_snr);
        FRAC_2_PI * (1.0 + snr.sqrt()).powi(4) / (1.0 + snr)
    }
}

register!(Weighting, "cosmap", Cosmap);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::Flow;
    use crate::schedule::RectifiedFlow;

    #[test]
    fn is_the_published_factor_on_the_velocity() {
        for t in [0.1, 0.5, 1.0] {
            let noise = RectifiedFlow::default().at(t);
            let factor = Cosmap {}.on_output(&noise, Flow {}.target(&noise));
            assert!((factor - FRAC_2_PI / (1.0 - 2.0 * t + 2.0 * t * t)).abs() < 1e-12);
        }
    }
}
