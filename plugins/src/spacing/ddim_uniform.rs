//! ComfyUI's name for the first sampler's spacing.

use sconce_sdk::prelude::*;

use super::{Last, Leading};

/// `leading` with a `steps_offset` of 1: `ddim_uniform` in ComfyUI, which takes more steps than it is told where these do
/// not divide the points; here it is as many as said.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DdimUniform {
    /// Where the picture is taken.
    pub last: Last,
}

impl Spacing for DdimUniform {
    fn levels(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        Leading { steps_offset: 1, last: self.last }.levels(schedule, steps)
    }
}

register!(Spacing, "ddim-uniform", DdimUniform, aliases = ["ddim_uniform"]);

#[cfg(test)]
mod tests {
    use super::super::tests::timesteps;
    use super::*;
    use crate::schedule::ScaledLinear;

    #[test]
    fn counts_up_from_one() {
        let (spacing, schedule) = (DdimUniform::default(), ScaledLinear::default());
        for levels in [spacing.levels(&schedule, 4), spacing.levels_counting_last(&schedule, 4)] {
            assert_eq!(timesteps(&levels), [751.0, 501.0, 251.0, 1.0]);
        }
    }
}
