//! Noise of every scale, so that the large forms of a picture drown as its details do.

use candle_core::{Result, Tensor};
use rayon::prelude::*;
use sconce_core::noise::{Batch, Drawn, NoiseSource};
use sconce_sdk::prelude::*;

use super::{Fade, gaussian};
use crate::range;

/// Noise of lower and lower resolution, enlarged bilinearly, on top of white noise, and the sum scaled back to unit
/// variance (Whitaker 2023, "Multi-resolution noise for diffusion model training"): level i counts `discount`^i and is
/// r^i times smaller, r drawn from [2, 4) for each level so that no grid shows, down to one pixel.
///
/// The variance is computed from the enlargement's weights, not measured in the batch, so a picture's noise does not
/// depend on its neighbours. Other programs count white noise twice, as level 0 too: their discount is a little weaker.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pyramid {
    /// Factor on each level's deviation against the one above it.
    #[serde(deserialize_with = "range::share")]
    pub discount: f64,
    /// Levels below the picture's own resolution, at most.
    pub levels: usize,
    /// How much of them there is at each noise level: `with-signal` for zero-terminal schedules.
    pub fade: Fade,
    /// The noise that they are added to.
    pub of: Choice<dyn NoiseSource>,
}

impl Default for Pyramid {
    fn default() -> Self {
        Self { discount: 0.4, levels: 6, fade: Fade::default(), of: gaussian() }
    }
}

impl NoiseSource for Pyramid {
    fn draw(&self, batch: &Batch) -> Result<Drawn> {
        let (b, c, h, w) = batch.x0.dims4()?;
        let pictures: Vec<(Vec<f32>, f32)> =
            (0..b).into_par_iter().map(|i| self.picture(batch, i, self.fade.at(&batch.levels[i]), [c, h, w])).collect();
        let (coarse, scale): (Vec<Vec<f32>>, Vec<f32>) = pictures.into_iter().unzip();
        let device = batch.x0.device();
        let coarse = Tensor::from_vec(coarse.concat(), (b, c, h, w), device)?;
        let scale = Tensor::from_vec(scale, (b, 1, 1, 1), device)?;
        let Drawn { input, target } = self.of.draw(batch)?.plus(&coarse)?;
        Ok(Drawn { input: input.broadcast_mul(&scale)?, target: target.broadcast_mul(&scale)? })
    }
}

impl Pyramid {
    /// The coarse levels of one picture, added up, and what brings the sum with white noise back to unit variance.
    fn picture(&self, batch: &Batch, index: usize, share: f64, [c, h, w]: [usize; 3]) -> (Vec<f32>, f32) {
        let stream = |purpose| batch.stream(purpose).at(batch.images_seen + index as u64, 0);
        let (mut sum, mut variance, mut used) = (vec![0f32; c * h * w], 1.0, 0);
        let levels: Vec<(f64, Axis, Axis)> = (1..)
            .zip(stream("noise pyramid sizes").uniform(self.levels))
            .map(|(level, u)| {
                let side = |full: usize| ((full as f64 / (2.0 + 2.0 * u).powi(level)) as usize).max(1);
                (share * self.discount.powi(level), Axis::new(side(h), h), Axis::new(side(w), w))
            })
            .collect();
        let whole = levels.iter().position(|(_, y, x)| y.from == 1 && x.from == 1).map_or(levels.len(), |i| i + 1);
        let levels = &levels[..whole];
        let count = levels.iter().map(|(_, y, x)| c * y.from * x.from).sum();
        let normals = stream("noise pyramid").normals(count);
        for (weight, y, x) in levels {
            let small = &normals[used..][..c * y.from * x.from];
            for (to, from) in sum.chunks_mut(h * w).zip(small.chunks(y.from * x.from)) {
                enlarge(to, from, y, x, *weight as f32);
            }
            used += small.len();
            variance += weight * weight * y.power() * x.power();
        }
        (sum, (1.0 / variance.sqrt()) as f32)
    }
}

