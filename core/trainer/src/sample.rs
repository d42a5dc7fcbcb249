//! From noise to pictures: guidance around a denoiser, for a solver that knows of neither. The trainer's previews and the
//! command line draw with this one function.

use candle_core::{D, DType, Error, Result, Tensor, bail};
use image::RgbImage;
use sconce_nn::rng::Stream;
use sconce_sdk::{Level, Objective, Schedule};

use crate::cond::Cond;
use crate::model::{Autoencoder, Conditioner, Geometry, PromptUse};
use crate::network::Network;
use crate::recipe::SamplingTable;
use crate::solver::{Denoise, Denoised};

/// A denoiser, what its output means, and how it is sampled.
pub struct Sampler<'a> {
    /// The denoiser.
    pub network: Network<'a>,
    /// alpha and sigma over time.
    pub schedule: &'a dyn Schedule,
    /// What the denoiser's output is.
    pub objective: &'a dyn Objective,
    /// Solver, spacing, steps and guidance.
    pub sampling: &'a SamplingTable,
}

impl Sampler<'_> {
    /// Conditions for these prompts, one picture each. With guidance the batch is twice as large, and its first half is
    /// the unconditional side.
    pub fn condition(&self, conditioner: &dyn Conditioner, prompts: &[&str], pictures: &[Geometry]) -> Result<Cond> {
        let negative = match &self.sampling.negative {
            Some(text) => (text.as_str(), PromptUse::Caption),
            None => ("", PromptUse::Unconditional),
        };
        let against = if self.guided() { prompts.len() } else { 0 };
        let mut texts = vec![negative; against];
        texts.extend(prompts.iter().map(|&prompt| (prompt, PromptUse::Caption)));
        let pictures = if self.guided() { [pictures, pictures].concat() } else { pictures.to_vec() };
        let text = conditioner.encode(&texts)?.merge(conditioner.geometry(&pictures)?);
        match self.sampling.guidance {
            Some(scale) => Ok(text.merge(conditioner.guidance(scale, texts.len())?)),
            None => Ok(text),
        }
    }

    /// Final latents, B C H W in f32, as the denoiser keeps them.
    ///
    /// `noise`: B C H W of unit variance. `cond`: from [`Sampler::condition`]. `fresh`: the noise that a stochastic
    /// solver adds. `watch` hears after each step how many are done, and sees x; an error from it stops the run.
    pub fn sample(
        &self,
        noise: &Tensor,
        cond: &Cond,
        fresh: &Stream,
        watch: &mut dyn FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        let SamplingTable { solver, spacing, steps, .. } = self.sampling;
        if *steps == 0 {
            bail!("a picture takes at least one step");
        }
        let (_, _, height, width) = noise.dims4()?;
        let sized = self.schedule.at_size(height, width);
        let levels = solver.levels(&**spacing, sized.as_deref().unwrap_or(self.schedule), *steps);
        self.check(&levels)?;
        let noise = noise.to_dtype(DType::F32)?;
        let x = (&noise * solver.start(&levels[0]))?;
        let mut run = Run { sampler: self, cond, like: &noise, fresh, watch };
        solver.solve(x, &levels, &mut run)
    }

    /// True if two conditions are weighed against each other.
    fn guided(&self) -> bool {
        self.sampling.cfg != 1.0
    }

    /// Refuses a level where the output does not determine the picture, such as epsilon without signal.
    fn check(&self, levels: &[Level]) -> Result<()> {
        // The last level is where the picture is taken: nothing is asked there.
        for level in &levels[..levels.len() - 1] {
            if level.noise.determinant(self.objective.target(&level.noise)) == 0.0 {
                bail!(
                    "the objective says nothing about the picture at t = {}, where alpha = {} and sigma = {}: take v, or \
                     a spacing that does not start there",
                    level.t,
                    level.noise.alpha,
                    level.noise.sigma
                );
            }
        }
        Ok(())
    }
}

struct Run<'a> {
    sampler: &'a Sampler<'a>,
    cond: &'a Cond,
    like: &'a Tensor,
    fresh: &'a Stream,
    watch: &'a mut dyn FnMut(usize, &Tensor) -> Result<()>,
}

