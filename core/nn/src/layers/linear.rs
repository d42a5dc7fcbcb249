//! The linear layer.

use candle_core::{Result, Tensor};

use super::{Adapted, Shape};
use crate::store::{Init, Scope};

/// `y = x Wᵀ + b`, from `.. I` to `.. O`.
#[derive(Clone)]
pub struct Linear(Adapted);

impl Linear {
    /// With a bias.
    pub fn new(scope: &Scope, input: usize, output: usize) -> Result<Self> {
        Self::build(scope, input, output, Some(Init::FanIn(input)), Init::FanIn(input))
    }

    /// With a bias, and all zeros where no file gives the values: the last map of a branch that begins as nothing.
    pub fn zero(scope: &Scope, input: usize, output: usize) -> Result<Self> {
        Self::build(scope, input, output, Some(Init::Zeros), Init::Zeros)
    }

    /// Without a bias.
    pub fn no_bias(scope: &Scope, input: usize, output: usize) -> Result<Self> {
        Self::build(scope, input, output, None, Init::FanIn(input))
    }

    fn build(scope: &Scope, input: usize, output: usize, bias: Option<Init>, init: Init) -> Result<Self> {
        let weight = scope.matrix("weight", (output, input), init)?;
        let bias = bias.map(|init| scope.param("bias", output, init)).transpose()?;
        Ok(Self(Adapted::new(scope, Shape::Linear { input, output }, weight, bias)))
    }

    /// `.. I` to `.. O`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }
}
