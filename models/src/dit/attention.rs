//! Attention over several sequences as though they were one, each with projections of its own.

use candle_core::{Result, Tensor};
use sconce_nn::ops::attention::attention_heads;
use sconce_nn::ops::{self, Mask};
use sconce_nn::{Linear, RmsNorm, Scope};

use super::modulation::EPS;
use super::rotary::Rotary;

/// Heads, and whether queries and keys are normed in each.
#[derive(Clone, Copy, Debug)]
pub struct Attends {
    /// Heads.
    pub heads: usize,
    /// Width of a head.
    pub head: usize,
    /// Root-mean-square norms of queries and keys, which keep scores from growing (Esser et al. 2024, section 5.3.2).
    pub qk_norm: QkNorm,
}

/// Whether queries and keys are normed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// By head.
    Rms,
    /// Not at all.
    None,
}

impl Attends {
    /// Width of all heads.
    pub fn width(&self) -> usize {
        self.heads * self.head
    }

    /// Attends over the sequences one after the other: B L D in all. A rotation is for them in this order.
    pub fn over(&self, parts: &[[Tensor; 3]], rotary: Option<&Rotary>) -> Result<Tensor> {
        let join = |i: usize| match parts {
            [one] => Ok(one[i].clone()),
            _ => Tensor::cat(&parts.iter().map(|part| &part[i]).collect::<Vec<_>>(), 1),
        };
        let (mut q, mut k, v) = (join(0)?, join(1)?, join(2)?);
        if let Some(Rotary { cos, sin }) = rotary {
            (q, k) = (ops::rotary(&q, cos, sin)?, ops::rotary(&k, cos, sin)?);
        }
        attention_heads(&q, &k, &v, self.heads, &Mask::None)
    }
}

/// One sequence's queries, keys and values.
#[derive(Clone)]
pub struct Projections {
    maps: [Linear; 3],
    norms: Option<[RmsNorm; 2]>,
}

impl Projections {
    /// Of rows of `width`; `maps` and `norms` are their names at `scope`.
    pub fn new(scope: &Scope, maps: [&str; 3], norms: [&str; 2], width: usize, attends: &Attends) -> Result<Self> {
        let [q, k, v] = maps.map(|name| Linear::new(&scope.at(name), width, attends.width()));
        let norms = match attends.qk_norm {
            QkNorm::Rms => {
                let [q, k] = norms.map(|name| RmsNorm::new(&scope.at(name), attends.head, EPS));
                Some([q?, k?])
            }
            QkNorm::None => None,
        };
        Ok(Self { maps: [q?, k?, v?], norms })
    }

    /// Of the picture, or of all.
    pub fn own(scope: &Scope, width: usize, attends: &Attends) -> Result<Self> {
        Self::new(scope, ["to_q", "to_k", "to_v"], ["norm_q", "norm_k"], width, attends)
    }

    /// Of the text beside it.
    pub fn added(scope: &Scope, width: usize, attends: &Attends) -> Result<Self> {
        let maps = ["add_q_proj", "add_k_proj", "add_v_proj"];
        Self::new(scope, maps, ["norm_added_q", "norm_added_k"], width, attends)
    }

    /// B L D to queries, keys and values, B L H*D each.
    pub fn forward(&self, x: &Tensor) -> Result<[Tensor; 3]> {
        let [q, k, v] = &self.maps;
        let (q, k, v) = (q.forward(x)?, k.forward(x)?, v.forward(x)?);
        Ok(match &self.norms {
            Some([norm_q, norm_k]) => [norm_q.forward_heads(&q)?, norm_k.forward_heads(&k)?, v],
            None => [q, k, v],
        })
    }
}
