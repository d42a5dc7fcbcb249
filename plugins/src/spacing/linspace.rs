//! From the noisiest point to the cleanest, both included.

use sconce_sdk::prelude::*;

use super::{Last, levels, points};

/// Timesteps evenly from the last point to the first, both included (iDDPM's rule in Lin et al. 2023, table 2).
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Linspace {
    /// Where the picture is taken.
    pub last: Last,
}

impl Spacing for Linspace {
    fn levels(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        let top = (points(schedule) - 1) as f64;
        // The first point may not come twice.
        let bottom = if self.last == Last::FirstPoint || steps == 1 { steps } else { steps - 1 };
        levels(schedule, (0..steps).map(|k| top - top * k as f64 / bottom as f64), self.last)
    }

    fn levels_counting_last(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        let top = (points(schedule) - 1) as f64;
        let index = |k: usize| {
            let index = top - top * k as f64 / steps as f64;
            if steps as f64 <= top { index.round_ties_even() } else { index }
        };
        levels(schedule, (0..steps).map(index), self.last)
    }
}

register!(Spacing, "linspace", Linspace);

#[cfg(test)]
mod tests {
    use super::super::tests::timesteps;
    use super::*;
    use crate::schedule::ScaledLinear;

    #[test]
    fn visits_the_timesteps_of_diffusers() {
        let (spacing, schedule) = (Linspace::default(), ScaledLinear::default());
        assert_eq!(timesteps(&spacing.levels(&schedule, 5)), [999.0, 749.25, 499.5, 249.75, 0.0]);
        assert_eq!(timesteps(&spacing.levels_counting_last(&schedule, 4)), [999.0, 749.0, 500.0, 250.0]);
    }
}
