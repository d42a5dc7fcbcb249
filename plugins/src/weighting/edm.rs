//! EDM's weighting, under which an untrained network's loss is the same at every level.

use sconce_sdk::prelude::*;

use super::snr;
use crate::range;

/// (sigma² + s²)/(sigma s)² on the denoised picture, where alpha = 1 (Karras et al. 2022, table 1), s being `sigma_data`: with
/// sigma² = 1/SNR it is SNR + 1/s² on the data. It is 1 on the output of the objective `edm` of the same `sigma_data`; with
/// s = 1 it is 1 on v.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Edm {
    /// Standard deviation of the data.
    #[serde(deserialize_with = "range::positive")]
    pub sigma_data: f64,
}

impl Default for Edm {
    fn default() -> Self {
        Self { sigma_data: 0.5 }
    }
}

impl Weighting for Edm {
    fn on_x0(&self, log_snr: f64) -> f64 {
        snr(log_snr) + self.sigma_data.powi(-2)
    }
}

register!(Weighting, "edm", Edm);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{objective, schedule};

    #[test]
    fn is_one_on_its_own_output() {
        for t in [0.1, 0.5, 1.0] {
            let noise = schedule::Edm::default().at(t);
            let factor = Edm::default().on_output(&noise, objective::Edm::default().target(&noise));
            assert!((factor - 1.0).abs() < 1e-12);
        }
    }
}
