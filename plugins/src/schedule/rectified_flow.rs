//! The straight path from data to noise.

use sconce_sdk::prelude::*;

use crate::range;

/// sigma = t, alpha = 1 - t (Liu et al. 2022; Lipman et al. 2022), with the time shift of Esser et al. 2024.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RectifiedFlow {
    /// sigma = shift · t/(1 + (shift - 1) t): above 1 there is more noise at every t. Stable Diffusion 3 uses 3.
    #[serde(deserialize_with = "range::positive")]
    pub shift: f64,
}

impl Default for RectifiedFlow {
    fn default() -> Self {
        Self { shift: 1.0 }
    }
}

impl Schedule for RectifiedFlow {
    fn at(&self, t: f64) -> Noise {
        let t = t.clamp(0.0, 1.0);
        let scale = 1.0 + (self.shift - 1.0) * t;
        let d_sigma = self.shift / (scale * scale);
        Noise { alpha: (1.0 - t) / scale, sigma: self.shift * t / scale, d_alpha: -d_sigma, d_sigma }
    }

    fn t_of(&self, log_snr: f64) -> f64 {
        // sigma/alpha = shift · t/(1 - t).
        1.0 / (1.0 + self.shift * (0.5 * log_snr).exp())
    }
}

register!(Schedule, "rectified-flow", RectifiedFlow, aliases = ["rectified_flow"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shift_moves_the_middle_towards_noise() {
        let (plain, shifted) = (RectifiedFlow::default().at(0.5), RectifiedFlow { shift: 3.0 }.at(0.5));
        assert_eq!((plain.alpha, plain.sigma, plain.d_sigma), (0.5, 0.5, 1.0));
        assert_eq!((shifted.alpha, shifted.sigma), (0.25, 0.75));
    }
}
