//! High for long, and down at the end.

use sconce_sdk::prelude::*;

use super::{progress, warmup};
use crate::range;

/// (1 - p)/(1/2 + (1 - p)/2) at the share p of the run (Chen et al. 2022, REX, section 3): above a straight line throughout,
/// steepest at the end, to `final_factor`, after a linear warm-up.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rex {
    /// Images over which the rate rises from nothing.
    pub warmup_images: u64,
    /// The factor at the end.
    #[serde(deserialize_with = "range::not_negative")]
    pub final_factor: f64,
}

impl LrSchedule for Rex {
    fn factor(&self, images_seen: u64, images_total: u64) -> f64 {
        let rest = 1.0 - progress(images_seen, images_total, self.warmup_images);
        let left = rest / (0.5 + 0.5 * rest);
        warmup(images_seen, self.warmup_images) * (left + (1.0 - left) * self.final_factor)
    }
}

register!(LrSchedule, "rex", Rex);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_thirds_are_left_in_the_middle() {
        assert_eq!([0, 50, 100].map(|seen| Rex::default().factor(seen, 100)), [1.0, 2.0 / 3.0, 0.0]);
    }
}
