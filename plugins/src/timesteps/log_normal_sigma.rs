//! EDM's distribution, which is over noise levels and not over times.

use std::f64::consts::PI;

use sconce_sdk::prelude::*;
use sconce_sdk::special::normal::{normal, probit};

use crate::range;

/// ln(sigma/alpha) is normal (Karras et al. 2022, table 1 and section 5), within what the schedule has: the same noise levels
/// on every schedule, at its own times. EDM2 takes -0.4 and 1 for latents (Karras et al. 2024), with data of deviation
/// 0.5; for data of deviation 1 add ln 2.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogNormalSigma {
    /// Mean of ln(sigma/alpha).
    #[serde(deserialize_with = "range::finite")]
    pub p_mean: f64,
    /// Standard deviation of ln(sigma/alpha).
    #[serde(deserialize_with = "range::positive")]
    pub p_std: f64,
}

impl Default for LogNormalSigma {
    fn default() -> Self {
        Self { p_mean: -1.2, p_std: 1.2 }
    }
}

impl LogNormalSigma {
    /// How many deviations a level is above the mean.
    fn score(&self, noise: &Noise) -> f64 {
        (-0.5 * noise.log_snr() - self.p_mean) / self.p_std
    }

    /// The shares of the whole distribution below the schedule's first level and up to its last.
    fn ends(&self, schedule: &dyn Schedule) -> [f64; 2] {
        [0.0, 1.0].map(|t| normal(self.score(&schedule.at(t))))
    }
}

impl TimestepSampler for LogNormalSigma {
    fn quantile(&self, u: f64, schedule: &dyn Schedule) -> f64 {
        let [first, last] = self.ends(schedule);
        schedule.t_of(-2.0 * (self.p_mean + self.p_std * probit(first + u * (last - first))))
    }

    fn cumulative(&self, t: f64, schedule: &dyn Schedule) -> f64 {
        let [first, last] = self.ends(schedule);
        ((normal(self.score(&schedule.at(t))) - first) / (last - first)).clamp(0.0, 1.0)
    }

    fn density(&self, t: f64, schedule: &dyn Schedule) -> f64 {
        let ([first, last], noise) = (self.ends(schedule), schedule.at(t));
        let per_score = (-0.5 * self.score(&noise).powi(2)).exp() / (2.0 * PI).sqrt() / (last - first);
        // At an end without noise or signal the slope is infinite, and the density 0 all the same.
        if per_score == 0.0 { 0.0 } else { per_score * -0.5 * noise.log_snr_slope() / self.p_std }
    }
}

register!(TimestepSampler, "log-normal-sigma", LogNormalSigma, aliases = ["log_normal_sigma", "lognormal"]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Edm, RectifiedFlow, ScaledLinear};
    use crate::timesteps::LogitNormal;

    #[test]
    fn the_median_level_is_the_same_on_every_schedule() {
        for schedule in [&Edm::default() as &dyn Schedule, &RectifiedFlow::default(), &ScaledLinear::default()] {
            let noise = schedule.at(LogNormalSigma::default().quantile(0.5, schedule));
            assert!(((noise.sigma / noise.alpha).ln() + 1.2).abs() < 2e-3, "{noise:?}");
        }
    }

    /// ln(sigma/alpha) of a rectified flow is the logit of t.
    #[test]
    fn is_logit_normal_on_a_rectified_flow() {
        let flow = RectifiedFlow::default();
        let (sigma, logit) = (LogNormalSigma { p_mean: 0.3, p_std: 0.8 }, LogitNormal { mean: 0.3, std: 0.8 });
        for u in [0.01, 0.4, 0.9] {
            let t = sigma.quantile(u, &flow);
            assert!((t - logit.quantile(u, &flow)).abs() < 1e-12);
            assert!((sigma.density(t, &flow) / logit.density(t, &flow) - 1.0).abs() < 1e-9);
        }
    }
}
