//! Gives noisy levels the weight that their error has in the finished picture.

use sconce_sdk::prelude::*;

use crate::range;

/// 1/sqrt(SNR) on the error of epsilon (Yu et al. 2023), which is sqrt(SNR) on that of the data, and so
/// sqrt(SNR)/(SNR + 1) on v.
///
/// Trainers that offer it for v do not derive it: some use 1/(SNR + 1), which is plain x0 loss, others 1/sqrt(SNR + 1),
/// which is this with `snr_offset = 1`. The derived form counts nothing where there is no signal; on a zero-terminal
/// schedule take `snr_offset = 1`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Debiased {
    /// Added to the SNR under the root: 0 is the paper's, 1 keeps the weight at SNR 0 at 1.
    #[serde(deserialize_with = "range::not_negative")]
    pub snr_offset: f64,
    /// The factor on epsilon falls no further above this SNR.
    #[serde(deserialize_with = "range::positive")]
    pub snr_cap: f64,
}

impl Default for Debiased {
    fn default() -> Self {
        Self { snr_offset: 0.0, snr_cap: 1000.0 }
    }
}

/// Above this log-SNR there is no noise to speak of; e^80 keeps the weight finite at t = 0.
const CLEAN: f64 = 80.0;

impl Weighting for Debiased {
    fn on_x0(&self, log_snr: f64) -> f64 {
        let snr = log_snr.min(CLEAN).exp() + self.snr_offset;
        if snr > self.snr_cap { snr / self.snr_cap.sqrt() } else { snr.sqrt() }
    }
}

register!(Weighting, "debiased", Debiased);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::{Epsilon, V};
    use crate::schedule::ScaledLinear;

    #[test]
    fn has_the_published_form_on_epsilon_and_the_trainers_form_on_v() {
        let schedule = ScaledLinear::default();
        for t in [0.001, 0.2, 0.7, 1.0] {
            let (noise, snr) = (schedule.at(t), schedule.at(t).snr());
            let epsilon = Debiased::default().on_output(&noise, Epsilon {}.target(&noise));
            assert!((epsilon * snr.min(1000.0).sqrt() - 1.0).abs() < 1e-9);
            let v = Debiased { snr_offset: 1.0, snr_cap: 1e9 }.on_output(&noise, V {}.target(&noise));
            assert!((v * (1.0 + snr).sqrt() - 1.0).abs() < 1e-9);
        }
    }
}
