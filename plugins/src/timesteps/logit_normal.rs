//! More of the middle, less of the ends.

use sconce_sdk::prelude::*;

use super::probit::probit;
use crate::range;

/// The logit of t is normal (Esser et al. 2024, section 3.1): times in the middle, where the task is hardest, are drawn
/// most. Pure noise is all but never drawn, so it is a poor choice for teaching a zero-terminal schedule.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogitNormal {
    /// Mean of logit(t): above 0 favours noise.
    #[serde(deserialize_with = "range::finite")]
    pub mean: f64,
    /// Standard deviation of logit(t).
    #[serde(deserialize_with = "range::positive")]
    pub std: f64,
}

impl Default for LogitNormal {
    fn default() -> Self {
        Self { mean: 0.0, std: 1.0 }
    }
}

impl TimestepSampler for LogitNormal {
    fn quantile(&self, u: f64) -> f64 {
        1.0 / (1.0 + (-(self.mean + self.std * probit(u))).exp())
    }
}

register!(TimestepSampler, "logit-normal", LogitNormal, aliases = ["logit_normal"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_logistic_of_the_mean() {
        let sampler = LogitNormal { mean: 1.0, std: 0.7 };
        assert!((sampler.quantile(0.5) - 1.0 / (1.0 + (-1.0f64).exp())).abs() < 1e-15);
        assert_eq!(sampler.quantile(0.0), 0.0);
    }
}
