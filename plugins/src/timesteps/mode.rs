//! More of the middle, and still something at the ends.

use std::f64::consts::{FRAC_PI_2, PI};

use sconce_sdk::prelude::*;
use serde::de::{Deserializer, Error, Unexpected};

/// t = 1 - u - s (cos²(pi u/2) - 1 + u) of a uniform u (Esser et al. 2024, equation 20): heavier in the middle for s > 0, at
/// the ends for s < 0, uniform for 0. Unlike `logit-normal` it draws both ends too: with density 1/(1 + s).
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Mode {
    /// From -1 to 2/(pi - 2) = 1.75; the paper's best is 1.29.
    #[serde(deserialize_with = "monotone")]
    pub scale: f64,
}

/// Beyond these ends the map from u to t would turn back.
fn monotone<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    match f64::deserialize(d)? {
        s if (-1.0..=2.0 / (PI - 2.0)).contains(&s) => Ok(s),
        s => Err(D::Error::invalid_value(Unexpected::Float(s), &"a number from -1 to 1.75")),
    }
}

impl Default for Mode {
    fn default() -> Self {
        Self { scale: 1.29 }
    }
}

impl TimestepSampler for Mode {
    fn quantile(&self, u: f64, _: &dyn Schedule) -> f64 {
        // The paper's falls in u: this is its value at 1 - u, which is as uniform.
        (u + self.scale * (u - (FRAC_PI_2 * u).sin().powi(2))).clamp(0.0, 1.0)
    }

    fn density(&self, t: f64, schedule: &dyn Schedule) -> f64 {
        let u = self.cumulative(t, schedule);
        1.0 / (1.0 + self.scale * (1.0 - FRAC_PI_2 * (PI * u).sin()))
    }
}

register!(TimestepSampler, "mode", Mode);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::RectifiedFlow;

    #[test]
    fn draws_the_middle_most_and_the_ends_still() {
        let (mode, flow) = (Mode::default(), RectifiedFlow::default());
        assert!((mode.quantile(0.5, &flow) - 0.5).abs() < 1e-15);
        assert!((mode.density(0.5, &flow) - 1.0 / (1.0 + 1.29 * (1.0 - FRAC_PI_2))).abs() < 1e-9);
        assert!((mode.density(0.0, &flow) - 1.0 / 2.29).abs() < 1e-9);
        assert_eq!((mode.quantile(0.0, &flow), mode.quantile(1.0, &flow)), (0.0, 1.0));
    }
}
