//! More of the middle, less of the ends.

use std::f64::consts::PI;

use sconce_sdk::prelude::*;
use sconce_sdk::special::normal::{normal, probit};

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

impl LogitNormal {
    /// How many deviations logit(t) is above the mean.
    fn score(&self, t: f64) -> f64 {
        (t.ln() - (1.0 - t).ln() - self.mean) / self.std
    }
}

impl TimestepSampler for LogitNormal {
    fn quantile(&self, u: f64, _: &dyn Schedule) -> f64 {
        1.0 / (1.0 + (-(self.mean + self.std * probit(u))).exp())
    }

    fn cumulative(&self, t: f64, _: &dyn Schedule) -> f64 {
        normal(self.score(t))
    }

    fn density(&self, t: f64, _: &dyn Schedule) -> f64 {
        let of_logit = (-0.5 * self.score(t).powi(2)).exp() / (self.std * (2.0 * PI).sqrt());
        if of_logit == 0.0 { 0.0 } else { of_logit / (t * (1.0 - t)) }
    }
}

register!(TimestepSampler, "logit-normal", LogitNormal, aliases = ["logit_normal", "sigmoid"]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::RectifiedFlow;

    #[test]
    fn the_median_is_the_logistic_of_the_mean() {
        let (sampler, flow) = (LogitNormal { mean: 1.0, std: 0.7 }, RectifiedFlow::default());
        assert!((sampler.quantile(0.5, &flow) - 1.0 / (1.0 + (-1.0f64).exp())).abs() < 1e-15);
        assert_eq!(sampler.quantile(0.0, &flow), 0.0);
        assert_eq!((sampler.density(0.0, &flow), sampler.density(1.0, &flow)), (0.0, 0.0));
    }
}
