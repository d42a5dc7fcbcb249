//! The variational bound without the levels that nobody sees.

use sconce_sdk::prelude::*;

use super::{over_log_snr, snr};
use crate::range;

/// The logistic function of bias - lambda for the error of epsilon, in an integral over log-SNR (Kingma & Gao 2023, with
/// bias 2; Hoogeboom et al. 2024, SiD2): the bound down to log-SNR = bias, and less and less of it where there is less
/// noise. On the data it is SNR/(1 + SNR e^-bias), times -1/2 d lambda/dt as in `elbo`: exact for uniform timesteps.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sigmoid {
    /// The log-SNR at which a level counts half: lower for larger pictures, as with `log-snr-shift`.
    #[serde(deserialize_with = "range::finite")]
    pub bias: f64,
}

impl Default for Sigmoid {
    fn default() -> Self {
        Self { bias: 2.0 }
    }
}

impl Weighting for Sigmoid {
    /// Per unit of log-SNR.
    fn on_x0(&self, log_snr: f64) -> f64 {
        let snr = snr(log_snr);
        snr / (1.0 + snr * (-self.bias).exp())
    }

    fn on_output(&self, noise: &Noise, target: [f64; 2]) -> f64 {
        over_log_snr(self, noise, target)
    }
}

register!(Weighting, "sigmoid", Sigmoid);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::Epsilon;
    use crate::schedule::CosineContinuous;

    #[test]
    fn is_a_logistic_share_of_the_bound() {
        let noise = CosineContinuous::default().at(0.3);
        let target = Epsilon {}.target(&noise);
        let share = Sigmoid { bias: 1.0 }.on_output(&noise, target) / super::super::Elbo {}.on_output(&noise, target);
        assert!((share - 1.0 / (1.0 + (noise.log_snr() - 1.0).exp())).abs() < 1e-12);
    }
}
