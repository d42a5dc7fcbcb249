//! The plain exponential moving average, which at first remembers no further back than the run goes.

use sconce_sdk::prelude::*;

use crate::range;

/// The average forgets the same share at every step, once it is warm.
///
/// Until `warmup_images` its memory, 1/(1 - decay) steps, grows in step with the images seen, as that of the ramp of
/// Karras et al. 2022 and of the common (1 + n)/(10 + n) does: an average that is as slow from the start as at the end
/// would mostly remember the untrained weights.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Constant {
    /// Share of the average that each step keeps.
    #[serde(deserialize_with = "range::share")]
    pub decay: f64,
    /// Images until `decay` holds in full.
    pub warmup_images: u64,
}

impl Default for Constant {
    fn default() -> Self {
        Self { decay: 0.999, warmup_images: 10_000 }
    }
}

impl EmaStrategy for Constant {
    fn tracks(&self) -> Vec<Track> {
        vec![Track::default()]
    }

    fn decay(&self, _: usize, images_seen: u64, _: u64) -> f64 {
        let slowdown = self.warmup_images as f64 / images_seen.max(1) as f64;
        (1.0 - (1.0 - self.decay) * slowdown.max(1.0)).max(0.0)
    }
}

register!(EmaStrategy, "constant", Constant);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_in_proportion_to_what_was_seen() {
        let ema = Constant { decay: 0.999, warmup_images: 10_000 };
        assert_eq!(ema.decay(0, 1, 1), 0.0);
        assert!((ema.decay(0, 1000, 1) - 0.99).abs() < 1e-12);
        assert_eq!(ema.decay(0, 10_000, 1), 0.999);
        assert_eq!(ema.decay(0, 1_000_000, 1), 0.999);
    }
}
