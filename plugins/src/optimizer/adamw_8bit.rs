//! AdamW whose two moments take a byte each (Dettmers et al. 2022, "8-bit optimizers via block-wise quantization"): a
//! quarter of AdamW's state. Each block of 256 is widened, updated and narrowed again in one pass; small tensors, which
//! save little and matter much, keep f32.

use candle_core::{Result, Tensor, Var};
use rayon::prelude::*;
use sconce_core::optimizer::{Each, Optimizer, OptimizerState, Rule, Trained, Update};
use sconce_nn::inplace;
use sconce_sdk::prelude::*;

use super::AdamW;
use super::blockwise::{self, BLOCK, SIGNED, UNSIGNED};

/// AdamW with a byte for each number of its state (Dettmers et al. 2022).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdamW8Bit {
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
    /// Tensors of fewer numbers keep f32.
    pub smallest: usize,
}

impl Default for AdamW8Bit {
    fn default() -> Self {
        let AdamW { lr, beta1, beta2, eps, weight_decay } = AdamW::default();
        Self { lr, beta1, beta2, eps, weight_decay, smallest: 4096 }
    }
}

impl AdamW8Bit {
    /// The same with f32 state.
    fn wide(&self) -> AdamW {
        let Self { lr, beta1, beta2, eps, weight_decay, .. } = *self;
        AdamW { lr, beta1, beta2, eps, weight_decay }
    }
}

impl Optimizer for AdamW8Bit {
    fn lr(&self) -> f64 {
        self.lr
    }

    fn start(&self, params: Vec<Trained>) -> Result<Box<dyn OptimizerState>> {
        Each::start(self.clone(), params)
    }
}

impl Rule for AdamW8Bit {
    fn fresh(&self, p: &Trained) -> Result<Vec<(&'static str, Tensor)>> {
        if p.var.elem_count() < self.smallest {
            return self.wide().fresh(p);
        }
        let ([mean, mean_largest], [square, square_largest]) = (blockwise::zeros(&p.var)?, blockwise::zeros(&p.var)?);
        Ok(vec![("mean", mean), ("mean_largest", mean_largest), ("square", square), ("square_largest", square_largest)])
    }

    fn fused(&self, weight: &Var, grad: &Tensor, state: &[Var], update: &Update) -> Result<()> {
        let [mean, mean_largest, square, square_largest] = state else {
            return self.wide().fused(weight, grad, state, update);
        };
        let (b1, b2, eps) = (self.beta1 as f32, self.beta2 as f32, self.eps as f32);
        let (new1, new2) = ((1.0 - self.beta1) as f32, (1.0 - self.beta2) as f32);
        let kept = update.kept(self.weight_decay) as f32;
        let rate = (update.lr / update.correction(self.beta1)) as f32;
        let root = (1.0 / update.correction(self.beta2).sqrt()) as f32;
        let block =
            |mean: &mut [u8], ml: &mut f32, square: &mut [u8], sl: &mut f32, weight: &mut [f32], grad: &[f32]| {
                let (mut m, mut v) = ([0f32; BLOCK], [0f32; BLOCK]);
                let (m, v) = (&mut m[..grad.len()], &mut v[..grad.len()]);
                for (i, (w, g)) in weight.iter_mut().zip(grad).enumerate() {
                    m[i] = b1 * (SIGNED.value(mean[i]) * *ml) + new1 * g;
                    v[i] = b2 * (UNSIGNED.value(square[i]) * *sl) + new2 * (g * g);
                    *w = kept * *w - rate * m[i] / (v[i].sqrt() * root + eps);
                }
                *ml = SIGNED.write(m, mean);
                *sl = UNSIGNED.write(v, square);
            };
        inplace::whole(
            [mean_largest, square_largest, weight],
            grad,
            |[mean_largest, square_largest, weight], grad| {
                inplace::memory(mean, |mean: &mut [u8]| {
                    inplace::memory(square, |square: &mut [u8]| {
                        let moments =
                            (mean.par_chunks_mut(BLOCK), mean_largest, square.par_chunks_mut(BLOCK), square_largest);
                        let all = moments.into_par_iter().zip((weight.par_chunks_mut(BLOCK), grad.par_chunks(BLOCK)));
                        all.with_min_len(64).for_each(|((m, ml, s, sl), (w, g))| block(m, ml, s, sl, w, g));
                    })
                })
            },
        )??
    }

    fn composed(&self, weight: &Var, grad: &Tensor, state: &[Var], update: &Update) -> Result<()> {
        let [mean, mean_largest, square, square_largest] = state else {
            return self.wide().composed(weight, grad, state, update);
        };
        let moments = [
            Var::from_tensor(&SIGNED.read_on(mean, mean_largest)?)?,
            Var::from_tensor(&UNSIGNED.read_on(square, square_largest)?)?,
        ];
        self.wide().composed(weight, grad, &moments, update)?;
        SIGNED.write_on(&moments[0], mean, mean_largest)?;
        UNSIGNED.write_on(&moments[1], square, square_largest)
    }
}

register!(Optimizer, "adamw-8bit", AdamW8Bit, aliases = ["adamw8bit", "adamw_8bit", "AdamW8bit"]);