/// Linear interpolation along one side, between pixel centres.
struct Axis {
    from: usize,
    /// The two neighbours of each pixel, and the second's share.
    taps: Vec<(usize, usize, f32)>,
}

impl Axis {
    fn new(from: usize, to: usize) -> Self {
        let tap = |i: usize| {
            let at = ((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).clamp(0.0, (from - 1) as f64);
            let low = at as usize;
            (low, (low + 1).min(from - 1), (at - low as f64) as f32)
        };
        Self { from, taps: (0..to).map(tap).collect() }
    }

    /// The mean variance of interpolated unit noise.
    fn power(&self) -> f64 {
        let square = |&(low, high, f): &(usize, usize, f32)| match f64::from(f) {
            _ if low == high => 1.0,
            f => (1.0 - f).powi(2) + f * f,
        };
        self.taps.iter().map(square).sum::<f64>() / self.taps.len() as f64
    }
}

/// Adds `weight` times the enlarged plane.
fn enlarge(to: &mut [f32], from: &[f32], y: &Axis, x: &Axis, weight: f32) {
    for (row, &(top, bottom, fy)) in to.chunks_mut(x.taps.len()).zip(&y.taps) {
        for (to, &(left, right, fx)) in row.iter_mut().zip(&x.taps) {
            let at = |row: usize| {
                let row = &from[row * x.from..];
                row[left] + fx * (row[right] - row[left])
            };
            *to += weight * (at(top) + fy * (at(bottom) - at(top)));
        }
    }
}

register!(NoiseSource, "pyramid", Pyramid, aliases = ["multi-resolution"]);

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    const LEVEL: Noise = Noise { alpha: 0.6, sigma: 0.8, d_alpha: 0.0, d_sigma: 0.0 };

    #[test]
    fn has_unit_variance_and_far_more_of_it_in_the_mean() -> Result<()> {
        let x0 = Tensor::zeros((64, 4, 16, 24), DType::F32, &Device::Cpu)?;
        let batch = Batch { x0: &x0, levels: &[LEVEL; 64], seed: 1, images_seen: 640 };
        let pyramid = Pyramid { discount: 0.8, ..Pyramid::default() };
        let eps = pyramid.draw(&batch)?.target.flatten_from(2)?; // B C HW
        let variance = eps.sqr()?.mean_all()?.to_scalar::<f32>()?;
        assert!((variance - 1.0).abs() < 0.1, "{variance}");
        let of_mean = eps.mean(2)?.sqr()?.mean_all()?.to_scalar::<f32>()?;
        assert!(of_mean > 10.0 / (16.0 * 24.0), "white noise: {}, here {of_mean}", 1.0 / (16.0 * 24.0));
        Ok(())
    }

    #[test]
    fn a_pictures_noise_does_not_depend_on_its_neighbours() -> Result<()> {
        let draw = |count, images_seen| {
            let x0 = Tensor::zeros((count, 2, 8, 8), DType::F32, &Device::Cpu)?;
            let levels = vec![LEVEL; count];
            let pyramid = Pyramid::default();
            let batch = Batch { x0: &x0, levels: &levels, seed: 1, images_seen };
            (0..count).map(|i| Ok(pyramid.picture(&batch, i, 1.0, [2, 8, 8]).0)).collect::<Result<Vec<_>>>()
        };
        assert_eq!(draw(3, 10)?[2], draw(1, 12)?[0]);
        Ok(())
    }

    #[test]
    fn enlarging_is_linear_between_pixel_centres() {
        let mut to = [0f32; 4];
        enlarge(&mut to, &[1.0, 3.0], &Axis::new(1, 1), &Axis::new(2, 4), 1.0);
        assert_eq!(to, [1.0, 1.5, 2.5, 3.0]);
        assert!((Axis::new(2, 4).power() - (1.0 + 0.625 + 0.625 + 1.0) / 4.0).abs() < 1e-6);
    }
}
