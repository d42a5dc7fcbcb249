//! A family of shapes with two numbers: the ends, the middle or one side.

use sconce_sdk::prelude::*;
use sconce_sdk::special::beta::{incomplete_beta, ln_beta};

use crate::range;

/// t follows a beta distribution, whose density is t^(alpha - 1) (1 - t)^(beta - 1) but for a factor: both above 1 favour the
/// middle, both below 1 the ends, alpha above beta noise.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Beta {
    /// Higher draws less of t near 0.
    #[serde(deserialize_with = "range::positive")]
    pub alpha: f64,
    /// Higher draws less of t near 1.
    #[serde(deserialize_with = "range::positive")]
    pub beta: f64,
}

impl Default for Beta {
    fn default() -> Self {
        Self { alpha: 2.0, beta: 2.0 }
    }
}

impl TimestepSampler for Beta {
    fn quantile(&self, u: f64, schedule: &dyn Schedule) -> f64 {
        let (mut low, mut high) = (0.0, 1.0);
        // To the last bit: near 0 a density that is infinite there needs more than 53 halvings.
        for _ in 0..200 {
            let mid = 0.5 * (low + high);
            if mid == low || mid == high {
                break;
            }
            if self.cumulative(mid, schedule) < u { low = mid } else { high = mid }
        }
        if u <= 0.0 { 0.0 } else { high }
    }

    fn cumulative(&self, t: f64, _: &dyn Schedule) -> f64 {
        incomplete_beta(self.alpha, self.beta, t)
    }

    fn density(&self, t: f64, _: &dyn Schedule) -> f64 {
        // Where the exponent is 0, 0 · ln 0 is 0.
        let term = |exponent: f64, x: f64| if exponent == 0.0 { 0.0 } else { exponent * x.ln() };
        (term(self.alpha - 1.0, t) + term(self.beta - 1.0, 1.0 - t) - ln_beta(self.alpha, self.beta)).exp()
    }
}

register!(TimestepSampler, "beta", Beta);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::RectifiedFlow;

    #[test]
    fn quantiles_invert_the_known_distribution_functions() {
        let flow = RectifiedFlow::default();
        for u in [1e-6, 0.1, 0.5, 0.97] {
            let t = Beta::default().quantile(u, &flow);
            assert!((t * t * (3.0 - 2.0 * t) - u).abs() < 1e-12);
            // The arcsine distribution.
            let t = Beta { alpha: 0.5, beta: 0.5 }.quantile(u, &flow);
            assert!((t - (std::f64::consts::FRAC_PI_2 * u).sin().powi(2)).abs() < 1e-9);
        }
        assert!((Beta::default().density(0.5, &flow) - 1.5).abs() < 1e-12);
    }
}
