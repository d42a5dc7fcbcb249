//! The same rate throughout.

use sconce_sdk::prelude::*;

use super::warmup;

/// The same rate throughout, after a linear warm-up.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Constant {
    /// Images over which the rate rises from nothing.
    pub warmup_images: u64,
}

impl LrSchedule for Constant {
    fn factor(&self, images_seen: u64, _: u64) -> f64 {
        warmup(images_seen, self.warmup_images)
    }
}

register!(LrSchedule, "constant", Constant, aliases = ["constant_with_warmup"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_and_stays() {
        let lr = Constant { warmup_images: 99 };
        assert_eq!([0, 49, 99, 5000].map(|seen| lr.factor(seen, 10_000)), [0.01, 0.5, 1.0, 1.0]);
    }
}
