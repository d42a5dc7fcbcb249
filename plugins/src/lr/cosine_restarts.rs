//! Half a cosine down, several times.

use std::f64::consts::PI;

use sconce_sdk::prelude::*;

use super::{progress, warmup};
use crate::range;

/// Falls along half a cosine to `final_factor`, and begins anew, `cycles` times of equal length (Loshchilov & Hutter 2017,
/// equation 5, with T_mult = 1), after one linear warm-up.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CosineRestarts {
    /// Images over which the rate rises from nothing.
    pub warmup_images: u64,
    /// How often it falls.
    #[serde(deserialize_with = "range::count")]
    pub cycles: usize,
    /// The factor at the end of each fall.
    #[serde(deserialize_with = "range::not_negative")]
    pub final_factor: f64,
}

impl Default for CosineRestarts {
    fn default() -> Self {
        Self { warmup_images: 0, cycles: 3, final_factor: 0.0 }
    }
}

impl LrSchedule for CosineRestarts {
    fn factor(&self, images_seen: u64, images_total: u64) -> f64 {
        let done = progress(images_seen, images_total, self.warmup_images);
        // The run's end is the end of the last fall, not the start of another.
        let fallen = if done < 1.0 { (done * self.cycles as f64).fract() } else { 1.0 };
        let left = 0.5 * (1.0 + (PI * fallen).cos());
        warmup(images_seen, self.warmup_images) * (left + (1.0 - left) * self.final_factor)
    }
}

register!(
    LrSchedule,
    "cosine-restarts",
    CosineRestarts,
    aliases = ["cosine_with_restarts", "cosine-with-restarts", "cosine_with_hard_restarts"],
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_anew_and_ends_low() {
        let lr = CosineRestarts { cycles: 2, final_factor: 0.1, ..CosineRestarts::default() };
        let factors = [0, 25, 50, 75, 100].map(|seen| lr.factor(seen, 100));
        for (found, want) in factors.into_iter().zip([1.0, 0.55, 1.0, 0.55, 0.1]) {
            assert!((found - want).abs() < 1e-12, "{factors:?}");
        }
    }
}
