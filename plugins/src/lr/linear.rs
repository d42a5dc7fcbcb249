//! A straight line down.

use sconce_sdk::prelude::*;

use super::{progress, warmup};
use crate::range;

/// Falls linearly to `final_factor` at the end of the run, after a linear warm-up.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Linear {
    /// Images over which the rate rises from nothing.
    pub warmup_images: u64,
    /// The factor at the end.
    #[serde(deserialize_with = "range::not_negative")]
    pub final_factor: f64,
}

impl LrSchedule for Linear {
    fn factor(&self, images_seen: u64, images_total: u64) -> f64 {
        let done = progress(images_seen, images_total, self.warmup_images);
        warmup(images_seen, self.warmup_images) * (1.0 - done + done * self.final_factor)
    }
}

register!(LrSchedule, "linear", Linear);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn falls_to_the_final_factor() {
        let lr = Linear { warmup_images: 0, final_factor: 0.5 };
        assert_eq!([0, 50, 100].map(|seen| lr.factor(seen, 100)), [1.0, 0.75, 0.5]);
    }
}
