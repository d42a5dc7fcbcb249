//! The same rate for most of the run, and a short fall at its end.

use std::f64::consts::PI;

use sconce_sdk::prelude::*;

use super::warmup;
use crate::range;

/// A linear warm-up, the full rate, and over the last share of the run a fall to `final_factor` (Hu et al. 2024, MiniCPM,
/// section 4; the shapes are those of Hägele et al. 2024, section 3). A run can be continued from before the fall.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WarmupStableDecay {
    /// Images over which the rate rises from nothing.
    pub warmup_images: u64,
    /// Share of the run, at its end, over which the rate falls.
    #[serde(deserialize_with = "range::share")]
    pub decay_share: f64,
    /// How it falls.
    pub decay: Decay,
    /// The factor at the end.
    #[serde(deserialize_with = "range::not_negative")]
    pub final_factor: f64,
}

/// How a rate falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// By one minus the root of the share: fast at first. Best in Hägele et al. 2024.
    #[default]
    Sqrt,
    /// In a straight line.
    Linear,
    /// Along half a cosine.
    Cosine,
}

impl Decay {
    /// What is left at a share of the fall.
    fn left(self, share: f64) -> f64 {
        match self {
            Self::Sqrt => 1.0 - share.sqrt(),
            Self::Linear => 1.0 - share,
            Self::Cosine => 0.5 * (1.0 + (PI * share).cos()),
        }
    }
}

impl Default for WarmupStableDecay {
    fn default() -> Self {
        Self { warmup_images: 0, decay_share: 0.2, decay: Decay::Sqrt, final_factor: 0.0 }
    }
}

impl LrSchedule for WarmupStableDecay {
    fn factor(&self, images_seen: u64, images_total: u64) -> f64 {
        let length = self.decay_share * images_total as f64;
        let to_go = images_total.saturating_sub(images_seen) as f64;
        let left = if to_go < length { self.decay.left(1.0 - to_go / length) } else { 1.0 };
        warmup(images_seen, self.warmup_images) * (left + (1.0 - left) * self.final_factor)
    }
}

register!(
    LrSchedule,
    "warmup-stable-decay",
    WarmupStableDecay,
    aliases = ["warm-up-stable-decay", "warmup_stable_decay", "wsd"],
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_and_falls_at_the_end() {
        let lr = WarmupStableDecay { warmup_images: 9, final_factor: 0.1, ..WarmupStableDecay::default() };
        let factors = [0, 9, 80, 85, 100].map(|seen| lr.factor(seen, 100));
        for (found, want) in factors.into_iter().zip([0.1, 1.0, 1.0, 0.55, 0.1]) {
            assert!((found - want).abs() < 1e-12, "{factors:?}");
        }
        assert_eq!(WarmupStableDecay { decay_share: 0.0, ..lr }.factor(99, 100), 1.0);
    }
}
