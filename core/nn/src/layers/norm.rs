//! Normalisation layers with affine weights.

use candle_core::{Result, Tensor};

use crate::ops::norm;
use crate::store::{Init, Param, Scope};

/// Group normalisation (Wu & He 2018) over `B C ..`.
#[derive(Clone)]
pub struct GroupNorm {
    groups: usize,
    eps: f64,
    weight: Param,
    bias: Param,
}

impl GroupNorm {
    /// `channels` in `groups`.
    pub fn new(scope: &Scope, groups: usize, channels: usize, eps: f64) -> Result<Self> {
        let weight = scope.param("weight", channels, Init::Ones)?;
        let bias = scope.param("bias", channels, Init::Zeros)?;
        Ok(Self { groups, eps, weight, bias })
    }

    /// `B C ..` to the same.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        norm::group_norm(x, self.groups, Some(&self.weight.tensor()?), Some(&self.bias.tensor()?), self.eps)
    }

    /// The norm and a SiLU after it, in one pass.
    pub fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        norm::group_norm_silu(x, self.groups, Some(&self.weight.tensor()?), Some(&self.bias.tensor()?), self.eps)
    }
}

/// Layer normalisation (Ba et al. 2016) over the last dimension.
#[derive(Clone)]
pub struct LayerNorm {
    eps: f64,
    weight: Param,
    bias: Param,
}

impl LayerNorm {
    /// Over the last `size` values.
    pub fn new(scope: &Scope, size: usize, eps: f64) -> Result<Self> {
        let weight = scope.param("weight", size, Init::Ones)?;
        let bias = scope.param("bias", size, Init::Zeros)?;
        Ok(Self { eps, weight, bias })
    }

    /// `.. D` to the same.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        norm::layer_norm(x, Some(&self.weight.tensor()?), Some(&self.bias.tensor()?), self.eps)
    }
}

/// Root-mean-square normalisation (Zhang & Sennrich 2019) over the last dimension.
#[derive(Clone)]
pub struct RmsNorm {
    eps: f64,
    weight: Param,
}

impl RmsNorm {
    /// Over the last `size` values.
    pub fn new(scope: &Scope, size: usize, eps: f64) -> Result<Self> {
        Ok(Self { eps, weight: scope.param("weight", size, Init::Ones)? })
    }

    /// `.. D` to the same.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        norm::rms_norm(x, Some(&self.weight.tensor()?), self.eps)
    }

    /// `.. H*D` to the same, each head of width D by itself.
    pub fn forward_heads(&self, x: &Tensor) -> Result<Tensor> {
        let width = self.weight.shape().dims1()?;
        self.forward(&x.reshape(((), width))?)?.reshape(x.shape())
    }
}
