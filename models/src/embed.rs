//! The embedding of numbers (times, picture sizes, guidance) that every block sees: waves of geometrically falling frequency,
//! computed in f32 whatever the model's type, since in half precision neighbouring times become one.

use candle_core::{D, DType, Result, Tensor};
use sconce_nn::{Linear, Scope, ops};

/// The longest period of the waves, over 2 pi (Vaswani et al. 2017, section 3.5).
const MAX_PERIOD: f64 = 10_000.0;

/// The sinusoidal embedding's two conventions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Waves {
    /// Cosines before sines.
    pub cosine_first: bool,
    /// Taken off the number of frequencies in the exponent's divisor.
    pub shift: f64,
}

impl Waves {
    /// Numbers `N` to waves `N width`, in f32.
    pub fn of(self, numbers: &Tensor, width: usize) -> Result<Tensor> {
        let half = width / 2;
        let step = -MAX_PERIOD.ln() / (half as f64 - self.shift);
        let frequencies: Vec<f32> = (0..half).map(|i| (step * i as f64).exp() as f32).collect();
        let frequencies = Tensor::from_vec(frequencies, (1, half), numbers.device())?;
        let angles = numbers.to_dtype(DType::F32)?.reshape(((), 1))?.broadcast_mul(&frequencies)?; // N half
        let (sin, cos) = (angles.sin()?, angles.cos()?);
        let waves = match self.cosine_first {
            true => Tensor::cat(&[cos, sin], D::Minus1)?,
            false => Tensor::cat(&[sin, cos], D::Minus1)?,
        };
        if width % 2 == 1 { waves.pad_with_zeros(D::Minus1, 0, 1) } else { Ok(waves) }
    }
}

/// Two linear layers with a SiLU between.
#[derive(Clone)]
pub struct Mlp {
    linear_1: Linear,
    linear_2: Linear,
}

impl Mlp {
    /// From `input` to `width`.
    pub fn new(scope: &Scope, input: usize, width: usize) -> Result<Self> {
        Ok(Self {
            linear_1: Linear::new(&scope.at("linear_1"), input, width)?,
            linear_2: Linear::new(&scope.at("linear_2"), width, width)?,
        })
    }

    /// `B input` to `B width`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.linear_2.forward(&ops::silu(&self.linear_1.forward(x)?)?)
    }
}
