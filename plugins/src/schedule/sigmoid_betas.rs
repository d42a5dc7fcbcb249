//! A schedule whose steps of variance grow along a logistic curve.

use std::sync::OnceLock;

use sconce_sdk::{Discrete, prelude::*};

use super::by_betas::by_betas;
use crate::range;

/// Beta rises along the logistic function from -6 to 6 (Xu et al. 2022, GeoDiff): `beta_schedule = "sigmoid"` in
/// diffusers. What other papers call the sigmoid schedule has the signal itself follow that curve, and is `sigmoid` here.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SigmoidBetas {
    /// The variance from which that of a step rises.
    #[serde(deserialize_with = "range::inside_unit")]
    pub beta_start: f64,
    /// The variance to which it rises.
    #[serde(deserialize_with = "range::inside_unit")]
    pub beta_end: f64,
    /// Points of the table.
    #[serde(deserialize_with = "range::points")]
    pub steps: usize,
    #[serde(skip)]
    table: OnceLock<Discrete>,
}

impl Default for SigmoidBetas {
    fn default() -> Self {
        Self::new(1e-4, 0.02, 1000)
    }
}

impl SigmoidBetas {
    /// With these betas and points.
    pub fn new(beta_start: f64, beta_end: f64, steps: usize) -> Self {
        Self { beta_start, beta_end, steps, table: OnceLock::new() }
    }

    /// The variance that each step adds.
    pub fn betas(&self) -> impl Iterator<Item = f64> {
        let Self { beta_start, beta_end, steps, .. } = *self;
        let logistic = move |i: usize| 1.0 / (1.0 + (6.0 - 12.0 * i as f64 / (steps - 1) as f64).exp());
        (0..steps).map(move |i| beta_start + (beta_end - beta_start) * logistic(i))
    }
}

by_betas!(SigmoidBetas);

register!(Schedule, "sigmoid-betas", SigmoidBetas, aliases = ["sigmoid_betas"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_step_adds_the_middle_variance() {
        let betas: Vec<f64> = SigmoidBetas::new(0.1, 0.3, 3).betas().collect();
        assert!((betas[1] - 0.2).abs() < 1e-15);
        assert!((betas[0] + betas[2] - 0.4).abs() < 1e-15 && betas[0] > 0.1);
    }
}
