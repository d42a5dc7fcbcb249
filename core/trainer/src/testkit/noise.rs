//! The laws of noise.

use candle_core::{Device, Result, Tensor};
use sconce_nn::rng::Stream;
use sconce_sdk::Noise;

use super::{Checked, Law, bits, finite, holds, law, numbers};
use crate::noise::{Batch, Drawn, NoiseSource};

/// As many levels as pictures, from those of data alone to those of noise alone.
fn levels(pictures: usize) -> Vec<Noise> {
    let at = |i: usize| {
        let (sigma, alpha) = (std::f64::consts::FRAC_PI_2 * i as f64 / (pictures - 1).max(1) as f64).sin_cos();
        Noise::preserving(alpha, sigma, std::f64::consts::FRAC_PI_2)
    };
    (0..pictures).map(at).collect()
}

fn latents(shape: [usize; 4], which: &str) -> Result<Tensor> {
    Stream::new(1, which).normal(&shape, &Device::Cpu)
}

fn draw(source: &dyn NoiseSource, x0: &Tensor, seed: u64, images_seen: u64) -> Result<Drawn> {
    source.draw(&Batch { x0, levels: &levels(x0.dim(0)?), seed, images_seen })
}

/// The bits of both.
fn both(drawn: &Drawn) -> Result<[Vec<u32>; 2]> {
    Ok([bits(&drawn.input)?, bits(&drawn.target)?])
}

const SHAPE: [usize; 4] = [6, 4, 8, 12];

/// The laws of noise: finite, of the latents' shape, the same at the same point of a run with the same pictures, another at
/// another point and under another seed.
pub fn noise(source: &dyn NoiseSource) -> Law {
    law(obeys(source), String::new)
}

fn obeys(source: &dyn NoiseSource) -> Checked {
    for shape in [SHAPE, [1, 3, 5, 7], [2, 16, 1, 1]] {
        let x0 = latents(shape, "x0")?;
        let drawn = draw(source, &x0, 5, 96)?;
        for (what, eps) in [("input", &drawn.input), ("target", &drawn.target)] {
            holds(eps.dims() == shape, || format!("for latents of {shape:?} the {what} is of {:?}", eps.dims()))?;
            holds(finite(eps)?, || format!("for latents of {shape:?} the {what} is not finite"))?;
        }
    }
    let x0 = latents(SHAPE, "x0")?;
    let here = both(&draw(source, &x0, 5, 96)?)?;
    let again = both(&draw(source, &x0, 5, 96)?)? == here;
    holds(again, || "at the same point of a run it is another one: a resumed run is not the same run".to_owned())?;
    holds(both(&draw(source, &x0, 5, 99)?)? != here, || "it is the same after other pictures".to_owned())?;
    holds(both(&draw(source, &x0, 6, 96)?)? != here, || "it is the same under another seed".to_owned())
}

/// That it is a function of (seed, images seen) alone, which noise is that is not paired with the pictures.
pub fn noise_alone(source: &dyn NoiseSource) -> Law {
    let check = || {
        let [here, there] = ["x0", "other x0"].map(|which| both(&draw(source, &latents(SHAPE, which)?, 5, 96)?));
        holds(here? == there?, || "it is another one for other pictures".to_owned())
    };
    law(check(), String::new)
}

/// That the target's mean square is about 1, which schedules and samplers take it for. One that adds to the noise is a little
/// above it.
pub fn noise_of_unit_variance(source: &dyn NoiseSource) -> Law {
    let check = || {
        let target = numbers(&draw(source, &latents(SHAPE, "x0")?, 5, 96)?.target)?;
        let variance = target.iter().map(|v| v * v).sum::<f32>() / target.len() as f32;
        holds((variance - 1.0).abs() < 0.25, || format!("the target's mean square is {variance}"))
    };
    law(check(), String::new)
}
