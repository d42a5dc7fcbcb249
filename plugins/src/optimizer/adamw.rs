//! AdamW: Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2). On the CPU the whole update of a
//! parameter is one pass over its memory.

use candle_core::{DType, Result, Tensor, Var, bail};
use sconce_core::optimizer::{Each, Optimizer, OptimizerState, Rule, Trained, Update};
use sconce_nn::{inplace, kernels};
use sconce_sdk::prelude::*;

/// Adam with decoupled weight decay (Loshchilov & Hutter 2019): two running moments of each weight's gradient.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running mean of the gradient.
    pub beta1: f64,
    /// Decay of the running mean of its square.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Share of a weight taken away per unit of learning rate; biases and norms are left out.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { lr: 1e-5, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
    }
}

impl Optimizer for AdamW {
    fn lr(&self) -> f64 {
        self.lr
    }

    fn start(&self, params: Vec<Trained>) -> Result<Box<dyn OptimizerState>> {
        Each::start(self.clone(), params)
    }
}

impl AdamW {
    fn scalars(&self, update: &Update) -> kernels::AdamW {
        kernels::AdamW {
            // 1 - beta in f64: f32 would lose three digits of it.
            new1: (1.0 - self.beta1) as f32,
            new2: (1.0 - self.beta2) as f32,
            eps: self.eps as f32,
            kept: update.kept(self.weight_decay) as f32,
            rate: (update.lr / update.correction(self.beta1)) as f32,
            root: (1.0 / update.correction(self.beta2).sqrt()) as f32,
        }
    }
}

impl Rule for AdamW {
    fn fresh(&self, p: &Trained) -> Result<Vec<(&'static str, Tensor)>> {
        let zeros = || Tensor::zeros(p.var.shape(), DType::F32, p.var.device());
        Ok(vec![("mean", zeros()?), ("square", zeros()?)])
    }

    /// One pass: both moments and the weight.
    fn fused(&self, weight: &Var, grad: &Tensor, state: &[Var], update: &Update) -> Result<()> {
        let [mean, square] = state else { bail!("AdamW keeps two moments") };
        let kernels::AdamW { new1, new2, eps, kept, rate, root } = self.scalars(update);
        inplace::chunks([mean, square, weight], grad, |[mean, square, weight], grad| {
            for (((m, v), w), g) in mean.iter_mut().zip(square).zip(weight).zip(grad) {
                *m += new1 * (g - *m);
                *v += new2 * (g * g - *v);
                *w = kept * *w - rate * *m / (v.sqrt() * root + eps);
            }
        })?;
        Ok(())
    }

    fn composed(&self, weight: &Var, grad: &Tensor, state: &[Var], update: &Update) -> Result<()> {
        let [mean, square] = state else { bail!("AdamW keeps two moments") };
        if kernels::adamw(weight, mean, square, grad, &self.scalars(update))? {
            return Ok(());
        }
        let grad = grad.to_dtype(DType::F32)?;
        mean.set(&((mean.as_tensor() * self.beta1)? + (&grad * (1.0 - self.beta1))?)?.detach())?;
        square.set(&((square.as_tensor() * self.beta2)? + (grad.sqr()? * (1.0 - self.beta2))?)?.detach())?;
        let root = ((square.as_tensor() / update.correction(self.beta2))?.sqrt()? + self.eps)?;
        let step = ((mean.as_tensor() / update.correction(self.beta1))? / root)?;
        let kept = (weight.as_tensor() * update.kept(self.weight_decay))?;
        weight.set(&(kept - (step * update.lr)?)?.detach())
    }
}

register!(Optimizer, "adamw", AdamW);

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use sconce_core::optimizer::At;

    /// The first update is lr · sign(g) (both corrections cancel), and the decay is decoupled.
    #[test]
    fn first_update_is_the_rate_and_the_decay() -> Result<()> {
        let var = Var::from_vec(vec![2f32; 3], 3, &Device::Cpu)?;
        let adam = AdamW { weight_decay: 0.5, ..AdamW::default() };
        let trained = Trained { weight_decay: None, ..Trained::new("w", var.clone()) };
        let at = At { lr: 0.1, seed: 0, images_seen: 0 };
        adam.start(vec![trained])?.step(&[Some(Tensor::full(7f32, 3, &Device::Cpu)?)], &at)?;
        for w in var.as_tensor().to_vec1::<f32>()? {
            assert!((w - (2.0 * 0.95 - 0.1)).abs() < 1e-6, "{w}");
        }
        Ok(())
    }
}
