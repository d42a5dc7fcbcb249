//! AdamW: Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2). On the CPU the whole update of a
//! parameter is one pass over its memory; the weights keep f32 masters whatever type the forward runs in.

use std::collections::BTreeMap;

use candle_core::{DType, Result, Tensor, Var, bail};
use sconce_core::optimizer::{Optimizer, OptimizerState, Trained};
use sconce_nn::inplace;
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
        let zeros = |p: &Trained| Var::zeros(p.var.shape(), DType::F32, p.var.device());
        let mean = params.iter().map(zeros).collect::<Result<_>>()?;
        let square = params.iter().map(zeros).collect::<Result<_>>()?;
        Ok(Box::new(Running { config: self.clone(), updates: vec![0; params.len()], params, mean, square }))
    }
}

/// The moments of each parameter, and how often it was updated (one that gets no gradient stays behind).
struct Running {
    config: AdamW,
    params: Vec<Trained>,
    mean: Vec<Var>,
    square: Vec<Var>,
    updates: Vec<u64>,
}

/// The scalars of one update of one parameter.
struct Update {
    lr: f64,
    decay: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    correct1: f64,
    correct2: f64,
}

impl OptimizerState for Running {
    fn step(&mut self, grads: &[Option<Tensor>], lr: f64) -> Result<()> {
        if grads.len() != self.params.len() {
            bail!("{} gradients for {} parameters", grads.len(), self.params.len());
        }
        let c = &self.config;
        for (i, (p, grad)) in self.params.iter().zip(grads).enumerate() {
            let Some(grad) = grad else { continue };
            self.updates[i] += 1;
            let n = self.updates[i] as f64;
            let lr = lr * p.lr_factor;
            let update = Update {
                lr,
                decay: if p.decays { 1.0 - lr * c.weight_decay } else { 1.0 },
                beta1: c.beta1,
                beta2: c.beta2,
                eps: c.eps,
                correct1: 1.0 - c.beta1.powf(n),
                correct2: 1.0 - c.beta2.powf(n),
            };
            if p.var.device().is_cpu() {
                update.fused(&p.var, grad, &self.mean[i], &self.square[i])?;
            } else {
                update.composed(&p.var, grad, &self.mean[i], &self.square[i])?;
            }
        }
        Ok(())
    }

    fn save(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for (i, p) in self.params.iter().enumerate() {
            state.insert(format!("{}.mean", p.name), self.mean[i].as_tensor().clone());
            state.insert(format!("{}.square", p.name), self.square[i].as_tensor().clone());
            let updates = Tensor::new(self.updates[i] as i64, p.var.device())?;
            state.insert(format!("{}.updates", p.name), updates);
        }
        Ok(state)
    }

    fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        for (i, p) in self.params.iter().enumerate() {
            let get = |what: &str| match state.get(&format!("{}.{what}", p.name)) {
                Some(t) => Ok(t),
                None => bail!("the checkpoint has no optimizer state for `{}`", p.name),
            };
            let device = p.var.device();
            self.mean[i].set(&get("mean")?.to_device(device)?)?;
            self.square[i].set(&get("square")?.to_device(device)?)?;
            self.updates[i] = get("updates")?.to_scalar::<i64>()?.unsigned_abs();
        }
        Ok(())
    }
}

impl Update {
    /// One pass: both moments and the weight.
    fn fused(&self, weight: &Var, grad: &Tensor, mean: &Var, square: &Var) -> Result<()> {
        let (b1, b2, eps) = (self.beta1 as f32, self.beta2 as f32, self.eps as f32);
        let (decay, rate) = (self.decay as f32, (self.lr / self.correct1) as f32);
        let root = (1.0 / self.correct2.sqrt()) as f32;
        inplace::zip3([mean, square, weight], grad, |[mean, square, weight], grad| {
            for (((m, v), w), g) in mean.iter_mut().zip(square).zip(weight).zip(grad) {
                *m += (1.0 - b1) * (g - *m);
                *v += (1.0 - b2) * (g * g - *v);
                *w = decay * *w - rate * *m / (v.sqrt() * root + eps);
            }
        })
    }

