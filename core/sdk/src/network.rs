//! A denoiser with an engine of its own: forward and vector-Jacobian product over plain memory. What a library gives where it
//! cannot give tensors, since those of two copies of candle do not know each other; the trainer makes one node of its graph
//! of it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cuda::{Cuda, CudaNetwork};
use crate::noise::Noise;
use crate::registry::Kind;

/// A tensor in the machine's memory: row-major, f32.
#[derive(Clone, Copy, Debug)]
pub struct Buffer<'a> {
    /// What it is: `x`, `time`, or the name of a condition.
    pub name: &'a str,
    /// Its sides, the batch first.
    pub shape: &'a [usize],
    /// Its numbers, as many as the sides' product.
    pub data: &'a [f32],
}

/// A parameter of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in weight files.
    pub name: String,
    /// Its sides.
    pub shape: Vec<usize>,
}

impl Parameter {
    /// The number of its elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What a network is, before it is asked anything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Channels of the latents that it takes and gives.
    pub channels: usize,
    /// Sides of latents must be multiples of this.
    #[serde(default = "one")]
    pub side_multiple: usize,
    /// The conditions that it takes beside `x` and `time`, in the order in which it is given them.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// What it was trained as, as tables of a recipe: `schedule`, `objective`. Empty where it was not.
    #[serde(default)]
    pub native: Map<String, Value>,
}

fn one() -> usize {
    1
}

/// A tensor that conditions a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Its name: `context`, `pooled`.
    pub name: String,
    /// Its sides behind the batch's; 0 for one of any length.
    pub shape: Vec<usize>,
}

impl Condition {
    /// One of this name and these sides.
    pub fn of(name: &str, shape: &[usize]) -> Self {
        Self { name: name.to_owned(), shape: shape.to_vec() }
    }

    /// Fails for a tensor that is none, by its sides behind the batch's, 0 for any.
    pub fn takes(&self, sides: &[usize]) -> Result<(), String> {
        let fits = |(&asked, &side): (&usize, &usize)| asked == 0 || side == 0 || side == asked;
        match sides.len() == self.shape.len() && self.shape.iter().zip(sides).all(fits) {
            true => Ok(()),
            false => Err(format!(
                "the backbone takes a `{}` of {:?} (0 is any) for each picture, the text encoders give {sides:?}: set its \
                 sides in [backbone]",
                self.name, self.shape
            )),
        }
    }
}

/// The denoiser.
///
/// Laws: asked the same, it answers the same, to the bit; what is written to a parameter is read from it; the products are
/// those of the derivatives of what `record` gives.
pub trait Network: Send + Sync {
    /// What it is.
    fn about(&self) -> About;

    /// Its parameters, the same and in the same order as long as it lives.
    fn parameters(&self) -> Vec<Parameter>;

    /// The values of a parameter, counted as in `parameters`: those that it starts from, or what was written last.
    fn read(&self, parameter: usize, out: &mut [f32]) -> Result<(), String>;

    /// Sets the values of a parameter. Not while another thread asks the network.
    fn write(&self, parameter: usize, values: &[f32]) -> Result<(), String>;

    /// The network's own time for t in [0, 1], which is what the input `time` holds.
    fn time(&self, t: f64, _noise: &Noise) -> f64 {
        t
    }

    /// The output for `x` (B C H W), `time` (B), and the conditions in their order, which has the shape of `x`; and what the
    /// backward pass needs.
    fn record(&self, inputs: &[Buffer], out: &mut [f32]) -> Result<Box<dyn Tape>, String>;

    /// The same with nothing kept.
    fn forward(&self, inputs: &[Buffer], out: &mut [f32]) -> Result<(), String> {
        self.record(inputs, out).map(drop)
    }

    /// The network in the memory of a GPU, for a program that trains there. `None`: it works in the machine's memory, and its
    /// tensors are copied there and back for each pass.
    fn on_cuda(&self, _at: Cuda) -> Result<Option<Arc<dyn CudaNetwork>>, String> {
        Ok(None)
    }
}

/// What a network kept of one pass.
pub trait Tape: Send {
    /// From the gradient of the output to those that are wanted, each of which is overwritten. The parameters are still those
    /// of the pass.
    fn backward(&mut self, d_out: &[f32], wanted: &mut Gradients) -> Result<(), String>;
}

/// Room for gradients; `None` where none is wanted, in which case the work for it is saved.
#[derive(Debug, Default)]
pub struct Gradients<'a> {
    /// In the inputs' order.
    pub inputs: Vec<Option<&'a mut [f32]>>,
    /// In the parameters' order.
    pub parameters: Vec<Option<&'a mut [f32]>>,
}

impl Kind for dyn Network {
    const NAME: &'static str = "backbone";
    const ABOUT: &'static str = "another denoiser in the place of a model's own";
}
