//! The distance that the mathematics of diffusion asks for.

use sconce_sdk::prelude::*;

/// The square of the difference: its minimum is the mean of all pictures that fit, which is what a denoiser must output
/// (Vincent 2011; Ho et al. 2020, equation 14). Every weighting is derived for it.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Mse {}

impl Distance for Mse {
    fn at(&self, d: f64, _: f64) -> [f64; 2] {
        [d * d, 2.0 * d]
    }
}

register!(Distance, "mse", Mse, aliases = ["l2"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_square() {
        assert_eq!(Mse {}.at(-3.0, 1.0), [9.0, -6.0]);
    }
}
