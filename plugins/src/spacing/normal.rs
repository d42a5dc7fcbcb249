//! ComfyUI's first spacing.

use sconce_sdk::prelude::*;

use super::{Last, levels, points};

/// Times evenly from the last point to the first, both included and none rounded: `normal` in ComfyUI, and what diffusers'
/// scheduler of rectified flows does. It is `linspace` but for solvers that count the last level there.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Normal {
    /// Where the picture is taken.
    pub last: Last,
    /// The time of the last step.
    pub least: Least,
}

/// The time of the last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Least {
    /// That of the schedule's first point.
    #[default]
    Point,
    /// The share of noise that the first point has. ComfyUI and diffusers take the one for the other on a shifted flow, so
    /// that its shift counts twice there.
    Amount,
}

impl Spacing for Normal {
    fn levels(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        let top = (points(schedule) - 1) as f64;
        let bottom = match self.least {
            Least::Point => 0.0,
            Least::Amount => {
                let first = schedule.at(1.0 / points(schedule) as f64);
                first.sigma / (first.alpha + first.sigma) * points(schedule) as f64 - 1.0
            }
        };
        // The first point may not come twice.
        let spaces = if self.last == Last::FirstPoint || steps == 1 { steps } else { steps - 1 };
        levels(schedule, (0..steps).map(|k| top - (top - bottom) * k as f64 / spaces as f64), self.last)
    }
}

register!(Spacing, "normal", Normal);

#[cfg(test)]
mod tests {
    use super::super::tests::timesteps;
    use super::*;
    use crate::schedule::{RectifiedFlow, ScaledLinear};

    #[test]
    fn on_a_shifted_flow_the_last_step_is_where_other_programs_have_it() {
        let spacing = Normal { least: Least::Amount, ..Normal::default() };
        let sigmas: Vec<f64> = spacing.levels(&RectifiedFlow { shift: 3.0 }, 8).iter().map(|l| l.noise.sigma).collect();
        let diffusers = [1.0, 0.94754, 0.88279, 0.80084, 0.69379, 0.54805, 0.33797, 0.00893, 0.0];
        assert!(sigmas.iter().zip(diffusers).all(|(a, b)| (a - b).abs() < 1e-5), "{sigmas:?}");
        let plain = |least| Normal { least, ..Normal::default() }.levels(&RectifiedFlow { shift: 1.0 }, 8);
        assert_eq!(plain(Least::Point)[7].noise.sigma, plain(Least::Amount)[7].noise.sigma);
    }

    #[test]
    fn both_ends_are_visited_by_every_solver() {
        let (spacing, schedule) = (Normal::default(), ScaledLinear::default());
        for levels in [spacing.levels(&schedule, 5), spacing.levels_counting_last(&schedule, 5)] {
            assert_eq!(timesteps(&levels), [999.0, 749.25, 499.5, 249.75, 0.0]);
        }
    }
}
