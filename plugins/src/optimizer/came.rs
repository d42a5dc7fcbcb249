//! CAME: Adafactor's second moment, and a momentum whose every part counts less the more it differs from its update of
//! the day (Luo et al. 2023, "CAME: confidence-guided adaptive memory efficient optimization", algorithm 2).

use candle_core::{DType, Result, Tensor, Var, bail};
use rayon::prelude::*;
use sconce_core::optimizer::{Each, Optimizer, OptimizerState, Rule, Trained, Update};
use sconce_nn::inplace;
use sconce_sdk::prelude::*;

use super::factored::{self, Stack};

/// A momentum that counts less where it is uncertain, with about half of AdamW's state (Luo et al. 2023).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Came {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running mean of the update.
    pub beta1: f64,
    /// Decay of the running mean of the squared gradient.
    pub beta2: f64,
    /// Decay of the running mean of the squared difference between the update and its mean.
    pub beta3: f64,
    /// Added to the squared gradient.
    pub eps: f64,
    /// Added to the squared difference.
    pub eps_confidence: f64,
    /// An update's root mean square is cut to this.
    pub clip_threshold: f64,
    /// Share of a weight taken away per unit of learning rate; biases and norms are left out.
    pub weight_decay: f64,
}

impl Default for Came {
    fn default() -> Self {
        Self {
            lr: 1e-5,
            beta1: 0.9,
            beta2: 0.999,
            beta3: 0.9999,
            eps: 1e-30,
            eps_confidence: 1e-16,
            clip_threshold: 1.0,
            weight_decay: 0.0,
        }
    }
}

impl Optimizer for Came {
    fn lr(&self) -> f64 {
        self.lr
    }

    fn start(&self, params: Vec<Trained>) -> Result<Box<dyn OptimizerState>> {
        Each::start(self.clone(), params)
    }
}

impl Rule for Came {
    fn fresh(&self, p: &Trained) -> Result<Vec<(&'static str, Tensor)>> {
        let zeros = || Tensor::zeros(p.var.shape(), DType::F32, p.var.device());
        let mut state = vec![("mean", zeros()?)];
        if Stack::of(p.var.dims()).is_none() {
            state.push(("square", zeros()?));
            return Ok(state);
        }
        let ([row, col], [residual_row, residual_col]) = (Stack::zeros(&p.var)?, Stack::zeros(&p.var)?);
        state.extend([("row", row), ("col", col), ("residual_row", residual_row), ("residual_col", residual_col)]);
        Ok(state)
    }

    fn fused(&self, weight: &Var, grad: &Tensor, state: &[Var], update: &Update) -> Result<()> {
        let (b1, new1) = (self.beta1 as f32, (1.0 - self.beta1) as f32);
        let (kept, lr) = (update.kept(self.weight_decay) as f32, update.lr as f32);
        let mut step = grad.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        match (Stack::of(weight.dims()), state) {
            (Some(stack), [mean, row, col, residual_row, residual_col]) => {
                let all = [mean, row, col, residual_row, residual_col].map(|var| var.as_tensor());
                inplace::whole(all, grad, |[mean, row, col, residual_row, residual_col], grad| {
                    stack.follow(row, col, grad, self.eps, self.beta2);
                    stack.divide(row, col, &mut step);
                    let clip = factored::clip(&step, self.clip_threshold);
                    mean.par_iter_mut().zip(&mut step).with_min_len(1 << 14).for_each(|(m, u)| {
                        let clipped = *u * clip;
                        *m = *m * b1 + new1 * clipped;
                        *u = clipped - *m;
                    });
                    stack.follow(residual_row, residual_col, &step, self.eps_confidence, self.beta3);
                    step.copy_from_slice(mean);
                    stack.divide(residual_row, residual_col, &mut step);
                })?;
            }
            (None, [mean, square]) => inplace::whole([mean, square], grad, |[mean, square], _| {
                let (b2, new2) = (self.beta2 as f32, (1.0 - self.beta2) as f32);
                for (v, u) in square.iter_mut().zip(&mut step) {
                    *v = *v * b2 + new2 * (*u * *u + self.eps as f32);
                    *u /= v.sqrt();
                }
                let clip = factored::clip(&step, self.clip_threshold);
                for (m, u) in mean.iter_mut().zip(&mut step) {
                    *m = *m * b1 + new1 * clip * *u;
                    *u = *m;
                }
            })?,
            _ => bail!("CAME keeps a mean, and rows and columns or squares"),
        }
        let step = Tensor::from_vec(step, weight.shape(), weight.device())?;
        inplace::chunks([weight], &step, |[weight], step| {
            weight.iter_mut().zip(step).for_each(|(w, u)| *w = kept * *w - lr * u);
        })?;
        Ok(())
    }

    fn composed(&self, weight: &Var, grad: &Tensor, state: &[Var], update: &Update) -> Result<()> {
        let grad = grad.to_dtype(DType::F32)?;
        let toward = |mean: &Var, value: &Tensor| -> Result<()> {
            mean.set(&((mean.as_tensor() * self.beta1)? + (value * (1.0 - self.beta1))?)?.detach())
        };
        let step = match state {
            [mean, row, col, residual_row, residual_col] => {
                factored::follow(row, col, &grad, self.eps, self.beta2)?;
                let step = factored::clipped(&factored::divide(row, col, &grad)?, self.clip_threshold)?;
                toward(mean, &step)?;
                let residual = (step - mean.as_tensor())?;
                factored::follow(residual_row, residual_col, &residual, self.eps_confidence, self.beta3)?;
                factored::divide(residual_row, residual_col, mean)?
            }
            [mean, square] => {
                let new = ((square.as_tensor() * self.beta2)? + ((grad.sqr()? + self.eps)? * (1.0 - self.beta2))?)?;
                square.set(&new.detach())?;
                toward(mean, &factored::clipped(&(&grad / square.as_tensor().sqrt()?)?, self.clip_threshold)?)?;
                mean.as_tensor().clone()
            }
            _ => bail!("CAME keeps a mean, and rows and columns or squares"),
        };
        let kept = (weight.as_tensor() * update.kept(self.weight_decay))?;
        weight.set(&(kept - (step * update.lr)?)?.detach())
    }
}

register!(Optimizer, "came", Came, aliases = ["CAME"]);
