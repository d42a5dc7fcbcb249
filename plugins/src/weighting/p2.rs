//! Less weight for levels where only imperceptible detail is left to learn.

use sconce_sdk::prelude::*;

use super::snr;
use crate::range;

/// 1/(k + SNR)^gamma on the error of epsilon (Choi et al. 2022, equation 8, over DDPM's plain loss). The error of epsilon is
/// SNR times that of the data, so on the data it is SNR/(k + SNR)^gamma, and on v 1/(k + SNR)^gamma · SNR/(SNR + 1).
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct P2 {
    /// How much less the nearly clean levels count: 0 is plain epsilon loss, the paper takes 0.5 and 1.
    #[serde(deserialize_with = "range::not_negative")]
    pub gamma: f64,
    /// The SNR around which the weight turns.
    #[serde(deserialize_with = "range::positive")]
    pub k: f64,
}

impl Default for P2 {
    fn default() -> Self {
        Self { gamma: 1.0, k: 1.0 }
    }
}

impl Weighting for P2 {
    fn on_x0(&self, log_snr: f64) -> f64 {
        let snr = snr(log_snr);
        snr * (self.k + snr).powf(-self.gamma)
    }
}

register!(Weighting, "p2", P2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_gamma_it_is_plain_epsilon_loss() {
        let weighting = P2 { gamma: 0.0, k: 1.0 };
        assert!((weighting.on_x0(1.3) - 1.3f64.exp()).abs() < 1e-12);
        assert_eq!(P2::default().on_x0(0.0), 0.5);
    }
}
