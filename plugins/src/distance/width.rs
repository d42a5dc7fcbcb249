//! How the width of a robust distance follows the noise: at high noise an outlier is a picture that does not belong, at
//! low noise a difference is a detail.

use sconce_sdk::prelude::*;

/// How the width c follows the noise level (Khrapov et al. 2024, section 3.2; the SNR rule is that of the authors' code).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WidthSchedule {
    /// c everywhere.
    Constant,
    /// c^t: from 1 without noise to c in pure noise.
    Exponential,
    /// (1 - c)/(1 + sigma/alpha)² + c: the same ends, by the SNR.
    #[default]
    Snr,
}

impl WidthSchedule {
    /// The width at a time.
    pub(super) fn at(self, c: f64, t: f64, noise: &Noise) -> f64 {
        match self {
            Self::Constant => c,
            Self::Exponential => c.powf(t),
            Self::Snr => (1.0 - c) / (1.0 + noise.sigma / noise.alpha).powi(2) + c,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_from_one_to_the_width_of_pure_noise() {
        let level = |alpha, sigma| Noise { alpha, sigma, d_alpha: 0.0, d_sigma: 0.0 };
        for schedule in [WidthSchedule::Exponential, WidthSchedule::Snr] {
            assert_eq!(schedule.at(0.1, 0.0, &level(1.0, 0.0)), 1.0);
            assert!((schedule.at(0.1, 1.0, &level(0.0, 1.0)) - 0.1).abs() < 1e-15);
        }
        assert!((WidthSchedule::Snr.at(0.1, 0.5, &level(1.0, 1.0)) - 0.325).abs() < 1e-15);
        assert!((WidthSchedule::Exponential.at(0.01, 0.5, &level(1.0, 1.0)) - 0.1).abs() < 1e-15);
    }
}
