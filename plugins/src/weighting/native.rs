//! No weighting: the mean squared error of whatever the network outputs.

use sconce_sdk::prelude::*;

/// Every output error counts the same, whatever the objective: what most checkpoints were trained with. It is the one
/// weighting whose weight on the data depends on the objective: D²/sigma².
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Native {}

impl Weighting for Native {
    /// The weight it amounts to for v on a variance-preserving schedule. The step asks for `on_output` alone.
    fn on_x0(&self, log_snr: f64) -> f64 {
        1.0 + log_snr.exp()
    }

    fn on_output(&self, _: &Noise, _: [f64; 2]) -> f64 {
        1.0
    }
}

register!(Weighting, "native", Native, aliases = ["none", "mse"]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::{Epsilon, V};
    use crate::schedule::ScaledLinear;

    #[test]
    fn is_one_for_every_objective() {
        let noise = ScaledLinear::default().at(0.9);
        assert_eq!(Native {}.on_output(&noise, Epsilon {}.target(&noise)), 1.0);
        assert_eq!(Native {}.on_output(&noise, V {}.target(&noise)), 1.0);
    }
}
