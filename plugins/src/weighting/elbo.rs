//! The variational bound itself: maximum likelihood, which looks worse and compresses better.

use sconce_sdk::prelude::*;

use super::{over_log_snr, snr};

/// The evidence lower bound (Kingma et al. 2021, equation 17): every log-SNR counts the same for the error of epsilon, which
/// is SNR on the data, times -1/2 d lambda/dt, since times are drawn and not log-SNRs. So the weight on the data is -1/2
/// d SNR/dt, by this schedule's own slope, and exact for uniform timesteps; others put their density on top.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Elbo {}

impl Weighting for Elbo {
    /// Per unit of log-SNR.
    fn on_x0(&self, log_snr: f64) -> f64 {
        snr(log_snr)
    }

    fn on_output(&self, noise: &Noise, target: [f64; 2]) -> f64 {
        over_log_snr(self, noise, target)
    }
}

register!(Weighting, "elbo", Elbo, aliases = ["vlb"]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::{Epsilon, X0};
    use crate::schedule::CosineContinuous;

    #[test]
    fn is_half_the_fall_of_the_snr_on_the_data() {
        let schedule = CosineContinuous::default();
        let (t, h) = (0.3, 1e-6);
        let noise = schedule.at(t);
        let fall = (schedule.at(t - h).snr() - schedule.at(t + h).snr()) / (2.0 * h);
        assert!((Elbo {}.on_output(&noise, X0 {}.target(&noise)) / (0.5 * fall) - 1.0).abs() < 1e-6);
        // On epsilon it is half the fall of log-SNR, 2 pi/sin(pi t).
        let want = std::f64::consts::PI / (std::f64::consts::PI * t).sin();
        assert!((Elbo {}.on_output(&noise, Epsilon {}.target(&noise)) - want).abs() < 1e-9);
    }
}
