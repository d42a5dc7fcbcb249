//! One vector a sample of everything that is no sequence: the time, the guidance scale where the network knows one, and the
//! pooled text.

use candle_core::{DType, Result, Tensor, bail};
use sconce_core::Cond;
use sconce_nn::{Scope, ops};

use crate::embed::{Mlp, Waves};

/// Width of the waves that a number becomes.
const WAVES: usize = 256;
/// How.
const KIND: Waves = Waves { cosine_first: true, shift: 0.0 };

/// The embeddings, summed.
pub struct Embedding {
    time: Mlp,
    guidance: Option<Mlp>,
    text: Mlp,
}

/// Whether a network knows its guidance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guided {
    /// By an embedding of its scale.
    ByNumber,
    /// Not at all.
    No,
}

impl Embedding {
    /// To vectors of `width`, from pooled text of `pooled` numbers.
    pub fn new(scope: &Scope, width: usize, pooled: usize, guided: Guided) -> Result<Self> {
        let guidance = || Mlp::new(&scope.at("guidance_embedder"), WAVES, width);
        Ok(Self {
            time: Mlp::new(&scope.at("timestep_embedder"), WAVES, width)?,
            guidance: (guided == Guided::ByNumber).then(guidance).transpose()?,
            text: Mlp::new(&scope.at("text_embedder"), pooled, width)?,
        })
    }

    /// `time`: B, in thousandths. The result, B D, is after the SiLU that every modulation begins with.
    pub fn forward(&self, time: &Tensor, cond: &Cond, dtype: DType) -> Result<Tensor> {
        let waves = |numbers: &Tensor| KIND.of(numbers, WAVES)?.to_dtype(dtype);
        let mut all = self.time.forward(&waves(time)?)?;
        match (&self.guidance, cond.0.get("guidance")) {
            (Some(mlp), Some(scale)) => all = (all + mlp.forward(&waves(&(scale * 1000.0)?)?)?)?,
            (Some(_), None) => bail!("this model was distilled to know its guidance, and is told none"),
            (None, _) => {}
        }
        let pooled = cond.get("pooled")?.to_dtype(dtype)?;
        ops::silu(&(all + self.text.forward(&pooled)?)?)
    }
}
