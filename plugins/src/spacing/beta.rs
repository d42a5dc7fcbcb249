//! The spacing that is dense at both ends.

use sconce_sdk::prelude::*;
use sconce_sdk::special::beta;

use super::amounts::{Amounts, Over, point_below};
use super::{Last, levels, points};
use crate::range;

/// Quantiles of a beta distribution, dense at both ends (Lee et al. 2024, "Beta sampling is all you need"): `beta` in
/// ComfyUI, where it divides time, and `use_beta_sigmas` in diffusers, where it divides the amount of noise.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Beta {
    /// Lower is denser at the data.
    #[serde(deserialize_with = "range::positive")]
    pub alpha: f64,
    /// Lower is denser at the noise.
    #[serde(deserialize_with = "range::positive")]
    pub beta: f64,
    /// What is divided.
    pub over: BetaOver,
    /// Where the picture is taken.
    pub last: Last,
}

/// What the quantiles are of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BetaOver {
    /// Time, rounded to the schedule's points: the paper's and ComfyUI's.
    #[default]
    Time,
    /// sigma/alpha: diffusers' where alpha² + sigma² = 1. It leaves few levels where there is little noise.
    Ratio,
    /// sigma itself: diffusers' for rectified flows.
    Sigma,
}

impl Default for Beta {
    fn default() -> Self {
        Self { alpha: 0.6, beta: 0.6, over: BetaOver::Time, last: Last::Clean }
    }
}

impl Beta {
    fn in_time(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        let top = (points(schedule) - 1) as f64;
        let places: Vec<f64> =
            (0..steps).map(|k| top * beta::quantile(1.0 - k as f64 / steps as f64, self.alpha, self.beta)).collect();
        let whole: Vec<f64> = places.iter().map(|place| place.round_ties_even()).collect();
        // No point may come twice.
        let last = (self.last == Last::FirstPoint).then_some(0.0);
        let falls = whole.windows(2).all(|pair| pair[1] < pair[0]) && whole.last().copied() > last;
        levels(schedule, if falls { whole } else { places }, self.last)
    }

    fn by_amount(&self, over: Over, schedule: &dyn Schedule, steps: usize, asked: impl Fn(f64) -> f64) -> Vec<Level> {
        let place =
            |greatest, least, share| least + (greatest - least) * beta::quantile(1.0 - share, self.alpha, self.beta);
        Amounts { over, least: None, greatest: None, last: self.last }.levels(schedule, steps, place, asked)
    }

    fn asked(&self, schedule: &dyn Schedule, steps: usize, asked: impl Fn(f64) -> f64) -> Vec<Level> {
        match self.over {
            BetaOver::Time => self.in_time(schedule, steps),
            BetaOver::Ratio => self.by_amount(Over::Ratio, schedule, steps, asked),
            BetaOver::Sigma => self.by_amount(Over::Sigma, schedule, steps, asked),
        }
    }
}

impl Spacing for Beta {
    fn levels(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        self.asked(schedule, steps, |t| t)
    }

    /// diffusers cuts off the fraction of the network's timesteps here.
    fn levels_counting_last(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        self.asked(schedule, steps, |t| point_below(schedule, t))
    }
}

register!(Spacing, "beta", Beta);

#[cfg(test)]
mod tests {
    use super::super::tests::timesteps;
    use super::*;
    use crate::schedule::ScaledLinear;

    #[test]
    fn both_ends_are_dense() {
        let at = timesteps(&Beta::default().levels(&ScaledLinear::default(), 10));
        let gaps: Vec<f64> = at.windows(2).map(|pair| pair[0] - pair[1]).collect();
        assert_eq!(at[0], 999.0);
        assert!(gaps[0] < 0.5 * gaps[4] && gaps[8] < 0.8 * gaps[4], "{at:?}");
        assert!(at.iter().all(|t| t.fract() == 0.0));
    }

    #[test]
    fn what_cannot_be_whole_is_not_rounded() {
        for last in [Last::Clean, Last::FirstPoint] {
            let levels = Beta { last, ..Beta::default() }.levels(&ScaledLinear::default(), 500);
            assert!(levels.windows(2).all(|pair| pair[1].noise.log_snr() > pair[0].noise.log_snr()));
        }
    }
}
