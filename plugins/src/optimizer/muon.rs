//! Muon: a matrix moves by its momentum with all singular values set to about one, found by a Newton-Schulz iteration
//! (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"). What is no matrix inside the network
//! (biases, norms, embeddings, first and last layers) follows AdamW.

use candle_core::{DType, Result, Tensor, Var};
use sconce_core::optimizer::{Each, Optimizer, OptimizerState, Rule, Trained, Update};
use sconce_core::train::matches;
use sconce_nn::inplace;
use sconce_nn::ops::matmul;
use sconce_sdk::prelude::*;

use super::AdamW;
use crate::range;

/// The quintic of Jordan et al., whose slope at zero is as large as it can be.
const QUINTIC: [f64; 3] = [3.4445, -4.7750, 2.0315];

/// Orthogonalised momentum for matrices and kernels, AdamW for the rest (Jordan et al. 2024).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Muon {
    /// Learning rate of matrices and kernels, above 0: that of the rest is in proportion to it.
    #[serde(deserialize_with = "range::positive")]
    pub lr: f64,
    /// Decay of the momentum.
    pub momentum: f64,
    /// Steps of the Newton-Schulz iteration.
    pub iterations: usize,
    /// How the size of an update depends on the matrix's shape.
    pub scale: MuonScale,
    /// Share of a matrix taken away per unit of learning rate.
    pub weight_decay: f64,
    /// Matrices that follow AdamW all the same, matched against `component.path`, with `*` for any text.
    pub adamw_targets: Vec<String>,
    /// How everything else trains. The recipe's rate schedule moves both rates in proportion.
    pub adamw: AdamW,
}

/// How the size of Muon's update depends on the shape of a matrix of N x M (output and input features).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MuonScale {
    /// sqrt(max(1, N/M)), as its authors have it.
    #[default]
    Original,
    /// 0.2 sqrt(max(N, M)): the root mean square of AdamW's updates, so that AdamW's rates can be taken over (Liu et al.
    /// 2025, "Muon is scalable for LLM training", equation 4).
    MatchRmsAdamw,
}

impl Default for Muon {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            momentum: 0.95,
            iterations: 5,
            scale: MuonScale::Original,
            weight_decay: 0.1,
            adamw_targets: ["*.conv_in.weight", "*.conv_out.weight", "*_embedding.weight"].map(str::to_owned).to_vec(),
            adamw: AdamW::default(),
        }
    }
}

impl Optimizer for Muon {
    fn lr(&self) -> f64 {
        self.lr
    }

    fn start(&self, params: Vec<Trained>) -> Result<Box<dyn OptimizerState>> {
        Each::start(self.clone(), params)
    }
}

impl Muon {
    fn orthogonalises(&self, p: &Trained) -> bool {
        let path = p.name.replacen('/', ".", 1);
        p.var.rank() >= 2 && !self.adamw_targets.iter().any(|target| matches(target, &path))
    }

    /// The update of AdamW's share of the parameters.
    fn of_adamw(&self, update: &Update) -> Update {
        Update { lr: update.lr / self.lr * self.adamw.lr, ..*update }
    }

    /// The direction of the momentum `.. ` as the weight's shape, and the factor on the rate.
    fn direction(&self, momentum: &Tensor) -> Result<(Tensor, f64)> {
        let matrix = momentum.detach().flatten_from(1)?; // N M: a kernel's inputs and places side by side
        let (n, m) = matrix.dims2()?;
        let (n, m) = (n as f64, m as f64);
        let factor = match self.scale {
            MuonScale::Original => (n / m).max(1.0).sqrt(),
            MuonScale::MatchRmsAdamw => 0.2 * n.max(m).sqrt(),
        };
        Ok((orthogonal(&matrix, self.iterations)?.reshape(momentum.shape())?, factor))
    }
}

/// A matrix `N M` with its singular values brought to about one, between 0.5 and 1.5.
fn orthogonal(matrix: &Tensor, iterations: usize) -> Result<Tensor> {
    let (n, m) = matrix.dims2()?;
    let mut x = if n > m { matrix.t()?.contiguous()? } else { matrix.clone() };
    let norm = x.sqr()?.sum_all()?.sqrt()?.maximum(1e-7)?;
    x = x.broadcast_div(&norm)?;
    let [a, b, c] = QUINTIC;
    for _ in 0..iterations {
        let gram = matmul(&x, &x.t()?)?;
        let terms = ((&gram * b)? + (matmul(&gram, &gram)? * c)?)?;
        x = ((&x * a)? + matmul(&terms, &x)?)?;
    }
    if n > m { x.t()?.contiguous() } else { Ok(x) }
}

impl Rule for Muon {
    fn fresh(&self, p: &Trained) -> Result<Vec<(&'static str, Tensor)>> {
        match self.orthogonalises(p) {
            true => Ok(vec![("momentum", Tensor::zeros(p.var.shape(), DType::F32, p.var.device())?)]),
            false => self.adamw.fresh(p),
        }
    }

    fn fused(&self, weight: &Var, grad: &Tensor, state: &[Var], update: &Update) -> Result<()> {
        let [momentum] = state else { return self.adamw.fused(weight, grad, state, &self.of_adamw(update)) };
        let (beta, new) = (self.momentum as f32, (1.0 - self.momentum) as f32);
        let ahead = Tensor::zeros(weight.shape(), DType::F32, weight.device())?;
        inplace::chunks([momentum, &ahead], grad, |[momentum, ahead], grad| {
            for ((m, u), g) in momentum.iter_mut().zip(ahead).zip(grad) {
                *m += new * (g - *m);
                *u = g + beta * (*m - g);
            }
        })?;
        let (step, factor) = self.direction(&ahead)?;
        let (kept, rate) = (update.kept(self.weight_decay) as f32, (update.lr * factor) as f32);
        inplace::chunks([weight], &step, |[weight], step| {
            weight.iter_mut().zip(step).for_each(|(w, u)| *w = kept * *w - rate * u);
        })?;
        Ok(())
    }

    fn composed(&self, weight: &Var, grad: &Tensor, state: &[Var], update: &Update) -> Result<()> {
        let [momentum] = state else { return self.adamw.composed(weight, grad, state, &self.of_adamw(update)) };
        let grad = grad.to_dtype(DType::F32)?;
        let between = |from: &Tensor, to: &Tensor, share: f64| from + ((to - from)? * share)?;
        momentum.set(&between(momentum, &grad, 1.0 - self.momentum)?.detach())?;
        let (step, factor) = self.direction(&between(&grad, momentum, self.momentum)?)?;
        let kept = (weight.as_tensor() * update.kept(self.weight_decay))?;
        weight.set(&(kept - (step * (update.lr * factor))?)?.detach())
    }
}

register!(Optimizer, "muon", Muon, aliases = ["Muon"]);

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use sconce_nn::rng::Stream;

    #[test]
    fn singular_values_come_near_one() -> Result<()> {
        for (n, m) in [(6, 20), (20, 6), (9, 9)] {
            let x = orthogonal(&Stream::new(3, "matrix").normal((n, m), &Device::Cpu)?, 5)?;
            let gram = if n > m { x.t()?.matmul(&x)? } else { x.matmul(&x.t()?)? }.to_vec2::<f32>()?;
            // Eigenvalues lie in Gershgorin's discs; their mean is the trace's.
            let mean = (0..gram.len()).map(|i| gram[i][i]).sum::<f32>() / gram.len() as f32;
            assert!((0.5..1.3).contains(&mean), "{n} x {m}: mean squared singular value {mean}");
        }
        Ok(())
    }
}
