//! Stable Diffusion's schedule, which leaves 7 % of the picture in what the network is told is pure noise.

use std::sync::OnceLock;

use sconce_sdk::{Discrete, prelude::*};

use super::by_betas::by_betas;
use crate::range;

/// Beta rises linearly in its square root (Rombach et al. 2022): Stable Diffusion 1, 2 and XL. At t = 1 it leaves alpha =
/// 0.0683, so a model trained on it never sees noise without a trace of the picture.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScaledLinear {
    /// Variance added by the first step.
    #[serde(deserialize_with = "range::inside_unit")]
    pub beta_start: f64,
    /// Variance added by the last step.
    #[serde(deserialize_with = "range::inside_unit")]
    pub beta_end: f64,
    /// Points of the table.
    #[serde(deserialize_with = "range::points")]
    pub steps: usize,
    #[serde(skip)]
    table: OnceLock<Discrete>,
}

impl Default for ScaledLinear {
    fn default() -> Self {
        Self::new(0.00085, 0.012, 1000)
    }
}

impl ScaledLinear {
    /// With these betas and points.
    pub fn new(beta_start: f64, beta_end: f64, steps: usize) -> Self {
        Self { beta_start, beta_end, steps, table: OnceLock::new() }
    }

    /// The variance that each step adds.
    pub fn betas(&self) -> impl Iterator<Item = f64> {
        let (from, to, steps) = (self.beta_start.sqrt(), self.beta_end.sqrt(), self.steps);
        (0..steps).map(move |i| (from + (to - from) * i as f64 / (steps - 1) as f64).powi(2))
    }
}

by_betas!(ScaledLinear);

register!(Schedule, "scaled-linear", ScaledLinear, aliases = ["scaled_linear"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_seven_percent_of_the_signal() {
        let schedule = ScaledLinear::default();
        assert!((schedule.at(1.0).alpha - 0.0683).abs() < 5e-5);
        assert!((schedule.at(1.0).snr() - 0.00468).abs() < 1e-5);
        assert!((schedule.at(0.001).sigma.powi(2) - 0.00085).abs() < 1e-15);
    }
}
