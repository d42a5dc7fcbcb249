//! The average whose memory grows as a power of the updates made, as k-diffusion and diffusers' `EMAModel` with
//! `use_ema_warmup` have it.

use sconce_sdk::prelude::*;

use crate::range;

/// The average forgets less and less: the decay is 1 - (1 + n/inv_gamma)^-power after n updates.
///
/// Crowson's warm-up, in k-diffusion (`EMAWarmup`) and in diffusers (`EMAModel`, `use_ema_warmup`). With inv_gamma = 1, a
/// power of 2/3 reaches 0.999 after 31,600 updates and suits runs of a million; 3/4 reaches it after 10,000. The updates
/// before this one are counted as n = images_seen/batch - 1.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InversePower {
    /// Updates at which the decay begins to rise.
    #[serde(deserialize_with = "range::positive")]
    pub inv_gamma: f64,
    /// How fast the memory grows with the updates.
    #[serde(deserialize_with = "range::positive")]
    pub power: f64,
    /// The smallest decay, from the second update on; it holds against `max_decay` too.
    #[serde(deserialize_with = "range::share")]
    pub min_decay: f64,
    /// The largest decay.
    #[serde(deserialize_with = "range::share")]
    pub max_decay: f64,
}

impl Default for InversePower {
    fn default() -> Self {
        Self { inv_gamma: 1.0, power: 2.0 / 3.0, min_decay: 0.0, max_decay: 0.9999 }
    }
}

impl EmaStrategy for InversePower {
    fn tracks(&self) -> Vec<Track> {
        vec![Track::default()]
    }

    fn decay(&self, _: usize, images_seen: u64, batch: u64) -> f64 {
        let before = (images_seen as f64 / batch.max(1) as f64 - 1.0).max(0.0);
        if before == 0.0 {
            return 0.0; // the first update is the average, whatever the smallest decay
        }
        (1.0 - (1.0 + before / self.inv_gamma).powf(-self.power)).min(self.max_decay).max(self.min_decay)
    }
}

register!(EmaStrategy, "inverse-power", InversePower);
