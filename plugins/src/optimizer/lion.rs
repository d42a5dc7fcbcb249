//! Lion: every weight moves by the learning rate, in the direction of the sign of a momentum (Chen et al. 2023,
//! "Symbolic discovery of optimization algorithms", algorithm 2). Half of AdamW's state.

use candle_core::{DType, Result, Tensor, Var, bail};
use sconce_core::optimizer::{Each, Optimizer, OptimizerState, Rule, Trained, Update};
use sconce_nn::inplace;
use sconce_sdk::prelude::*;

/// The sign of a momentum, with half of AdamW's state (Chen et al. 2023).
///
/// Takes a rate three to ten times below AdamW's, and a weight decay as many times above it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Lion {
    /// Learning rate: how far every weight moves in an update.
    pub lr: f64,
    /// Share of the momentum, against the gradient, in the direction of an update.
    pub beta1: f64,
    /// Decay of the momentum.
    pub beta2: f64,
    /// Share of a weight taken away per unit of learning rate; biases and norms are left out.
    pub weight_decay: f64,
}

impl Default for Lion {
    fn default() -> Self {
        Self { lr: 1e-4, beta1: 0.9, beta2: 0.99, weight_decay: 0.0 }
    }
}

impl Optimizer for Lion {
    fn lr(&self) -> f64 {
        self.lr
    }

    fn start(&self, params: Vec<Trained>) -> Result<Box<dyn OptimizerState>> {
        Each::start(self.clone(), params)
    }
}

impl Rule for Lion {
    fn fresh(&self, p: &Trained) -> Result<Vec<(&'static str, Tensor)>> {
        Ok(vec![("mean", Tensor::zeros(p.var.shape(), DType::F32, p.var.device())?)])
    }

    fn fused(&self, weight: &Var, grad: &Tensor, state: &[Var], update: &Update) -> Result<()> {
        let [mean] = state else { bail!("Lion keeps one moment") };
        let (b1, b2) = (self.beta1 as f32, self.beta2 as f32);
        let (new1, new2) = ((1.0 - self.beta1) as f32, (1.0 - self.beta2) as f32);
        let (kept, lr) = (update.kept(self.weight_decay) as f32, update.lr as f32);
        inplace::chunks([mean, weight], grad, |[mean, weight], grad| {
            for ((m, w), g) in mean.iter_mut().zip(weight).zip(grad) {
                let direction = *m * b1 + new1 * g;
                let sign = f32::from(direction > 0.0) - f32::from(direction < 0.0);
                *w = kept * *w - lr * sign;
                *m = *m * b2 + new2 * g;
            }
        })?;
        Ok(())
    }

    fn composed(&self, weight: &Var, grad: &Tensor, state: &[Var], update: &Update) -> Result<()> {
        let [mean] = state else { bail!("Lion keeps one moment") };
        let grad = grad.to_dtype(DType::F32)?;
        let direction = ((mean.as_tensor() * self.beta1)? + (&grad * (1.0 - self.beta1))?)?.sign()?;
        let kept = (weight.as_tensor() * update.kept(self.weight_decay))?;
        weight.set(&(kept - (direction * update.lr)?)?.detach())?;
        mean.set(&((mean.as_tensor() * self.beta2)? + (grad * (1.0 - self.beta2))?)?.detach())
    }
}

register!(Optimizer, "lion", Lion, aliases = ["Lion"]);
