//! Averages from which one of any width can be rebuilt after the run.

use sconce_sdk::prelude::*;

use crate::range;

/// Power-function averages with snapshots, from which `sconce ema` rebuilds one of any width after the run (Karras et al.
/// 2024, section 3.2).
///
/// How wide an average should be is known only when the run is over, and to track one costs a whole run. Two are tracked
/// instead, and written down as the run goes; a weighted sum of these snapshots then comes as near as their profiles allow
/// to an average of any other width at any snapshot's time. Each snapshot takes four bytes (or two) a trained weight and
/// average.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PostHoc {
    /// Widths of the averages that are tracked; the first is what is validated, drawn and written at the end.
    #[serde(deserialize_with = "range::widths")]
    pub sigma_rel: Vec<f64>,
    /// A snapshot every so many images, and one at the end. Default: 32 in the run.
    #[serde(deserialize_with = "range::maybe_count", skip_serializing_if = "Option::is_none")]
    pub snapshot_every_images: Option<u64>,
    /// Type of the snapshots' values. Rebuilding adds and subtracts them: what is rounded away here comes back larger.
    pub snapshot_dtype: Stored,
}

impl Default for PostHoc {
    fn default() -> Self {
        Self { sigma_rel: vec![0.05, 0.10], snapshot_every_images: None, snapshot_dtype: Stored::F32 }
    }
}

impl PostHoc {
    fn profile(sigma_rel: f64) -> Profile {
        Profile::of_width(sigma_rel).expect("the range was checked")
    }
}

impl EmaStrategy for PostHoc {
    fn tracks(&self) -> Vec<Track> {
        self.sigma_rel.iter().map(|&s| Track { profile: Some(Self::profile(s)) }).collect()
    }

    fn decay(&self, track: usize, images_seen: u64, batch: u64) -> f64 {
        Self::profile(self.sigma_rel[track]).decay(images_seen, batch)
    }

    fn snapshots(&self, images_total: u64) -> Option<Snapshots> {
        let every_images = self.snapshot_every_images.unwrap_or(images_total.div_ceil(32).max(1));
        Some(Snapshots { every_images, dtype: self.snapshot_dtype })
    }
}

register!(EmaStrategy, "post-hoc", PostHoc);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracks_two_and_writes_32_times() {
        let ema = PostHoc::default();
        let gammas: Vec<f64> = ema.tracks().iter().filter_map(|t| t.profile).map(|p| p.gamma).collect();
        assert!((gammas[0] - 16.97).abs() < 5e-3 && (gammas[1] - 6.94).abs() < 5e-3);
        assert_eq!(ema.snapshots(4800).map(|s| s.every_images), Some(150));
    }
}
