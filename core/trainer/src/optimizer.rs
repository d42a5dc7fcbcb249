//! Optimizers: object-safe, resumable to the bit, updating in place.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor, Var};
use sconce_sdk::Kind;

/// One trained tensor, with what its group says about it.
#[derive(Clone)]
pub struct Trained {
    /// `component.path` of the parameter: the key of its state in a checkpoint.
    pub name: String,
    /// Its value.
    pub var: Var,
    /// Factor on the recipe's learning rate.
    pub lr_factor: f64,
    /// True for what weight decay applies to: matrices and kernels, not biases and norms.
    pub decays: bool,
}

/// How weights follow their gradients.
pub trait Optimizer: Send + Sync {
    /// The base learning rate of the recipe.
    fn lr(&self) -> f64;
    /// The state for these parameters, at its start.
    fn start(&self, params: Vec<Trained>) -> Result<Box<dyn OptimizerState>>;
}

/// A running optimizer.
pub trait OptimizerState: Send {
    /// One update. `grads` is aligned with the parameters; `None` leaves a parameter as it is. `lr` is the base rate
    /// times the schedule's factor.
    fn step(&mut self, grads: &[Option<Tensor>], lr: f64) -> Result<()>;
    /// Everything needed to go on exactly, as named tensors.
    fn save(&self) -> Result<BTreeMap<String, Tensor>>;
    /// Takes it back.
    fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()>;
}

impl Kind for dyn Optimizer {
    const NAME: &'static str = "optimizer";
    const ABOUT: &'static str = "how weights follow their gradients";
}
