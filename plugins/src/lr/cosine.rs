//! Half a cosine down.

use std::f64::consts::PI;

use sconce_sdk::prelude::*;

use super::{progress, warmup};
use crate::range;

/// Falls along half a cosine to `final_factor` at the end of the run (Loshchilov & Hutter 2017, without restarts), after
/// a linear warm-up.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cosine {
    /// Images over which the rate rises from nothing.
    pub warmup_images: u64,
    /// The factor at the end.
    #[serde(deserialize_with = "range::not_negative")]
    pub final_factor: f64,
}

impl LrSchedule for Cosine {
    fn factor(&self, images_seen: u64, images_total: u64) -> f64 {
        let left = 0.5 * (1.0 + (PI * progress(images_seen, images_total, self.warmup_images)).cos());
        warmup(images_seen, self.warmup_images) * (left + (1.0 - left) * self.final_factor)
    }
}

register!(LrSchedule, "cosine", Cosine);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_half_way_down_in_the_middle() {
        let lr = Cosine { warmup_images: 0, final_factor: 0.1 };
        assert!((lr.factor(50, 100) - 0.55).abs() < 1e-12);
        assert!((lr.factor(100, 100) - 0.1).abs() < 1e-12);
    }
}
