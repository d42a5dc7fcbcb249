//! The noise itself.

use sconce_sdk::prelude::*;

/// The noise (DDPM, Ho et al. 2020). Says nothing about the picture where there is no signal, so it cannot be used with a
/// zero-terminal schedule.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Epsilon {}

impl Objective for Epsilon {
    fn target(&self, _: &Noise) -> [f64; 2] {
        [0.0, 1.0]
    }
}

register!(Objective, "epsilon", Epsilon, aliases = ["eps"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_determinant_is_alpha() {
        let noise = Noise { alpha: 0.6, sigma: 0.8, d_alpha: 0.0, d_sigma: 0.0 };
        assert_eq!(noise.determinant(Epsilon {}.target(&noise)), 0.6);
    }
}
