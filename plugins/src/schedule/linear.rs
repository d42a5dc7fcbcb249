//! DDPM's schedule.

use std::sync::OnceLock;

use sconce_sdk::prelude::*;

use super::Table;
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
    table: OnceLock<Table>,
}

impl Default for Linear {
    fn default() -> Self {
        Self { beta_start: 1e-4, beta_end: 0.02, steps: 1000, table: OnceLock::new() }
    }
}

impl Schedule for Linear {
    fn at(&self, t: f64) -> Noise {
        let beta = |i| self.beta_start + (self.beta_end - self.beta_start) * i as f64 / (self.steps - 1) as f64;
        self.table.get_or_init(|| Table::from_betas((0..self.steps).map(beta))).at(t)
    }

    fn grid(&self) -> Option<usize> {
        Some(self.steps)
    }
}

register!(Schedule, "linear", Linear);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_half_a_percent_of_the_signal() {
        assert!((Linear::default().at(1.0).alpha - 0.0063).abs() < 1e-4);
    }
}
