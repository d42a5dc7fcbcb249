//! A robust distance without a corner in any derivative.

use std::f64::consts::LN_2;

use sconce_sdk::prelude::*;

use crate::range;

/// 2c² ln cosh(d/c): d² below the width c, 2c|d| above it, and smooth throughout (Chen et al. 2019, "Log hyperbolic
/// cosine loss improves variational auto-encoder"). Trainers that offer it mean half of this at c = 1.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogCosh {
    /// The width.
    #[serde(deserialize_with = "range::positive")]
    pub c: f64,
}

impl Default for LogCosh {
    fn default() -> Self {
        Self { c: 1.0 }
    }
}

impl Distance for LogCosh {
    fn at(&self, d: f64, c: f64) -> [f64; 2] {
        let x = (d / c).abs();
        // Neither small values nor large ones lose their digits.
        let log_cosh = if x < 1.0 { 0.5 * x.sinh().powi(2).ln_1p() } else { x + (-2.0 * x).exp().ln_1p() - LN_2 };
        [2.0 * c * c * log_cosh, 2.0 * c * (d / c).tanh()]
    }

    fn width(&self, _: f64, _: &Noise) -> f64 {
        self.c
    }
}

register!(Distance, "log-cosh", LogCosh, aliases = ["log_cosh"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_logarithm_of_the_hyperbolic_cosine() {
        for d in [0.0, 0.2, 0.999_999, 1.000_001, 3.0, -3.0] {
            assert!((LogCosh::default().at(d, 1.0)[0] - 2.0 * f64::ln(d.cosh())).abs() < 1e-14, "{d}");
        }
        assert!((LogCosh::default().at(1e-9, 1.0)[0] / 1e-18 - 1.0).abs() < 1e-12);
        assert!((LogCosh::default().at(1e9, 1.0)[0] / 2e9 - 1.0).abs() < 1e-8);
    }
}
