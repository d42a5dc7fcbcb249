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
}

impl Spacing for Normal {
    fn levels(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        let top = (points(schedule) - 1) as f64;
        // The first point may not come twice.
        let spaces = if self.last == Last::FirstPoint || steps == 1 { steps } else { steps - 1 };
        levels(schedule, (0..steps).map(|k| top - top * k as f64 / spaces as f64), self.last)
    }
}

register!(Spacing, "normal", Normal);

#[cfg(test)]
mod tests {
    use super::super::tests::timesteps;
    use super::*;
    use crate::schedule::ScaledLinear;

    #[test]
    fn both_ends_are_visited_by_every_solver() {
        let (spacing, schedule) = (Normal::default(), ScaledLinear::default());
        for levels in [spacing.levels(&schedule, 5), spacing.levels_counting_last(&schedule, 5)] {
            assert_eq!(timesteps(&levels), [999.0, 749.25, 499.5, 249.75, 0.0]);
        }
    }
}
