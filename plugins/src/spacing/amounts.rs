//! Levels by the amount of noise rather than by time, for `karras`, `exponential` and `beta`.

use sconce_sdk::prelude::*;

use super::{Last, points};

/// The amount of noise that a spacing divides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Over {
    /// sigma/alpha: what k-diffusion, diffusers and ComfyUI call sigma where alpha² + sigma² = 1.
    #[default]
    Ratio,
    /// sigma itself: what diffusers and ComfyUI take for rectified flows.
    Sigma,
}

impl Over {
    fn of(self, noise: &Noise) -> f64 {
        match self {
            Self::Ratio => noise.sigma / noise.alpha,
            Self::Sigma => noise.sigma,
        }
    }

    /// The time at which there is this much noise.
    fn time(self, schedule: &dyn Schedule, amount: f64) -> f64 {
        if self == Self::Ratio {
            return schedule.t_of(-2.0 * amount.ln());
        }
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..80 {
            let mid = 0.5 * (low + high);
            if schedule.at(mid).sigma < amount { low = mid } else { high = mid }
        }
        0.5 * (low + high)
    }
}

/// How far amounts reach, and where the picture is taken.
pub(super) struct Amounts {
    pub over: Over,
    pub least: Option<f64>,
    pub greatest: Option<f64>,
    pub last: Last,
}

impl Amounts {
    /// `steps` levels and the last. `place(greatest, least, share)` is the amount at a share of the way, from 0 to 1. Each
    /// level's noise is that of its amount; the time at which the network is asked for it is passed through `asked`.
    pub fn levels(
        &self,
        schedule: &dyn Schedule,
        steps: usize,
        place: impl Fn(f64, f64, f64) -> f64,
        asked: impl Fn(f64) -> f64,
    ) -> Vec<Level> {
        let at = |t: f64| self.over.of(&schedule.at(t));
        // Under a zero-terminal schedule sigma/alpha has no end; alpha² = 2^-24 is where diffusers ends it.
        let greatest = self.greatest.unwrap_or_else(|| at(1.0).min(4096.0));
        let least = self.least.unwrap_or_else(|| at(1.0 / points(schedule) as f64));
        // The schedule's first point may not come twice.
        let spaces = if self.last == Last::FirstPoint || steps == 1 { steps } else { steps - 1 };
        let level = |k: usize| {
            let t = self.over.time(schedule, place(greatest, least, k as f64 / spaces as f64));
            Level { t: asked(t), noise: schedule.at(t) }
        };
        (0..steps).map(level).chain([self.last.level(schedule)]).collect()
    }
}

/// The time of the point at or below t, by which diffusers' multistep solvers ask the network.
pub(super) fn point_below(schedule: &dyn Schedule, t: f64) -> f64 {
    let n = points(schedule) as f64;
    // A time that is found by its noise may fall short of its point by a rounding error.
    ((t * n - 1.0 + 1e-6).floor().max(0.0) + 1.0) / n
}
