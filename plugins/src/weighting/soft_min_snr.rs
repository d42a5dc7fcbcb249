//! Min-SNR without the corner.

use sconce_sdk::prelude::*;

use super::snr;
use crate::range;

/// SNR gamma/(SNR + gamma) on the error of the data (Crowson et al. 2024, HDiT): `min-snr` with a smooth turn.
///
/// The paper gives it in EDM's frame as 1/(sigma² + 1/gamma) on the denoised picture, where sigma² = 1/SNR. k-diffusion has
/// it as (sigma s)²/(sigma² + s²)² on the output F of `edm` with gamma = 1/s²; F's error is (sigma² + s²)/(sigma s)² times
/// that of the data, so the product is 1/(sigma² + s²), the same.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SoftMinSnr {
    /// What the weight goes to as the noise vanishes. 4 is k-diffusion's, with s = 0.5.
    #[serde(deserialize_with = "range::positive")]
    pub gamma: f64,
}

impl Default for SoftMinSnr {
    fn default() -> Self {
        Self { gamma: 4.0 }
    }
}

impl Weighting for SoftMinSnr {
    fn on_x0(&self, log_snr: f64) -> f64 {
        let snr = snr(log_snr);
        snr * self.gamma / (snr + self.gamma)
    }
}

register!(Weighting, "soft-min-snr", SoftMinSnr, aliases = ["soft_min_snr"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_between_the_snr_and_gamma() {
        let weighting = SoftMinSnr::default();
        assert!((weighting.on_x0(4f64.ln()) - 2.0).abs() < 1e-12);
        assert_eq!((weighting.on_x0(f64::NEG_INFINITY), weighting.on_x0(f64::INFINITY)), (0.0, 4.0));
    }
}
