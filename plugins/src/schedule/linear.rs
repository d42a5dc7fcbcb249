//! DDPM's schedule.

use std::sync::OnceLock;

use sconce_sdk::{Discrete, prelude::*};

use super::by_betas::by_betas;
use crate::range;

/// Beta rises linearly (DDPM, Ho et al. 2020). At t = 1 it leaves alpha = 0.0063.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Linear {
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

impl Default for Linear {
    fn default() -> Self {
        Self::new(1e-4, 0.02, 1000)
    }
}

impl Linear {
    /// With these betas and points.
    pub fn new(beta_start: f64, beta_end: f64, steps: usize) -> Self {
        Self { beta_start, beta_end, steps, table: OnceLock::new() }
    }

    /// The variance that each step adds.
    pub fn betas(&self) -> impl Iterator<Item = f64> {
        let Self { beta_start, beta_end, steps, .. } = *self;
        (0..steps).map(move |i| beta_start + (beta_end - beta_start) * i as f64 / (steps - 1) as f64)
    }
}

by_betas!(Linear);

register!(Schedule, "linear", Linear);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_half_a_percent_of_the_signal() {
        assert!((Linear::default().at(1.0).alpha - 0.0063).abs() < 1e-4);
    }
}