    /// The same with the device's own operations.
    fn composed(&self, weight: &Var, grad: &Tensor, mean: &Var, square: &Var) -> Result<()> {
        let grad = grad.to_dtype(DType::F32)?;
        mean.set(&((mean.as_tensor() * self.beta1)? + (&grad * (1.0 - self.beta1))?)?.detach())?;
        square.set(&((square.as_tensor() * self.beta2)? + (grad.sqr()? * (1.0 - self.beta2))?)?.detach())?;
        let root = ((square.as_tensor() / self.correct2)?.sqrt()? + self.eps)?;
        let step = ((mean.as_tensor() / self.correct1)? / root)?;
        weight.set(&((weight.as_tensor() * self.decay)? - (step * self.lr)?)?.detach())
    }
}

register!(Optimizer, "adamw", AdamW);

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn one(value: f32) -> (Var, Trained) {
        let var = Var::from_vec(vec![value; 3], 3, &Device::Cpu).expect("a small tensor");
        (var.clone(), Trained { name: "w".into(), var, lr_factor: 1.0, decays: true })
    }

    /// The first update is lr · sign(g) (both corrections cancel), and the decay is decoupled.
    #[test]
    fn first_update_is_the_rate_and_the_decay() -> Result<()> {
        let (var, trained) = one(2.0);
        let adam = AdamW { lr: 0.1, weight_decay: 0.5, ..AdamW::default() };
        adam.start(vec![trained])?.step(&[Some(Tensor::full(7f32, 3, &Device::Cpu)?)], 0.1)?;
        for w in var.as_tensor().to_vec1::<f32>()? {
            assert!((w - (2.0 * 0.95 - 0.1)).abs() < 1e-6, "{w}");
        }
        Ok(())
    }

    #[test]
    fn fused_and_composed_agree_over_many_updates() -> Result<()> {
        let (a, trained) = one(1.0);
        let (b, _) = one(1.0);
        let adam = AdamW { lr: 0.01, ..AdamW::default() };
        let mut run = adam.start(vec![trained])?;
        let (m, v) = (Var::zeros(3, DType::F32, &Device::Cpu)?, Var::zeros(3, DType::F32, &Device::Cpu)?);
        for n in 1..50i32 {
            let g = Tensor::new(&[(n as f32).sin(), 1e-3, -5.0 * (n as f32).cos()], &Device::Cpu)?;
            run.step(&[Some(g.clone())], 0.01)?;
            let update = Update {
                lr: 0.01,
                decay: 1.0 - 0.01 * 0.01,
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                correct1: 1.0 - 0.9f64.powi(n),
                correct2: 1.0 - 0.999f64.powi(n),
            };
            update.composed(&b, &g, &m, &v)?;
        }
        let diff = (a.as_tensor() - b.as_tensor())?.abs()?.max(0)?.to_scalar::<f32>()?;
        assert!(diff < 1e-5, "{diff}");
        Ok(())
    }

    /// N + N updates across a save are 2N updates, bit for bit.
    #[test]
    fn resumes_to_the_bit() -> Result<()> {
        let grad = |n: i32| Tensor::new(&[(n as f32).sin(), 0.1, -2.0 * (n as f32).cos()], &Device::Cpu);
        let (whole, trained) = one(1.0);
        let mut run = AdamW::default().start(vec![trained])?;
        for n in 0..20 {
            run.step(&[Some(grad(n)?)], 1e-2)?;
        }
        let (half, trained) = one(1.0);
        let mut run = AdamW::default().start(vec![trained.clone()])?;
        for n in 0..10 {
            run.step(&[Some(grad(n)?)], 1e-2)?;
        }
        let state: BTreeMap<_, _> = run.save()?.into_iter().map(|(k, t)| Ok((k, t.copy()?))).collect::<Result<_>>()?;
        let mut run = AdamW::default().start(vec![trained])?;
        run.restore(&state)?;
        for n in 10..20 {
            run.step(&[Some(grad(n)?)], 1e-2)?;
        }
        assert_eq!(whole.as_tensor().to_vec1::<f32>()?, half.as_tensor().to_vec1::<f32>()?);
        Ok(())
    }
}
