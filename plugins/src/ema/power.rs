//! The average whose memory is a fixed share of the run so far.

use sconce_sdk::prelude::*;

use crate::range;

/// A power-function average (Karras et al. 2024, section 3.1): the weights of time tau count in proportion to tau^gamma.
///
/// It remembers a fixed share of the run so far, so one number fits runs of all lengths, and the weights before the run
/// count nothing. The decay of a step of dt images that ends at t is (1 - dt/t)^(gamma + 1).
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Power {
    /// Standard deviation of the average's memory, as a share of the run so far; 0.05 to 0.15 is usual.
    #[serde(deserialize_with = "range::width")]
    pub sigma_rel: f64,
}

impl Default for Power {
    fn default() -> Self {
        Self { sigma_rel: 0.10 }
    }
}

impl Power {
    fn profile(&self) -> Profile {
        Profile::of_width(self.sigma_rel).expect("the range was checked")
    }
}

impl EmaStrategy for Power {
    fn tracks(&self) -> Vec<Track> {
        vec![Track { profile: Some(self.profile()) }]
    }

    fn decay(&self, _: usize, images_seen: u64, batch: u64) -> f64 {
        self.profile().decay(images_seen, batch)
    }
}

register!(EmaStrategy, "power", Power);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_a_share_of_the_run() {
        let ema = Power { sigma_rel: 0.05 };
        assert_eq!(ema.decay(0, 16, 16), 0.0);
        // (1 - 1/100)^17.97
        assert!((ema.decay(0, 1600, 16) - 0.99f64.powf(17.97)).abs() < 1e-4);
        assert_eq!(ema.decay(0, 1600, 16), ema.decay(0, 3200, 32));
    }
}
