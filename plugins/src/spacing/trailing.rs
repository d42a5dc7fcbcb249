//! Equal steps counted down from pure noise.

use sconce_sdk::prelude::*;

use super::{Last, levels, points};

/// Equal steps counted down from t = 1, rounded to the schedule's points (Lin et al. 2023, table 2): the rule for
/// zero-terminal schedules.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Trailing {
    /// Where the picture is taken.
    pub last: Last,
}

impl Spacing for Trailing {
    fn levels(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        let n = points(schedule);
        let ratio = n as f64 / steps as f64;
        let index = |k: usize| {
            let place = n as f64 - k as f64 * ratio;
            // More steps than points cannot be whole.
            if steps <= n { place.round_ties_even() - 1.0 } else { place - 1.0 }
        };
        levels(schedule, (0..steps).map(index), self.last)
    }
}

register!(Spacing, "trailing", Trailing);

#[cfg(test)]
mod tests {
    use super::super::tests::timesteps;
    use super::*;
    use crate::schedule::ScaledLinear;

    #[test]
    fn visits_the_timesteps_of_diffusers() {
        let levels = Trailing::default().levels(&ScaledLinear::default(), 7);
        assert_eq!(timesteps(&levels), [999.0, 856.0, 713.0, 570.0, 428.0, 285.0, 142.0]);
        assert_eq!(levels[0].t, 1.0);
    }
}
