//! Slowly down, without a planned end.

use sconce_sdk::prelude::*;

use super::warmup;
use crate::range;

/// 1/sqrt(max(images/reference_images, 1)) after a linear warm-up (Karras et al. 2024, EDM2, appendix B): it does not look at
/// the length of the run, so a run may go on for as long as one likes. EDM2 warms up over 10 million images and takes a
/// reference of 70,000 steps of 2048 for latents at 512 pixels.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InverseSqrt {
    /// Images over which the rate rises from nothing.
    pub warmup_images: u64,
    /// Images up to which the rate stays as it is; after four times as many it has halved.
    #[serde(deserialize_with = "range::positive")]
    pub reference_images: f64,
}

impl Default for InverseSqrt {
    fn default() -> Self {
        Self { warmup_images: 0, reference_images: 100_000.0 }
    }
}

impl LrSchedule for InverseSqrt {
    fn factor(&self, images_seen: u64, _: u64) -> f64 {
        warmup(images_seen, self.warmup_images) / (images_seen as f64 / self.reference_images).max(1.0).sqrt()
    }
}

register!(LrSchedule, "inverse-sqrt", InverseSqrt, aliases = ["inverse_sqrt"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_when_four_times_as_much_is_seen() {
        let lr = InverseSqrt { warmup_images: 9, reference_images: 1000.0 };
        assert_eq!([0, 9, 1000, 4000, 16_000].map(|seen| lr.factor(seen, 1)), [0.1, 1.0, 1.0, 0.5, 0.25]);
    }
}
