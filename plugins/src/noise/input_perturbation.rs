//! Shows the network inputs a little off, as it will see them when it samples.

use candle_core::Result;
use sconce_core::noise::{Batch, Drawn, NoiseSource};
use sconce_sdk::prelude::*;

use super::gaussian;
use crate::range;

/// More noise in what the network is given than in what it is to output: x_t = alpha x0 + sigma (eps + gamma xi), y from
/// eps alone (Ning et al. 2023, "Input perturbation reduces exposure bias in diffusion models", algorithm 2). In sampling
/// the inputs come from the network's own earlier outputs and are never quite right; it learns to bear that.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InputPerturbation {
    /// The added noise's deviation, against 1 for eps. The paper's best is 0.1.
    #[serde(deserialize_with = "range::not_negative")]
    pub gamma: f64,
    /// The noise that it is added to.
    pub of: Choice<dyn NoiseSource>,
}

impl Default for InputPerturbation {
    fn default() -> Self {
        Self { gamma: 0.1, of: gaussian() }
    }
}

impl NoiseSource for InputPerturbation {
    fn draw(&self, batch: &Batch) -> Result<Drawn> {
        let Drawn { input, target } = self.of.draw(batch)?;
        Ok(Drawn { input: (input + (batch.normal("noise perturbation")? * self.gamma)?)?, target })
    }
}

register!(NoiseSource, "input-perturbation", InputPerturbation, aliases = ["input_perturbation"]);

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};

    #[test]
    fn the_target_knows_nothing_of_it() -> Result<()> {
        let x0 = Tensor::zeros((4, 4, 16, 16), DType::F32, &Device::Cpu)?;
        let batch = Batch { x0: &x0, levels: &[], seed: 1, images_seen: 4 };
        let drawn = InputPerturbation::default().draw(&batch)?;
        let bits = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
        assert_eq!(bits(&drawn.target)?, bits(&batch.normal("noise")?)?);
        let deviation = (&drawn.input - &drawn.target)?.sqr()?.mean_all()?.to_scalar::<f32>()?.sqrt();
        assert!((deviation - 0.1).abs() < 0.005, "{deviation}");
        Ok(())
    }
}
