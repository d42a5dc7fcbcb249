//! Stable Diffusion 3's weighting by noise: the nearly clean levels count most.

use sconce_sdk::prelude::*;

use super::snr;

/// sigma^-2 on the error of a rectified flow's velocity (`sigma_sqrt` in diffusers' and kohya's scripts for Stable
/// Diffusion 3). That error is sigma^-2 times the data's, and sigma = 1/(1 + sqrt(SNR)) on the straight path, so on the data
/// it is (1 + sqrt(SNR))^4. It grows without bound as t goes to 0.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SigmaSqrt {}

impl Weighting for SigmaSqrt {
    fn on_x0(&self, log_snr: f64) -> f64 {
        (1.0 + snr(log_snr).sqrt()).powi(4)
    }
}

register!(Weighting, "sigma-sqrt", SigmaSqrt, aliases = ["sigma_sqrt"]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::Flow;
    use crate::schedule::RectifiedFlow;

    #[test]
    fn is_one_over_the_variance_on_the_velocity() {
        let noise = RectifiedFlow::default().at(0.25);
        assert!((SigmaSqrt {}.on_output(&noise, Flow {}.target(&noise)) - 16.0).abs() < 1e-9);
    }
}
