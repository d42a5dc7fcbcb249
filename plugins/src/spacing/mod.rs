//! Spacings: where a sampler puts its noise levels. Words and rules are those of diffusers and ComfyUI, so that a run here
//! visits the timesteps that it visits there.

mod amounts;
mod beta;
mod ddim_uniform;
mod exponential;
mod karras;
mod leading;
mod linspace;
mod normal;
mod sgm_uniform;
mod simple;
mod trailing;

use sconce_sdk::prelude::*;

pub use amounts::Over;
pub use beta::{Beta, BetaOver};
pub use ddim_uniform::DdimUniform;
pub use exponential::Exponential;
pub use karras::Karras;
pub use leading::Leading;
pub use linspace::Linspace;
pub use normal::Normal;
pub use sgm_uniform::SgmUniform;
pub use simple::Simple;
pub use trailing::Trailing;

/// The level that a sampler ends at, where the picture is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Last {
    /// No noise at all (`final_sigmas_type = "zero"`).
    #[default]
    Clean,
    /// The schedule's first point, with its little noise (`final_sigmas_type = "sigma_min"`).
    FirstPoint,
}

impl Last {
    /// The level itself.
    pub fn level(self, schedule: &dyn Schedule) -> Level {
        match self {
            Self::Clean => Level { t: 0.0, noise: Noise { alpha: 1.0, sigma: 0.0, d_alpha: 0.0, d_sigma: 0.0 } },
            Self::FirstPoint => at_index(schedule, 0.0),
        }
    }
}

/// The number of a schedule's points. A continuous one is treated as a table of 1000, as everywhere in the field.
fn points(schedule: &dyn Schedule) -> usize {
    schedule.grid().unwrap_or(1000)
}

/// The level at a point, counted from 0 at the least noise; between points for a fraction.
fn at_index(schedule: &dyn Schedule, index: f64) -> Level {
    let t = ((index + 1.0) / points(schedule) as f64).min(1.0);
    Level { t, noise: schedule.at(t) }
}

/// Levels at these indices, from noise to data, and the last.
fn levels(schedule: &dyn Schedule, indices: impl IntoIterator<Item = f64>, last: Last) -> Vec<Level> {
    let levels = indices.into_iter().map(|i| at_index(schedule, i));
    levels.chain([last.level(schedule)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::ScaledLinear;

    /// Timesteps as diffusers counts them.
    pub(super) fn timesteps(levels: &[Level]) -> Vec<f64> {
        levels[..levels.len() - 1].iter().map(|l| (l.t * 1e9 * 1000.0).round() / 1e9 - 1.0).collect()
    }

    #[test]
    fn the_first_point_has_the_noise_of_the_first_beta() {
        let level = Last::FirstPoint.level(&ScaledLinear::default());
        assert!((level.noise.sigma.powi(2) - 0.00085).abs() < 1e-12);
    }
}
