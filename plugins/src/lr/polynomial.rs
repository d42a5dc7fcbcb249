//! A power of what is left of the run.

use sconce_sdk::prelude::*;

use super::{progress, warmup};
use crate::range;

/// Falls as the remaining share of the run to a power, to `final_factor` at the end, after a linear warm-up: 1 is linear, 2
/// falls early, below 1 late.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Polynomial {
    /// Images over which the rate rises from nothing.
    pub warmup_images: u64,
    /// The power.
    #[serde(deserialize_with = "range::positive")]
    pub power: f64,
    /// The factor at the end.
    #[serde(deserialize_with = "range::not_negative")]
    pub final_factor: f64,
}

impl Default for Polynomial {
    fn default() -> Self {
        Self { warmup_images: 0, power: 2.0, final_factor: 0.0 }
    }
}

impl LrSchedule for Polynomial {
    fn factor(&self, images_seen: u64, images_total: u64) -> f64 {
        let left = (1.0 - progress(images_seen, images_total, self.warmup_images)).powf(self.power);
        warmup(images_seen, self.warmup_images) * (left + (1.0 - left) * self.final_factor)
    }
}

register!(LrSchedule, "polynomial", Polynomial);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_quarter_where_half_is_left() {
        assert_eq!([0, 50, 100].map(|seen| Polynomial::default().factor(seen, 100)), [1.0, 0.25, 0.0]);
    }
}
