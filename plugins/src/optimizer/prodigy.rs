//! Prodigy: Adam that finds its own learning rate, from how far the weights have come against what the gradients along
//! the way promised (Mishchenko & Defazio 2023, "Prodigy: an expeditiously adaptive parameter-free learner", arXiv
//! 2306.06101v3, algorithm 4). One estimate d serves all parameters, so every gradient must be known before the first weight moves.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use candle_core::{DType, Device, Result, Tensor, Var, bail};
use sconce_core::optimizer::{At, Needs, Optimizer, OptimizerState, Trained};
use sconce_nn::inplace;
use sconce_sdk::prelude::*;

use crate::range;

/// Adam that finds its own learning rate (Mishchenko & Defazio 2023).
///
/// Leave `lr` at 1, with a constant or a cosine schedule.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Prodigy {
    /// Factor on the rate that is found.
    pub lr: f64,
    /// Decay of the running mean of the gradient.
    pub beta1: f64,
    /// Decay of the running mean of its square.
    pub beta2: f64,
    /// Decay of the sums that the estimate is made of. Default: the root of `beta2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta3: Option<f64>,
    /// Added, times d, to the root of the second moment.
    pub eps: f64,
    /// Share of a weight taken away per unit of the rate; biases and norms are left out.
    pub weight_decay: f64,
    /// The first estimate of d.
    #[serde(deserialize_with = "range::positive")]
    pub d0: f64,
    /// Factor on the estimate: what to change where the rate it finds is too low or too high.
    pub d_coef: f64,
    /// The estimate grows by this factor an update at most. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth_rate: Option<f64>,
    /// Whether Adam's bias correction is made.
    pub bias_correction: BiasCorrection,
    /// How a warm-up of the rate counts in the estimate.
    pub warmup: Warmup,
    /// The estimate looks at one number in so many of a weight alone, which saves memory: 1 is all, 11 is usual.
    pub slice: NonZeroUsize,
}

/// Whether Adam's bias correction is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BiasCorrection {
    /// No (`use_bias_correction = False` elsewhere).
    #[default]
    None,
    /// As in Adam (`use_bias_correction = True`).
    Adam,
}

/// How a warm-up of the rate counts in the estimate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Warmup {
    /// As any other rate (`safeguard_warmup = False` elsewhere).
    #[default]
    Counts,
    /// It is left out of the denominator, so that low first rates do not make d too large (`safeguard_warmup = True`).
    Safeguarded,
}

impl Default for Prodigy {
    fn default() -> Self {
        Self {
            lr: 1.0,
            beta1: 0.9,
            beta2: 0.999,
            beta3: None,
            eps: 1e-8,
            weight_decay: 0.0,
            d0: 1e-6,
            d_coef: 1.0,
            growth_rate: None,
            bias_correction: BiasCorrection::None,
            warmup: Warmup::Counts,
            slice: NonZeroUsize::MIN,
        }
    }
}

impl Optimizer for Prodigy {
    fn lr(&self) -> f64 {
        self.lr
    }

    fn needs(&self) -> Needs {
        Needs::AllGradients
    }

    fn start(&self, params: Vec<Trained>) -> Result<Box<dyn OptimizerState>> {
        let mut factors: Vec<f64> = params.iter().map(|p| p.lr_factor).filter(|&f| f != 0.0).collect();
        factors.dedup();
        if let [a, b, ..] = factors[..] {
            bail!(
                "Prodigy finds one rate for all parameters, but the recipe gives them factors of {a} and {b}: make them \
                 equal in train.components, train.group and the adapter, or 0 for what must not move"
            );
        }
        let path = if params.iter().all(|p| p.var.device().is_cpu()) { Path::Fused } else { Path::Composed };
        Ok(Box::new(self.running(params, path)?))
    }
}

