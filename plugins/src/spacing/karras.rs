//! Levels by the amount of noise rather than by time.

use sconce_sdk::prelude::*;

use super::{Last, points};
use crate::range;

/// sigma/alpha evenly in its rho-th root (Karras et al. 2022, equation 5), from the schedule's last point to its first.
/// The network is asked at the time whose SNR fits.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Karras {
    /// Higher puts more levels near the data.
    #[serde(deserialize_with = "range::positive")]
    pub rho: f64,
    /// Least sigma/alpha. Default: at the schedule's first point.
    #[serde(deserialize_with = "range::maybe_positive", skip_serializing_if = "Option::is_none")]
    pub sigma_min: Option<f64>,
    /// Greatest sigma/alpha. Default: at t = 1, but no more than 4096 (alpha² = 2^-24), since a zero-terminal schedule has
    /// no end.
    #[serde(deserialize_with = "range::maybe_positive", skip_serializing_if = "Option::is_none")]
    pub sigma_max: Option<f64>,
    /// Where the picture is taken.
    pub last: Last,
}

impl Default for Karras {
    fn default() -> Self {
        Self { rho: 7.0, sigma_min: None, sigma_max: None, last: Last::Clean }
    }
}

impl Karras {
    /// The levels, each with its time passed through `snap`.
    fn snapped(&self, schedule: &dyn Schedule, steps: usize, snap: impl Fn(f64) -> f64) -> Vec<Level> {
        let ratio = |t: f64| {
            let noise = schedule.at(t);
            noise.sigma / noise.alpha
        };
        let root = |sigma: f64| sigma.powf(1.0 / self.rho);
        let first = root(self.sigma_max.unwrap_or_else(|| ratio(1.0).min(4096.0)));
        let least = root(self.sigma_min.unwrap_or_else(|| ratio(1.0 / points(schedule) as f64)));
        // The schedule's first point may not come twice.
        let spaces = if self.last == Last::FirstPoint || steps == 1 { steps } else { steps - 1 };
        let level = |k: usize| {
            let sigma = (first + (least - first) * k as f64 / spaces as f64).powf(self.rho);
            let t = schedule.t_of(-2.0 * sigma.ln());
            Level { t: snap(t), noise: schedule.at(t) }
        };
        (0..steps).map(level).chain([self.last.level(schedule)]).collect()
    }
}

impl Spacing for Karras {
    fn levels(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        self.snapped(schedule, steps, |t| t)
    }

    /// diffusers rounds the network's timesteps here, and only here.
    fn levels_counting_last(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        let n = points(schedule) as f64;
        self.snapped(schedule, steps, |t| ((t * n - 1.0).round_ties_even() + 1.0) / n)
    }
}

register!(Spacing, "karras", Karras);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::ScaledLinear;

    #[test]
    fn goes_from_end_to_end_with_even_roots() {
        let (spacing, schedule) = (Karras::default(), ScaledLinear::default());
        let levels = spacing.levels(&schedule, 5);
        let sigma = |k: usize| levels[k].noise.sigma / levels[k].noise.alpha;
        assert!((sigma(0) - 14.6146).abs() < 1e-3 && (sigma(4) - 0.02917).abs() < 1e-5);
        let root = |k: usize| sigma(k).powf(1.0 / 7.0);
        assert!((root(0) - root(1) - (root(2) - root(3))).abs() < 1e-9);
    }
}
