//! ComfyUI's even spacing.

use sconce_sdk::prelude::*;

use super::{Last, levels, points};

/// Timesteps evenly from the last point down, the first point left out: `sgm_uniform` in ComfyUI. Nearly `trailing`, and
/// as right for zero-terminal schedules.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SgmUniform {
    /// Where the picture is taken.
    pub last: Last,
}

impl Spacing for SgmUniform {
    fn levels(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        let top = (points(schedule) - 1) as f64;
        levels(schedule, (0..steps).map(|k| top - top * k as f64 / steps as f64), self.last)
    }
}

register!(Spacing, "sgm-uniform", SgmUniform, aliases = ["sgm_uniform"]);

#[cfg(test)]
mod tests {
    use super::super::tests::timesteps;
    use super::*;
    use crate::schedule::ScaledLinear;

    #[test]
    fn divides_the_way_evenly() {
        let levels = SgmUniform::default().levels(&ScaledLinear::default(), 4);
        assert_eq!(timesteps(&levels), [999.0, 749.25, 499.5, 249.75]);
    }
}