impl Prodigy {
    fn running(&self, params: Vec<Trained>, path: Path) -> Result<Running> {
        let moments = params.iter().map(|p| self.fresh(p)).collect::<Result<_>>()?;
        let estimate = Estimate { d: self.d0, d_max: self.d0, numerator: 0.0, updates: 0.0 };
        Ok(Running { config: self.clone(), params, moments, estimate, path })
    }

    fn fresh(&self, p: &Trained) -> Result<Moments> {
        let zeros = || Var::zeros(p.var.shape(), DType::F32, p.var.device());
        let start = Var::from_tensor(&self.sliced(&p.var.as_tensor().detach().to_dtype(DType::F32)?)?.copy()?)?;
        let sum = Var::zeros(start.shape(), DType::F32, p.var.device())?;
        Ok(Moments { mean: zeros()?, square: zeros()?, start, sum })
    }

    /// One number in `slice` of a tensor, in one dimension.
    fn sliced(&self, t: &Tensor) -> Result<Tensor> {
        let flat = t.flatten_all()?;
        let slice = self.slice.get();
        if slice == 1 {
            return Ok(flat);
        }
        let count = flat.elem_count().div_ceil(slice);
        let flat = flat.pad_with_zeros(0, 0, count * slice - flat.elem_count())?;
        flat.reshape((count, slice))?.narrow(1, 0, 1)?.flatten_all()?.contiguous()
    }
}

/// How the numbers are reached.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Path {
    /// On the CPU, in place.
    Fused,
    /// With the device's own operations.
    Composed,
}

struct Running {
    config: Prodigy,
    path: Path,
    params: Vec<Trained>,
    moments: Vec<Moments>,
    estimate: Estimate,
}

/// The state of one parameter.
struct Moments {
    mean: Var,
    square: Var,
    /// The weight before the first update (sliced).
    start: Var,
    /// The weighted sum of gradients (sliced).
    sum: Var,
}

impl Moments {
    fn named(&self) -> [(&'static str, &Var); 4] {
        [("mean", &self.mean), ("square", &self.square), ("start", &self.start), ("sum", &self.sum)]
    }
}

/// The state of the run.
#[derive(Clone, Copy)]
struct Estimate {
    d: f64,
    d_max: f64,
    numerator: f64,
    updates: f64,
}

const ESTIMATE: &str = "estimate";

impl OptimizerState for Running {
    fn update(&mut self, _: usize, _: &Tensor, _: &At) -> Result<()> {
        bail!("Prodigy updates all parameters at once, when all their gradients are known")
    }

    fn step(&mut self, grads: &[Option<Tensor>], at: &At) -> Result<()> {
        if grads.len() != self.params.len() {
            bail!("{} gradients for {} parameters", grads.len(), self.params.len());
        }
        let (c, was) = (&self.config, self.estimate);
        let correction = match c.bias_correction {
            BiasCorrection::None => 1.0,
            BiasCorrection::Adam => {
                (1.0 - c.beta2.powf(was.updates + 1.0)).sqrt() / (1.0 - c.beta1.powf(was.updates + 1.0))
            }
        };
        // One factor for all that moves: `start` saw to it.
        let factor = self.params.iter().map(|p| p.lr_factor).find(|&f| f != 0.0).unwrap_or(0.0);
        let at = &At { lr: at.lr * factor, ..*at };
        let d_rate = was.d * at.lr * correction;
        let beta3 = c.beta3.unwrap_or(c.beta2.sqrt());
        let (mut gained, mut promised) = (0.0, 0.0);
        let moving = |p: &Trained| p.lr_factor != 0.0 && at.lr > 0.0;
        for ((p, moments), grad) in self.params.iter().zip(&self.moments).zip(grads) {
            let Some(grad) = grad.as_ref().filter(|_| moving(p)) else { continue };
            let grad = grad.to_dtype(DType::F32)?;
            let added = was.d / c.d0 * if c.warmup == Warmup::Safeguarded { was.d } else { d_rate };
            let weight = c.sliced(&p.var.as_tensor().detach().to_dtype(DType::F32)?)?;
            let (dot, size) = moments.gather(self.path, &c.sliced(&grad)?, &weight, beta3, added)?;
            gained += was.d / c.d0 * d_rate * dot;
            promised += size;
            moments.follow(self.path, &grad, c, was.d)?;
        }
        if promised == 0.0 {
            return Ok(());
        }
        let mut now = Estimate { numerator: was.numerator * beta3 + gained, updates: was.updates + 1.0, ..was };
        if at.lr > 0.0 {
            let found = c.d_coef * now.numerator / promised;
            if now.d == c.d0 {
                now.d = now.d.max(found);
            }
            now.d_max = now.d_max.max(found);
            now.d = now.d_max.min(now.d * c.growth_rate.unwrap_or(f64::INFINITY));
        }
        for ((p, moments), grad) in self.params.iter().zip(&self.moments).zip(grads) {
            if grad.is_some() && moving(p) {
                let kept = 1.0 - d_rate * p.weight_decay.unwrap_or(c.weight_decay);
                p.widened(at, |weight| moments.apply(self.path, weight, kept, d_rate, now.d * c.eps))?;
            }
        }
        self.estimate = now;
        Ok(())
    }

