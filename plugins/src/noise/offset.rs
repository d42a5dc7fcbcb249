//! Noise that moves whole pictures, so that their brightness has to be learned.

use candle_core::{Result, Tensor};
use sconce_core::noise::{Batch, Drawn, NoiseSource};
use sconce_sdk::prelude::*;

use super::{Fade, gaussian};
use crate::range;

/// One more normal number for each channel of each picture, the same for all of its pixels, times `strength`
/// (Guttenberg 2023, "Diffusion with offset noise"): white noise leaves a picture's mean nearly as it is, so that a model
/// need not learn it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Offset {
    /// Its standard deviation, against 1 for the noise itself.
    #[serde(deserialize_with = "range::not_negative")]
    pub strength: f64,
    /// How much of it there is at each level: `with-signal` for zero-terminal schedules.
    pub fade: Fade,
    /// The noise that it is added to.
    pub of: Choice<dyn NoiseSource>,
}

impl Default for Offset {
    fn default() -> Self {
        Self { strength: 0.1, fade: Fade::default(), of: gaussian() }
    }
}

impl NoiseSource for Offset {
    fn draw(&self, batch: &Batch) -> Result<Drawn> {
        let (b, c, _, _) = batch.x0.dims4()?;
        let mut offset = batch.stream("noise offset").normals(b * c);
        for (offset, noise) in offset.chunks_mut(c).zip(batch.levels) {
            offset.iter_mut().for_each(|o| *o *= (self.strength * self.fade.at(noise)) as f32);
        }
        let offset = Tensor::from_vec(offset, (b, c, 1, 1), batch.x0.device())?;
        self.of.draw(batch)?.plus(&offset)
    }
}

register!(NoiseSource, "offset", Offset);

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn moves_channels_as_a_whole_and_not_at_all_where_it_faded() -> Result<()> {
        let x0 = Tensor::zeros((2, 3, 8, 8), DType::F32, &Device::Cpu)?;
        let level = |alpha, sigma| Noise { alpha, sigma, d_alpha: 0.0, d_sigma: 0.0 };
        let batch = Batch { x0: &x0, levels: &[level(1.0, 0.0), level(0.0, 1.0)], seed: 1, images_seen: 4 };
        let plain = batch.normal("noise")?;
        for (fade, moved) in [(Fade::Never, [true, true]), (Fade::WithSignal, [true, false])] {
            let offset = Offset { strength: 0.5, fade, of: gaussian() };
            let by = (offset.draw(&batch)?.input - &plain)?.flatten_from(2)?; // B C HW
            for (picture, moved) in moved.into_iter().enumerate() {
                let by = by.get(picture)?;
                let spread = (by.max(1)? - by.min(1)?)?.max(0)?.to_scalar::<f32>()?;
                assert!(spread < 1e-6, "{fade:?}: {spread}");
                assert_eq!(by.abs()?.max_all()?.to_scalar::<f32>()? > 1e-3, moved, "{fade:?}, picture {picture}");
            }
        }
        Ok(())
    }
}
