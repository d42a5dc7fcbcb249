//! The data itself.

use sconce_sdk::prelude::*;

/// The data.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct X0 {}

impl Objective for X0 {
    fn target(&self, _: &Noise) -> [f64; 2] {
        [1.0, 0.0]
    }
}

register!(Objective, "x0", X0, aliases = ["sample"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_determinant_is_minus_sigma() {
        let noise = Noise { alpha: 0.6, sigma: 0.8, d_alpha: 0.0, d_sigma: 0.0 };
        assert_eq!(noise.determinant(X0 {}.target(&noise)), -0.8);
    }
}
