//! The noise of the theory.

use candle_core::Result;
use sconce_core::noise::{Batch, Drawn, NoiseSource};
use sconce_sdk::prelude::*;

/// Independent standard normal numbers (Ho et al. 2020), which samplers start from.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Gaussian {}

impl NoiseSource for Gaussian {
    fn draw(&self, batch: &Batch) -> Result<Drawn> {
        batch.normal("noise").map(Drawn::plain)
    }
}

register!(NoiseSource, "gaussian", Gaussian, aliases = ["normal"]);

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};
    use sconce_nn::rng::Stream;

    #[test]
    fn is_the_stream_of_its_purpose() -> Result<()> {
        let x0 = Tensor::zeros((2, 4, 4, 4), DType::F32, &Device::Cpu)?;
        let eps = Gaussian {}.draw(&Batch { x0: &x0, levels: &[], seed: 7, images_seen: 12 })?;
        let want = Stream::new(7, "noise").at(12, 0).normals(2 * 64);
        assert_eq!(eps.input.flatten_all()?.to_vec1::<f32>()?, want);
        assert_eq!(eps.target.flatten_all()?.to_vec1::<f32>()?, want);
        Ok(())
    }
}
