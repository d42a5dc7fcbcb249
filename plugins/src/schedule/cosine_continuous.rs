//! The cosine schedule without a table.

use std::f64::consts::FRAC_PI_2;

use sconce_sdk::prelude::*;

use crate::range;

/// alpha = cos(pi t/2), sigma = sin(pi t/2) (Salimans & Ho 2022, section 4), of which `cosine` is
/// the older form with a table of 1000 betas. It goes from no noise to no signal; with bounds the angle runs between
/// theirs instead (Hoogeboom et al. 2023 bound it by 15 and -15).
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CosineContinuous {
    /// Log-SNR at t = 0. Default: infinite.
    #[serde(deserialize_with = "range::maybe_finite", skip_serializing_if = "Option::is_none")]
    pub log_snr_max: Option<f64>,
    /// Log-SNR at t = 1, below `log_snr_max`. Default: that of no signal.
    #[serde(deserialize_with = "range::maybe_finite", skip_serializing_if = "Option::is_none")]
    pub log_snr_min: Option<f64>,
}

/// The angle atan(sigma/alpha) of a log-SNR.
fn angle(log_snr: f64) -> f64 {
    (-0.5 * log_snr).exp().atan()
}

impl CosineContinuous {
    /// The angle at t = 0, and what is left of a right angle at t = 1.
    fn ends(&self) -> [f64; 2] {
        // A right angle less the angle of a log-SNR is the angle of its negative: no digits are lost near the end.
        [self.log_snr_max.map_or(0.0, angle), self.log_snr_min.map_or(0.0, |least| angle(-least))]
    }
}

impl Schedule for CosineContinuous {
    fn at(&self, t: f64) -> Noise {
        let (t, [first, left]) = (t.clamp(0.0, 1.0), self.ends());
        let speed = FRAC_PI_2 - first - left;
        Noise::preserving((left + (1.0 - t) * speed).sin(), (first + t * speed).sin(), speed)
    }

    fn t_of(&self, log_snr: f64) -> f64 {
        let [first, left] = self.ends();
        ((angle(log_snr) - first) / (FRAC_PI_2 - first - left)).clamp(0.0, 1.0)
    }
}

register!(Schedule, "cosine-continuous", CosineContinuous, aliases = ["cosine_continuous"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_from_end_to_end_or_from_bound_to_bound() {
        let whole = CosineContinuous::default();
        assert_eq!((whole.at(0.0).sigma, whole.at(1.0).alpha), (0.0, 0.0));
        assert!((whole.at(0.5).log_snr()).abs() < 1e-12);
        let bounded = CosineContinuous { log_snr_max: Some(15.0), log_snr_min: Some(-15.0) };
        assert!((bounded.at(0.0).log_snr() - 15.0).abs() < 1e-9 && (bounded.at(1.0).log_snr() + 15.0).abs() < 1e-9);
        assert!((bounded.at(0.3).alpha.hypot(bounded.at(0.3).sigma) - 1.0).abs() < 1e-12);
    }
}
