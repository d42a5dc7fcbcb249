//! Gives each picture noise that lies near it, so that the ways from noise to pictures cross less.

use std::num::NonZeroUsize;

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;
use sconce_core::noise::{Batch, Drawn, NoiseSource};
use sconce_sdk::prelude::*;

use super::assignment::assign;

/// Gaussian noise, paired with the pictures by distance instead of at random (Li et al. 2024, "Immiscible diffusion",
/// arXiv 2406.12303). It is the one noise that depends on the batch's latents.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Immiscible {
    /// How pictures and noise are paired.
    pub pairing: Pairing,
}

/// How pictures and noise are paired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pairing {
    /// The batch's noise is dealt out so that the sum of squared distances to the latents is least (Li et al. 2024,
    /// algorithm 1). The noise as a whole stays Gaussian; a batch of 1 changes nothing.
    #[default]
    Assignment,
    /// Each picture takes the nearest of so many draws of its own (Li et al. 2025, arXiv 2505.18521), whatever the batch.
    /// Its noise is a little off Gaussian, the more the more draws.
    Nearest(NonZeroUsize),
}

impl NoiseSource for Immiscible {
    fn draw(&self, batch: &Batch) -> Result<Drawn> {
        let x0 = rows(batch.x0)?;
        let eps = match self.pairing {
            Pairing::Assignment => {
                let eps = rows(&batch.normal("noise")?)?;
                let cost: Vec<Vec<f64>> =
                    x0.par_iter().map(|x| eps.iter().map(|e| squared_distance(x, e)).collect()).collect();
                assign(&cost).into_iter().map(|i| eps[i].clone()).collect()
            }
            Pairing::Nearest(draws) => {
                let mut best: Vec<(f64, Vec<f32>)> = vec![(f64::INFINITY, Vec::new()); x0.len()];
                for draw in 0..draws.get() {
                    let purpose = if draw == 0 { "noise".to_owned() } else { format!("noise candidate {draw}") };
                    best.par_iter_mut().zip(&x0).zip(rows(&batch.normal(&purpose)?)?).for_each(|((best, x), eps)| {
                        let distance = squared_distance(x, &eps);
                        if distance < best.0 {
                            *best = (distance, eps);
                        }
                    });
                }
                best.into_iter().map(|(_, eps)| eps).collect::<Vec<_>>()
            }
        };
        Tensor::from_vec(eps.concat(), batch.x0.shape(), batch.x0.device()).map(Drawn::plain)
    }
}

/// B C H W as B rows of numbers.
fn rows(x: &Tensor) -> Result<Vec<Vec<f32>>> {
    x.detach().to_device(&Device::Cpu)?.flatten_from(1)?.to_vec2()
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

register!(NoiseSource, "immiscible", Immiscible);

#[cfg(test)]
mod tests {
    use super::*;

    fn distances(pairing: Option<Pairing>) -> Result<(f64, Vec<Vec<f32>>)> {
        let x0 = sconce_nn::rng::Stream::new(3, "latents").normal((8, 1, 2, 2), &Device::Cpu)?;
        let batch = Batch { x0: &x0, levels: &[], seed: 1, images_seen: 64 };
        let eps = match pairing {
            Some(pairing) => Immiscible { pairing }.draw(&batch)?.target,
            None => batch.normal("noise")?,
        };
        let (x0, eps) = (rows(&x0)?, rows(&eps)?);
        Ok((x0.iter().zip(&eps).map(|(x, e)| squared_distance(x, e)).sum(), eps))
    }

    #[test]
    fn pairs_are_nearer_and_the_assigned_noise_is_the_same_noise() -> Result<()> {
        let (plain, mut before) = distances(None)?;
        let (assigned, mut after) = distances(Some(Pairing::Assignment))?;
        let (nearest, _) = distances(Some(Pairing::Nearest(NonZeroUsize::new(16).expect("16"))))?;
        assert!(assigned < 0.7 * plain && nearest < 0.7 * plain, "{plain}, {assigned}, {nearest}");
        for noise in [&mut before, &mut after] {
            noise.sort_by(|a, b| a[0].total_cmp(&b[0]));
        }
        assert_eq!(before, after);
        let (same, _) = distances(Some(Pairing::Nearest(NonZeroUsize::MIN)))?;
        assert_eq!(same, plain, "one draw leaves no choice");
        Ok(())
    }
}
