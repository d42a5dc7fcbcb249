//! Keeps easy, nearly clean levels from drowning the rest.

use sconce_sdk::prelude::*;

use crate::range;

/// min(SNR, gamma) on the error of the data (Hang et al. 2023): min(SNR, gamma)/SNR on epsilon and
/// min(SNR, gamma)/(SNR + 1) on v follow by themselves. It is 0 where there is no signal, so with v on a zero-terminal
/// schedule it takes the weight from the very levels that such a run is about.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MinSnr {
    /// Upper bound on the SNR.
    #[serde(deserialize_with = "range::positive")]
    pub gamma: f64,
}

impl Default for MinSnr {
    fn default() -> Self {
        Self { gamma: 5.0 }
    }
}

impl Weighting for MinSnr {
    fn on_x0(&self, log_snr: f64) -> f64 {
        log_snr.exp().min(self.gamma)
    }
}

register!(Weighting, "min-snr", MinSnr, aliases = ["min_snr"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_snr_up_to_gamma() {
        let weighting = MinSnr::default();
        assert_eq!(weighting.on_x0(f64::NEG_INFINITY), 0.0);
        assert!((weighting.on_x0(2.0f64.ln()) - 2.0).abs() < 1e-12);
        assert_eq!(weighting.on_x0(f64::INFINITY), 5.0);
    }
}
