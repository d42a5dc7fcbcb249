//! The cosine schedule in its discrete form.

use std::f64::consts::FRAC_PI_2;
use std::sync::OnceLock;

use sconce_sdk::{Discrete, prelude::*};

use super::by_betas::by_betas;
use crate::range;

/// alpha² follows a squared cosine (Nichol & Dhariwal 2021, equation 17), with no step's beta above 0.999. At t = 1 it
/// leaves alpha = 5e-5: nearly, but not exactly, nothing.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cosine {
    /// Keeps the first betas from vanishing (s in the paper).
    #[serde(deserialize_with = "range::positive")]
    pub offset: f64,
    /// No step adds more variance than this.
    #[serde(deserialize_with = "range::inside_unit")]
    pub largest_beta: f64,
    /// Points of the table.
    #[serde(deserialize_with = "range::points")]
    pub steps: usize,
    #[serde(skip)]
    table: OnceLock<Discrete>,
}

impl Default for Cosine {
    fn default() -> Self {
        Self::new(1000)
    }
}

impl Cosine {
    /// The paper's, with this many points.
    pub fn new(steps: usize) -> Self {
        Self { offset: 0.008, largest_beta: 0.999, steps, table: OnceLock::new() }
    }

    /// The variance that each step adds.
    pub fn betas(&self) -> impl Iterator<Item = f64> {
        let Self { offset, largest_beta, steps, .. } = *self;
        let share = move |i: usize| i as f64 / steps as f64;
        let signal = move |i| ((share(i) + offset) / (1.0 + offset) * FRAC_PI_2).cos().powi(2);
        (0..steps).map(move |i| (1.0 - signal(i + 1) / signal(i)).min(largest_beta))
    }
}

by_betas!(Cosine);

register!(Schedule, "cosine", Cosine, aliases = ["squaredcos_cap_v2"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_five_in_a_hundred_thousand() {
        let alpha = Cosine::default().at(1.0).alpha;
        assert!((4.5e-5..5.5e-5).contains(&alpha), "{alpha}");
    }
}
