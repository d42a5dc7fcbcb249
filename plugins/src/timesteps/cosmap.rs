//! The times at which a rectified flow has the log-SNRs of a cosine.

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2};

use sconce_sdk::prelude::*;

/// t = 1 - 1/(tan(pi u/2) + 1), with density 2/(pi - 2 pi t + 2 pi t²) (Esser et al. 2024, section 3.1): a rectified flow sees
/// each log-SNR as often as uniform times see it under the cosine schedule.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cosmap {}

impl TimestepSampler for Cosmap {
    fn quantile(&self, u: f64, _: &dyn Schedule) -> f64 {
        let (sin, cos) = ((FRAC_PI_2 * u).sin(), (FRAC_PI_2 * (1.0 - u)).sin());
        sin / (sin + cos)
    }

    fn cumulative(&self, t: f64, _: &dyn Schedule) -> f64 {
        FRAC_2_PI * t.atan2(1.0 - t)
    }

    fn density(&self, t: f64, _: &dyn Schedule) -> f64 {
        FRAC_2_PI / (1.0 - 2.0 * t + 2.0 * t * t)
    }
}

register!(TimestepSampler, "cosmap", Cosmap);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{CosineContinuous, RectifiedFlow};

    #[test]
    fn gives_a_rectified_flow_the_log_snrs_of_the_cosine() {
        let (flow, cosine) = (RectifiedFlow::default(), CosineContinuous::default());
        for u in [0.1, 0.5, 0.83] {
            let t = Cosmap {}.quantile(u, &flow);
            assert!((flow.at(t).log_snr() - cosine.at(u).log_snr()).abs() < 1e-12);
        }
    }
}
