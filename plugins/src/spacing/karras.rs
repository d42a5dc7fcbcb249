//! Karras's spacing: most levels where there is little noise.

use sconce_sdk::prelude::*;

use super::amounts::Amounts;
use super::{Last, Over, points};
use crate::range;

/// sigma/alpha evenly in its rho-th root (Karras et al. 2022, equation 5), from the schedule's last point to its first.
/// The network is asked at the time whose SNR fits.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Karras {
    /// Higher puts more levels near the data.
    #[serde(deserialize_with = "range::positive")]
    pub rho: f64,
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

impl Default for Karras {
    fn default() -> Self {
        Self { rho: 7.0, over: Over::Ratio, sigma_min: None, sigma_max: None, last: Last::Clean }
    }
}

impl Karras {
    fn asked(&self, schedule: &dyn Schedule, steps: usize, asked: impl Fn(f64) -> f64) -> Vec<Level> {
        let root = |amount: f64| amount.powf(1.0 / self.rho);
        let place =
            |greatest, least, share: f64| (root(greatest) + (root(least) - root(greatest)) * share).powf(self.rho);
        let Self { over, sigma_min: least, sigma_max: greatest, last, .. } = *self;
        Amounts { over, least, greatest, last }.levels(schedule, steps, place, asked)
    }
}

impl Spacing for Karras {
    fn levels(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        self.asked(schedule, steps, |t| t)
    }

    /// diffusers rounds the network's timesteps here.
    fn levels_counting_last(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        let n = points(schedule) as f64;
        self.asked(schedule, steps, |t| ((t * n - 1.0).round_ties_even() + 1.0) / n)
    }
}

register!(Spacing, "karras", Karras);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{RectifiedFlow, ScaledLinear};

    #[test]
    fn goes_from_end_to_end_with_even_roots() {
        let (spacing, schedule) = (Karras::default(), ScaledLinear::default());
        let levels = spacing.levels(&schedule, 5);
        let sigma = |k: usize| levels[k].noise.sigma / levels[k].noise.alpha;
        assert!((sigma(0) - 14.6146).abs() < 1e-3 && (sigma(4) - 0.02917).abs() < 1e-5);
        let root = |k: usize| sigma(k).powf(1.0 / 7.0);
        assert!((root(0) - root(1) - (root(2) - root(3))).abs() < 1e-9);
    }

    #[test]
    fn a_flow_is_divided_by_its_sigma() {
        let levels = Karras { over: Over::Sigma, ..Karras::default() }.levels(&RectifiedFlow::default(), 3);
        let middle = (0.5 + 0.5 * 0.001f64.powf(1.0 / 7.0)).powi(7);
        for (level, sigma) in levels.iter().zip([1.0, middle, 0.001, 0.0]) {
            assert!((level.noise.sigma - sigma).abs() < 1e-12 && (level.t - sigma).abs() < 1e-12, "{level:?}");
        }
    }
}