impl Denoise for Run<'_> {
    fn denoise(&mut self, x: &Tensor, level: &Level) -> Result<Denoised> {
        let Sampler { network, objective, sampling, .. } = self.sampler;
        let noise = &level.noise;
        let read = network.read(level.t, noise, *objective);
        let x_t = if self.sampler.guided() { Tensor::cat(&[x, x], 0)? } else { x.clone() };
        let input = (&x_t * read.input)?.to_dtype(network.backbone.dtype())?;
        let time = Tensor::full(read.time as f32, input.dim(0)?, input.device())?; // B
        // Detached: trained weights would otherwise keep the whole run's graph alive.
        let f = network.backbone.forward(&input, &time, self.cond)?.detach().to_dtype(DType::F32)?;
        let output = ((x_t * read.skip)? + (f * read.output)?)?;
        let y = if self.sampler.guided() {
            let half = x.dim(0)?;
            guide(&output.narrow(0, 0, half)?, &output.narrow(0, half, half)?, sampling)?
        } else {
            output
        };
        let target = objective.target(noise);
        let mix = |[p, q]: [f64; 2]| (x * p)? + (&y * q)?;
        Ok(Denoised { x0: mix(noise.x0_from(target))?, eps: mix(noise.eps_from(target))? })
    }

    fn noise(&mut self, step: usize) -> Result<Tensor> {
        self.fresh.at(step as u64, 0).normal(self.like.shape(), self.like.device())
    }

    fn stepped(&mut self, step: usize, x: &Tensor) -> Result<()> {
        (self.watch)(step + 1, x)
    }
}

/// Classifier-free guidance (Ho & Salimans 2022), then a share of it rescaled to the conditional output's deviation, so
/// that strong guidance does not overexpose (Lin et al. 2023, equations 15 and 16).
fn guide(without: &Tensor, with: &Tensor, sampling: &SamplingTable) -> Result<Tensor> {
    let guided = (without + ((with - without)? * sampling.cfg)?)?;
    if sampling.cfg_rescale == 0.0 {
        return Ok(guided);
    }
    let factor = (deviation(with)?.div(&deviation(&guided)?)? * sampling.cfg_rescale)?;
    guided.broadcast_mul(&(factor + (1.0 - sampling.cfg_rescale))?)
}

/// The standard deviation of each sample, B 1 1 1.
fn deviation(x: &Tensor) -> Result<Tensor> {
    let flat = x.flatten_from(1)?; // B CHW
    let centred = flat.broadcast_sub(&flat.mean_keepdim(D::Minus1)?)?;
    centred.sqr()?.mean_keepdim(D::Minus1)?.sqrt()?.reshape((x.dim(0)?, 1, 1, 1))
}

/// Latents as the denoiser keeps them to pictures, one at a time to save memory.
pub fn decode(autoencoder: &dyn Autoencoder, latents: &Tensor) -> Result<Vec<RgbImage>> {
    let mut out = Vec::with_capacity(latents.dim(0)?);
    for i in 0..latents.dim(0)? {
        let one = autoencoder.decode(&autoencoder.scaling().unscale(&latents.narrow(0, i, 1)?)?)?;
        out.extend(pictures(&one)?);
    }
    Ok(out)
}

/// B 3 H W in [-1, 1] as 8-bit pictures. What is not a number is an error: it would come out as a black picture.
pub fn pictures(batch: &Tensor) -> Result<Vec<RgbImage>> {
    let (b, _, h, w) = batch.dims4()?;
    let batch = batch.detach().to_dtype(DType::F32)?;
    if !batch.sum_all()?.to_scalar::<f32>()?.is_finite() {
        return Err(Error::Msg("the picture is not finite: the weights are broken, or their type is too small".into()));
    }
    let bytes = ((batch.clamp(-1f32, 1f32)? + 1.0)? * 127.5)?.round()?.to_dtype(DType::U8)?;
    let bytes = bytes.permute((0, 2, 3, 1))?.contiguous()?; // B H W 3
    let one = |i| {
        let raw = bytes.get(i)?.flatten_all()?.to_vec1::<u8>()?;
        Ok(RgbImage::from_raw(w as u32, h as u32, raw).expect("three bytes a pixel"))
    };
    (0..b).map(one).collect()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn deviation_is_that_of_each_sample() {
        let x = Tensor::new(&[[1f32, 3.0], [10.0, 30.0]], &Device::Cpu).unwrap().reshape((2, 1, 1, 2)).unwrap();
        assert_eq!(deviation(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap(), [1.0, 10.0]);
    }

    #[test]
    fn pictures_are_rounded_and_clipped_and_never_made_of_what_is_no_number() {
        let x = Tensor::new(&[-2f32, 0.0, 1.0], &Device::Cpu).unwrap().reshape((1, 3, 1, 1)).unwrap();
        assert_eq!(pictures(&x).unwrap()[0].get_pixel(0, 0).0, [0, 128, 255]);
        assert!(pictures(&(x * f64::NAN).unwrap()).is_err());
    }
}