    fn save(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut saved = BTreeMap::new();
        for (p, moments) in self.params.iter().zip(&self.moments) {
            for (name, var) in moments.named() {
                saved.insert(format!("{}.{name}", p.name), var.as_tensor().clone());
            }
        }
        let Estimate { d, d_max, numerator, updates } = self.estimate;
        saved.insert(ESTIMATE.to_owned(), Tensor::new(&[d, d_max, numerator, updates], &Device::Cpu)?);
        Ok(saved)
    }

    fn restore(&mut self, saved: &BTreeMap<String, Tensor>) -> Result<()> {
        let get = |name: &str| match saved.get(name) {
            Some(t) => Ok(t),
            None => bail!("the checkpoint has no optimizer state `{name}`"),
        };
        for (p, moments) in self.params.iter().zip(&self.moments) {
            for (name, var) in moments.named() {
                var.set(&get(&format!("{}.{name}", p.name))?.to_device(var.device())?)?;
            }
        }
        let [d, d_max, numerator, updates] = get(ESTIMATE)?.to_vec1::<f64>()?[..] else {
            bail!("the checkpoint's optimizer state `{ESTIMATE}` is not of Prodigy");
        };
        self.estimate = Estimate { d, d_max, numerator, updates };
        Ok(())
    }
}

impl Moments {
    /// Adds the gradient to the sum. Gives its product with the way come so far, and the sum's size.
    fn gather(&self, path: Path, grad: &Tensor, weight: &Tensor, beta3: f64, added: f64) -> Result<(f64, f64)> {
        let way = (self.start.as_tensor().detach() - weight)?;
        if path == Path::Composed {
            self.sum.set(&((self.sum.as_tensor() * beta3)? + (grad * added)?)?.detach())?;
            let scalar =
                |t: Tensor| Ok::<f64, candle_core::Error>(f64::from(t.detach().sum_all()?.to_scalar::<f32>()?));
            return Ok((scalar((grad * way)?)?, scalar(self.sum.as_tensor().abs()?)?));
        }
        let (beta3, added) = (beta3 as f32, added as f32);
        let products = inplace::chunks([&way], grad, |[way], grad| {
            way.iter().zip(grad).map(|(w, g)| f64::from(*w) * f64::from(*g)).sum::<f64>()
        })?;
        let sizes = inplace::chunks([&self.sum], grad, |[sum], grad| {
            sum.iter_mut().zip(grad).for_each(|(s, g)| *s = *s * beta3 + added * g);
            sum.iter().map(|s| f64::from(s.abs())).sum::<f64>()
        })?;
        Ok((products.iter().sum(), sizes.iter().sum()))
    }

