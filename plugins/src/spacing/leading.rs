//! Equal whole steps counted up from the data.

use sconce_sdk::prelude::*;

use super::{Last, levels, points};

/// Equal whole steps counted up from the data, the first sampler's rule in Stable Diffusion 1, 2 and XL. It stops short
/// of t = 1, so a model trained on a zero-terminal schedule is never shown the noise it was taught to start from.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Leading {
    /// Added to every timestep: 1 in Stable Diffusion.
    pub steps_offset: usize,
    /// Where the picture is taken.
    pub last: Last,
}

impl Leading {
    fn of_rank(&self, schedule: &dyn Schedule, ranks: impl Iterator<Item = usize>, of: usize) -> Vec<Level> {
        let n = points(schedule);
        // More steps than points cannot be whole.
        let ratio = if of <= n { (n / of) as f64 } else { n as f64 / of as f64 };
        let ranks: Vec<usize> = ranks.collect();
        let top = ranks.first().map_or(0.0, |&rank| rank as f64 * ratio);
        let offset = (self.steps_offset as f64).min(n as f64 - 1.0 - top);
        levels(schedule, ranks.into_iter().map(|rank| rank as f64 * ratio + offset), self.last)
    }
}

impl Spacing for Leading {
    fn levels(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        self.of_rank(schedule, (0..steps).rev(), steps)
    }

    fn levels_counting_last(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        self.of_rank(schedule, (1..=steps).rev(), steps + 1)
    }
}

register!(Spacing, "leading", Leading);

#[cfg(test)]
mod tests {
    use super::super::tests::timesteps;
    use super::*;
    use crate::schedule::ScaledLinear;

    #[test]
    fn visits_the_timesteps_of_diffusers() {
        let (spacing, schedule) = (Leading { steps_offset: 1, last: Last::Clean }, ScaledLinear::default());
        assert_eq!(timesteps(&spacing.levels(&schedule, 3)), [667.0, 334.0, 1.0]);
        assert_eq!(timesteps(&spacing.levels_counting_last(&schedule, 3)), [751.0, 501.0, 251.0]);
    }
}
