//! ComfyUI's spacing by whole points.

use sconce_sdk::prelude::*;

use super::{Last, levels, points};

/// Points counted down from the last, as many at a time as fit, rounded towards noise: `simple` in ComfyUI. Nearly
/// `trailing`, and as right for zero-terminal schedules.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Simple {
    /// Where the picture is taken.
    pub last: Last,
}

impl Spacing for Simple {
    fn levels(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        let n = points(schedule);
        let ratio = n as f64 / steps as f64;
        let index = |k: usize| {
            let down = k as f64 * ratio;
            // More steps than points cannot be whole.
            n as f64 - 1.0 - if steps <= n { down.floor() } else { down }
        };
        levels(schedule, (0..steps).map(index), self.last)
    }
}

register!(Spacing, "simple", Simple);

#[cfg(test)]
mod tests {
    use super::super::tests::timesteps;
    use super::*;
    use crate::schedule::ScaledLinear;

    #[test]
    fn rounds_towards_noise() {
        let levels = Simple::default().levels(&ScaledLinear::default(), 7);
        assert_eq!(timesteps(&levels), [999.0, 857.0, 714.0, 571.0, 428.0, 285.0, 142.0]);
    }
}
