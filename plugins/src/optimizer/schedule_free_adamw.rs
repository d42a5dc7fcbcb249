//! Schedule-free AdamW: no rate schedule, because the weights to keep are an average of those that the rate moves (Defazio
//! et al. 2024, "The road less scheduled", equations 3 to 5 and algorithm 1). Three sequences: z moves by Adam's normalised gradient, x
//! averages z, and gradients are taken at y = (1 - beta1) z + beta1 x. Training holds y and z; x follows from both.

use candle_core::{DType, Device, Result, Tensor, Var, bail};
use sconce_core::optimizer::{Each, Optimizer, OptimizerState, Rule, Trained, Update};
use sconce_nn::inplace;
use sconce_sdk::prelude::*;

/// AdamW that averages its weights in place of a rate schedule (Defazio et al. 2024).
///
/// Takes a constant rate with a warm-up. Previews, validation and the saved model use its average, so there is no `[ema]`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleFreeAdamW {
    /// Learning rate: one to ten times that of a run with a schedule.
    pub lr: f64,
    /// Where gradients are taken, between z (0) and the average (1).
    pub beta1: f64,
    /// Decay of the running mean of the squared gradient.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Share of a weight taken away per unit of learning rate; biases and norms are left out.
    pub weight_decay: f64,
    /// Update n counts in the average in proportion to n to this power.
    pub average_power: f64,
    /// And in proportion to the largest rate so far to this power, so that a warm-up counts less.
    pub rate_power: f64,
}

impl Default for ScheduleFreeAdamW {
    fn default() -> Self {
        Self { lr: 2.5e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, average_power: 0.0, rate_power: 2.0 }
    }
}

impl Optimizer for ScheduleFreeAdamW {
    fn lr(&self) -> f64 {
        self.lr
    }

    fn start(&self, params: Vec<Trained>) -> Result<Box<dyn OptimizerState>> {
        if !(self.beta1 > 0.0 && self.beta1 <= 1.0) {
            bail!(
                "optimizer.beta1 = {}: schedule-free needs more than 0, up to 1: the average follows from it",
                self.beta1
            );
        }
        Each::start(self.clone(), params)
    }
}

impl ScheduleFreeAdamW {
    /// The share that z gets in the average at this update. `sums` keeps the sum of all shares and the largest rate.
    fn share(&self, sums: &Var, update: &Update) -> Result<f64> {
        let [sum, largest] = sums.to_vec1::<f64>()?[..] else { bail!("schedule-free AdamW keeps two sums") };
        let largest = largest.max(update.lr);
        let weight = (update.count as f64).powf(self.average_power) * largest.powf(self.rate_power);
        let sum = sum + weight;
        sums.set(&Tensor::new(&[sum, largest], &Device::Cpu)?)?;
        Ok(if sum > 0.0 { weight / sum } else { 0.0 })
    }
}

impl Rule for ScheduleFreeAdamW {
    fn fresh(&self, p: &Trained) -> Result<Vec<(&'static str, Tensor)>> {
        let start = p.var.as_tensor().detach().to_dtype(DType::F32)?.copy()?;
        let square = Tensor::zeros(p.var.shape(), DType::F32, p.var.device())?;
        // The sums and the largest rate are few and f64: they stay with the processor.
        Ok(vec![("z", start), ("square", square), ("sums", Tensor::new(&[0f64, 0.0], &Device::Cpu)?)])
    }

    fn fused(&self, weight: &Var, grad: &Tensor, state: &[Var], update: &Update) -> Result<()> {
        let [z, square, sums] = state else { bail!("schedule-free AdamW keeps z and a moment") };
        let share = self.share(sums, update)?;
        let (b2, new2) = (self.beta2 as f32, (1.0 - self.beta2) as f32);
        let (eps, decay) = (self.eps as f32, self.decay(update) as f32);
        let root = (1.0 / update.correction(self.beta2).sqrt()) as f32;
        let (lr, ahead) = (update.lr as f32, (update.lr * (self.beta1 * (1.0 - share) - 1.0)) as f32);
        let share = share as f32;
        inplace::chunks([z, square, weight], grad, |[z, square, weight], grad| {
            for (((z, v), y), g) in z.iter_mut().zip(square).zip(weight).zip(grad) {
                *v = *v * b2 + new2 * g * g;
                let step = g / (v.sqrt() * root + eps) + decay * *y;
                *y += share * (*z - *y) + ahead * step;
                *z -= lr * step;
            }
        })?;
        Ok(())
    }

    fn composed(&self, weight: &Var, grad: &Tensor, state: &[Var], update: &Update) -> Result<()> {
        let [z, square, sums] = state else { bail!("schedule-free AdamW keeps z and a moment") };
        let (share, grad) = (self.share(sums, update)?, grad.to_dtype(DType::F32)?);
        square.set(&((square.as_tensor() * self.beta2)? + (grad.sqr()? * (1.0 - self.beta2))?)?.detach())?;
        let root = ((square.as_tensor() / update.correction(self.beta2))?.sqrt()? + self.eps)?;
        let step = ((grad / root)? + (weight.as_tensor() * self.decay(update))?)?.detach();
        let ahead = (&step * (update.lr * (self.beta1 * (1.0 - share) - 1.0)))?;
        let to_average = ((z.as_tensor() - weight.as_tensor())? * share)?;
        weight.set(&((weight.as_tensor() + to_average)? + ahead)?.detach())?;
        z.set(&(z.as_tensor() - (step * update.lr)?)?.detach())
    }

    /// x = y + (1 - 1/beta1) (z - y).
    fn averaged(&self, weight: &Tensor, state: &[Var]) -> Result<Option<Tensor>> {
        let [z, ..] = state else { bail!("schedule-free AdamW keeps z and a moment") };
        let weight = weight.detach().to_dtype(DType::F32)?;
        let away = ((z.as_tensor().detach() - &weight)? * (1.0 - 1.0 / self.beta1))?;
        Ok(Some((weight + away)?))
    }
}

impl ScheduleFreeAdamW {
    fn decay(&self, update: &Update) -> f64 {
        update.weight_decay.unwrap_or(self.weight_decay)
    }
}

register!(
    Optimizer,
    "schedule-free-adamw",
    ScheduleFreeAdamW,
    aliases = ["schedulefree_adamw", "adamw_schedulefree", "AdamWScheduleFree", "schedule-free"],
);
