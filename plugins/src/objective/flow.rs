//! The direction of the path from data to noise.

use sconce_sdk::prelude::*;

/// The velocity d alpha/dt x0 + d sigma/dt eps (Lipman et al. 2022), divided by its determinant, so that a
/// change of the clock, such as a shift, leaves the target alone. On a rectified flow it is eps - x0 at any shift; on a
/// variance-preserving schedule it is v.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Flow {}

impl Objective for Flow {
    fn target(&self, noise: &Noise) -> [f64; 2] {
        let d = noise.determinant([noise.d_alpha, noise.d_sigma]);
        [noise.d_alpha / d, noise.d_sigma / d]
    }
}

register!(Objective, "flow", Flow, aliases = ["flow_prediction"]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{RectifiedFlow, ScaledLinear};

    #[test]
    fn is_noise_minus_data_at_any_shift_and_v_where_variance_is_preserved() {
        for shift in [1.0, 3.0] {
            let [a, b] = Flow {}.target(&RectifiedFlow { shift }.at(0.37));
            assert!((a + 1.0).abs() < 1e-12 && (b - 1.0).abs() < 1e-12);
        }
        let noise = ScaledLinear::default().at(0.42);
        let [a, b] = Flow {}.target(&noise);
        assert!((a + noise.sigma).abs() < 1e-12 && (b - noise.alpha).abs() < 1e-12);
    }
}
