//! The velocity of a variance-preserving path.

use sconce_sdk::prelude::*;

/// v = alpha eps - sigma x0 (Salimans & Ho 2022, section 4): well defined at every noise level, pure noise included.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct V {}

impl Objective for V {
    fn target(&self, noise: &Noise) -> [f64; 2] {
        [-noise.sigma, noise.alpha]
    }
}

register!(Objective, "v", V, aliases = ["v_prediction"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_data_where_there_is_no_signal() {
        let noise = Noise { alpha: 0.0, sigma: 1.0, d_alpha: -1.0, d_sigma: 0.0 };
        assert_eq!(noise.x0_from(V {}.target(&noise)), [0.0, -1.0]);
    }
}
