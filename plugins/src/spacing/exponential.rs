//! The spacing that cuts the noise by the same factor at every step.

use sconce_sdk::prelude::*;

use super::amounts::{Amounts, point_below};
use super::{Last, Over};
use crate::range;

/// sigma/alpha evenly in its logarithm, which is evenly in log-SNR (Lu et al. 2022a), from the schedule's
/// last point to its first: `exponential` in ComfyUI, `use_exponential_sigmas` in diffusers.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Exponential {
    /// What is divided: `ratio` is sigma/alpha, `sigma` is sigma, as diffusers and ComfyUI have it for rectified flows.
    pub over: Over,
    /// Least amount. Default: at the schedule's first point.
    #[serde(deserialize_with = "range::maybe_positive", skip_serializing_if = "Option::is_none")]
    pub sigma_min: Option<f64>,
    /// Greatest amount. Default: at t = 1, but no more than 4096 (alpha² = 2^-24), since a zero-terminal schedule has no
    /// end.
    #[serde(deserialize_with = "range::maybe_positive", skip_serializing_if = "Option::is_none")]
    pub sigma_max: Option<f64>,
    /// Where the picture is taken.
    pub last: Last,
}

impl Exponential {
    fn asked(&self, schedule: &dyn Schedule, steps: usize, asked: impl Fn(f64) -> f64) -> Vec<Level> {
        let place = |greatest: f64, least: f64, share| greatest * (least / greatest).powf(share);
        let Self { over, sigma_min: least, sigma_max: greatest, last } = *self;
        Amounts { over, least, greatest, last }.levels(schedule, steps, place, asked)
    }
}

impl Spacing for Exponential {
    fn levels(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        self.asked(schedule, steps, |t| t)
    }

    /// diffusers cuts off the fraction of the network's timesteps here.
    fn levels_counting_last(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        self.asked(schedule, steps, |t| point_below(schedule, t))
    }
}

register!(Spacing, "exponential", Exponential);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::ScaledLinear;

    #[test]
    fn log_snr_rises_evenly() {
        let levels = Exponential::default().levels(&ScaledLinear::default(), 5);
        let rises: Vec<f64> = levels[..5].windows(2).map(|p| p[1].noise.log_snr() - p[0].noise.log_snr()).collect();
        assert!(rises.iter().all(|rise| (rise - rises[0]).abs() < 1e-9), "{rises:?}");
        assert_eq!((levels[0].t, levels[5].noise.sigma), (1.0, 0.0));
    }
}