    /// Adam's moments of d times the gradient.
    fn follow(&self, path: Path, grad: &Tensor, c: &Prodigy, d: f64) -> Result<()> {
        let (a, b) = (d * (1.0 - c.beta1), d * d * (1.0 - c.beta2));
        if path == Path::Composed {
            self.mean.set(&((self.mean.as_tensor() * c.beta1)? + (grad * a)?)?.detach())?;
            return self.square.set(&((self.square.as_tensor() * c.beta2)? + (grad.sqr()? * b)?)?.detach());
        }
        let (b1, b2, a, b) = (c.beta1 as f32, c.beta2 as f32, a as f32, b as f32);
        inplace::chunks([&self.mean, &self.square], grad, |[mean, square], grad| {
            for ((m, v), g) in mean.iter_mut().zip(square).zip(grad) {
                *m = *m * b1 + a * g;
                *v = *v * b2 + b * (g * g);
            }
        })?;
        Ok(())
    }

    /// The weight's step.
    fn apply(&self, path: Path, weight: &Var, kept: f64, rate: f64, eps: f64) -> Result<()> {
        if path == Path::Composed {
            let step = (self.mean.as_tensor() / (self.square.as_tensor().sqrt()? + eps)?)?;
            return weight.set(&((weight.as_tensor() * kept)? - (step * rate)?)?.detach());
        }
        let (kept, rate, eps) = (kept as f32, rate as f32, eps as f32);
        inplace::chunks([weight, &self.square], &self.mean, |[weight, square], mean| {
            for ((w, v), m) in weight.iter_mut().zip(square).zip(mean) {
                *w = kept * *w - rate * m / (v.sqrt() + eps);
            }
        })?;
        Ok(())
    }
}

register!(Optimizer, "prodigy", Prodigy, aliases = ["Prodigy"]);

#[cfg(test)]
mod tests {
    use super::*;
    use sconce_nn::rng::Stream;

    /// Gradients that keep pointing one way make the estimate grow, alike on both paths.
    #[test]
    fn both_paths_find_the_same_rate() -> Result<()> {
        let config = Prodigy { slice: NonZeroUsize::new(3).unwrap(), weight_decay: 0.1, ..Prodigy::default() };
        let found = |path| -> Result<(f64, Vec<f32>)> {
            let var = Var::from_tensor(&Stream::new(1, "weight").normal((9, 8), &Device::Cpu)?)?;
            let mut running = config.running(vec![Trained::new("unet/w", var.clone())], path)?;
            let grad = Stream::new(1, "gradient").normal((9, 8), &Device::Cpu)?;
            for images_seen in 0..40 {
                running.step(&[Some(grad.clone())], &At { lr: 1.0, seed: 0, images_seen })?;
            }
            Ok((running.estimate.d, var.flatten_all()?.to_vec1()?))
        };
        let ((d, fused), (d_composed, composed)) = (found(Path::Fused)?, found(Path::Composed)?);
        assert!(d > 100.0 * config.d0, "the estimate stays at {d}");
        assert!((d / d_composed - 1.0).abs() < 1e-4, "{d} against {d_composed}");
        let off = fused.iter().zip(&composed).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-4, "{off}");
        Ok(())
    }

    #[test]
    fn rates_that_differ_are_refused() -> Result<()> {
        let one = |lr_factor| -> Result<Trained> {
            let var = Var::zeros(3, DType::F32, &Device::Cpu)?;
            Ok(Trained { lr_factor, ..Trained::new("unet/w", var) })
        };
        let error = Prodigy::default().start(vec![one(1.0)?, one(0.5)?]).err().map(|e| e.to_string());
        assert!(error.is_some_and(|e| e.contains("one rate")));
        Prodigy::default().start(vec![one(0.5)?, one(0.0)?, one(0.5)?]).map(|_| ())
    }
}
