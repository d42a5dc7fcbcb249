//! The convolution layer.

use candle_core::{Result, Tensor};

use super::{Adapted, Shape};
use crate::ops::Conv;
use crate::store::{Init, Scope};

/// A 2-D convolution with a square kernel and a bias, from `B I H W` to `B O H' W'`.
#[derive(Clone)]
pub struct Conv2d(Adapted);

impl Conv2d {
    /// A convolution of `kernel` x `kernel`.
    pub fn new(scope: &Scope, input: usize, output: usize, kernel: usize, conv: Conv) -> Result<Self> {
        Self::build(scope, input, output, kernel, conv, true)
    }

    /// Without a bias.
    pub fn no_bias(scope: &Scope, input: usize, output: usize, kernel: usize, conv: Conv) -> Result<Self> {
        Self::build(scope, input, output, kernel, conv, false)
    }

    fn build(scope: &Scope, input: usize, output: usize, kernel: usize, conv: Conv, bias: bool) -> Result<Self> {
        let init = Init::FanIn(input * kernel * kernel);
        let weight = scope.param("weight", (output, input, kernel, kernel), init)?;
        let bias = bias.then(|| scope.param("bias", output, init)).transpose()?;
        Ok(Self(Adapted::new(scope, Shape::Conv { input, output, kernel, conv }, weight, bias)))
    }

    /// `B I H W` to `B O H' W'`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }
}
