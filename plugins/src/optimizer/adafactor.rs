//! Adafactor: Adam's second moment by rows and columns alone, and no first moment unless one is asked for (Shazeer & Stern
//! 2018, "Adafactor: adaptive learning rates with sublinear memory cost", algorithms 4 and 5). A matrix's state is a row
//! and a column.

use candle_core::{DType, Result, Tensor, Var, bail};
use sconce_core::optimizer::{Each, Optimizer, OptimizerState, Rule, Trained, Update};
use sconce_nn::inplace;
use sconce_sdk::prelude::*;

use super::factored::{self, Stack};

/// Adam's second moment by rows and columns alone: hardly any state for matrices (Shazeer & Stern 2018).
///
/// As in the reference implementations a kernel counts as a stack of small matrices, one for each pair of channels, whose
/// rows and columns save little: two thirds of a 3 x 3 kernel are kept.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Adafactor {
    /// Learning rate; under `scale = "relative"` a factor on the rate that the paper gives, 1 for the paper's own.
    pub lr: f64,
    /// What the learning rate is relative to.
    pub scale: Scale,
    /// Decay of a running mean of the update. None: no such mean, and no memory for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta1: Option<f64>,
    /// The second moment's decay at update n is 1 - n to minus this power.
    pub decay_power: f64,
    /// An update's root mean square is cut to this.
    pub clip_threshold: f64,
    /// Added to the squared gradient.
    pub eps: f64,
    /// The least root mean square that a weight counts with, where the rate is relative to it.
    pub eps_weight: f64,
    /// Share of a weight taken away per unit of the rate; biases and norms are left out.
    pub weight_decay: f64,
}

/// What Adafactor's learning rate is relative to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// Nothing, as in other optimizers (`scale_parameter = False, relative_step = False` elsewhere).
    #[default]
    Absolute,
    /// The weight's root mean square (`scale_parameter = True, relative_step = False`).
    Weight,
    /// The weight's root mean square, and min(0.01, 1/sqrt(n)) at update n: the paper's algorithm 5
    /// (`scale_parameter = True, relative_step = True`).
    Relative,
}

impl Default for Adafactor {
    fn default() -> Self {
        Self {
            lr: 1e-5,
            scale: Scale::Absolute,
            beta1: None,
            decay_power: 0.8,
            clip_threshold: 1.0,
            eps: 1e-30,
            eps_weight: 1e-3,
            weight_decay: 0.0,
        }
    }
}

impl Optimizer for Adafactor {
    fn lr(&self) -> f64 {
        self.lr
    }

    fn start(&self, params: Vec<Trained>) -> Result<Box<dyn OptimizerState>> {
        Each::start(self.clone(), params)
    }
}

impl Adafactor {
    /// The rate of this update, whose weight has the root mean square `rms`.
    fn rate(&self, update: &Update, rms: impl FnOnce() -> Result<f64>) -> Result<f64> {
        Ok(match self.scale {
            Scale::Absolute => update.lr,
            Scale::Weight => update.lr * rms()?.max(self.eps_weight),
            Scale::Relative => update.lr * rms()?.max(self.eps_weight) * (1.0 / (update.count as f64).sqrt()).min(1e-2),
        })
    }

    fn beta2(&self, update: &Update) -> f64 {
        1.0 - (update.count as f64).powf(-self.decay_power)
    }
}

impl Rule for Adafactor {
    fn fresh(&self, p: &Trained) -> Result<Vec<(&'static str, Tensor)>> {
        let zeros = || Tensor::zeros(p.var.shape(), DType::F32, p.var.device());
        let mut state = match Stack::of(p.var.dims()) {
            Some(_) => {
                let [row, col] = Stack::zeros(&p.var)?;
                vec![("row", row), ("col", col)]
            }
            None => vec![("square", zeros()?)],
        };
        if self.beta1.is_some() {
            state.push(("mean", zeros()?));
        }
        Ok(state)
    }

    fn fused(&self, weight: &Var, grad: &Tensor, state: &[Var], update: &Update) -> Result<()> {
        let beta2 = self.beta2(update);
        let rate = self.rate(update, || inplace::whole([weight], grad, |[w], _| factored::rms(w)))?;
        let kept = Update { lr: rate, ..*update }.kept(self.weight_decay) as f32;
        let mut step = grad.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        match (Stack::of(weight.dims()), state) {
            (Some(stack), [row, col, ..]) => inplace::whole([row, col], grad, |[row, col], grad| {
                stack.follow(row, col, grad, self.eps, beta2);
                stack.divide(row, col, &mut step);
            })?,
            (None, [square, ..]) => inplace::whole([square], grad, |[square], _| {
                for (v, g) in square.iter_mut().zip(&mut step) {
                    *v = *v * beta2 as f32 + (*g * *g + self.eps as f32) * (1.0 - beta2) as f32;
                    *g /= v.sqrt();
                }
            })?,
            _ => bail!("Adafactor keeps rows and columns, or squares"),
        }
        let factor = factored::clip(&step, self.clip_threshold) * rate as f32;
        let step = Tensor::from_vec(step, weight.shape(), weight.device())?;
        match (self.beta1, state) {
            (None, _) => inplace::chunks([weight], &step, |[weight], step| {
                weight.iter_mut().zip(step).for_each(|(w, u)| *w = kept * *w - factor * u);
            })?,
            (Some(beta1), [.., mean]) => inplace::chunks([mean, weight], &step, |[mean, weight], step| {
                for ((m, w), u) in mean.iter_mut().zip(weight).zip(step) {
                    *m = *m * beta1 as f32 + (1.0 - beta1) as f32 * factor * u;
                    *w = kept * *w - *m;
                }
            })?,
            _ => bail!("Adafactor keeps a mean where it has a beta1"),
        };
        Ok(())
    }

    fn composed(&self, weight: &Var, grad: &Tensor, state: &[Var], update: &Update) -> Result<()> {
        let (beta2, grad) = (self.beta2(update), grad.to_dtype(DType::F32)?);
        let rms = || Ok(f64::from(factored::root_mean_square(weight)?.to_scalar::<f32>()?));
        let rate = self.rate(update, rms)?;
        let kept = Update { lr: rate, ..*update }.kept(self.weight_decay);
        let step = match (Stack::of(weight.dims()), state) {
            (Some(_), [row, col, ..]) => {
                factored::follow(row, col, &grad, self.eps, beta2)?;
                factored::divide(row, col, &grad)?
            }
            (None, [square, ..]) => {
                let new = ((square.as_tensor() * beta2)? + ((grad.sqr()? + self.eps)? * (1.0 - beta2))?)?;
                square.set(&new.detach())?;
                (&grad / square.as_tensor().sqrt()?)?
            }
            _ => bail!("Adafactor keeps rows and columns, or squares"),
        };
        let mut step = (factored::clipped(&step, self.clip_threshold)? * rate)?;
        if let (Some(beta1), [.., mean]) = (self.beta1, state) {
            mean.set(&((mean.as_tensor() * beta1)? + (step * (1.0 - beta1))?)?.detach())?;
            step = mean.as_tensor().clone();
        }
        weight.set(&((weight.as_tensor() * kept)? - step)?.detach())
    }
}

register!(Optimizer, "adafactor", Adafactor, aliases = ["AdaFactor", "Adafactor"]);
