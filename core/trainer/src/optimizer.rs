//! Optimizers: object-safe, resumable to the bit, updating in place.

mod each;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, Var};
use sconce_nn::rng::Stream;
use sconce_nn::rounding;
use sconce_sdk::Kind;

pub use each::{Each, Rule, Update};

/// One trained tensor, with what its group says about it.
#[derive(Clone)]
pub struct Trained {
    /// `component/path` of the parameter: the key of its state in a checkpoint.
    pub name: String,
    /// Its value: f32, or bf16 where updates are rounded stochastically.
    pub var: Var,
    /// Factor on the recipe's learning rate.
    pub lr_factor: f64,
    /// In place of the optimizer's own weight decay: what the group says, zero for biases and norms.
    pub weight_decay: Option<f64>,
}

impl Trained {
    /// A tensor that no group says anything about. Matrices and kernels decay, biases and norms do not.
    pub fn new(name: impl Into<String>, var: Var) -> Self {
        let weight_decay = (var.rank() < 2).then_some(0.0);
        Self { name: name.into(), var, lr_factor: 1.0, weight_decay }
    }

    /// Runs `f` on the value in f32. A value that is kept as bf16 is widened for it, and what `f` leaves is rounded
    /// stochastically, by random bits that are a function of (seed, name, images seen).
    pub fn widened(&self, at: &At, f: impl FnOnce(&Var) -> Result<()>) -> Result<()> {
        if self.var.dtype() == DType::F32 {
            return f(&self.var);
        }
        let wide = Var::from_tensor(&self.var.as_tensor().detach().to_dtype(DType::F32)?)?;
        f(&wide)?;
        let random = Stream::new(at.seed, &format!("rounding {}", self.name)).at(at.images_seen, 0);
        self.var.set(&rounding::to_bf16(wide.as_tensor(), &random)?)
    }
}

/// The point of a run at which an update is made.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// The base learning rate times the schedule's factor.
    pub lr: f64,
    /// The run's seed.
    pub seed: u64,
    /// Pictures seen before the update.
    pub images_seen: u64,
}

/// How weights follow their gradients.
///
/// Laws: N updates, save, restore and N more are 2N updates, bit for bit; where parameters are updated apart, the order
/// does not matter; a parameter without a gradient stays; the state is as large as `state_bytes` says; a quadratic goes downhill.
pub trait Optimizer: Send + Sync {
    /// The base learning rate of the recipe.
    fn lr(&self) -> f64;

    /// The state for these parameters, at its start.
    fn start(&self, params: Vec<Trained>) -> Result<Box<dyn OptimizerState>>;

    /// Whether a parameter's update needs more than its own gradient, so that none can be made before all gradients are
    /// known: [`OptimizerState::update`] is then an error.
    fn needs(&self) -> Needs {
        Needs::OwnGradient
    }

    /// Bytes of state for a weight of this shape, counters aside: what the state saves is what it keeps.
    fn state_bytes(&self, dims: &[usize]) -> Result<usize> {
        let var = Var::zeros(dims, DType::F32, &Device::Cpu)?;
        let state = self.start(vec![Trained::new("weight", var)])?.save()?;
        let bytes = |t: &Tensor| if t.rank() == 0 { 0 } else { t.elem_count() * t.dtype().size_in_bytes() };
        Ok(state.values().map(bytes).sum())
    }
}

/// What the update of one parameter needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Its own gradient and state.
    OwnGradient,
    /// The gradients of all parameters.
    AllGradients,
}

/// A running optimizer.
pub trait OptimizerState: Send {
    /// Updates one parameter, by its place among those given to [`Optimizer::start`].
    fn update(&mut self, index: usize, grad: &Tensor, at: &At) -> Result<()>;

    /// Updates all. `grads` is aligned with the parameters; `None` leaves a parameter as it is.
    fn step(&mut self, grads: &[Option<Tensor>], at: &At) -> Result<()> {
        let with = grads.iter().enumerate().filter_map(|(i, grad)| Some((i, grad.as_ref()?)));
        with.into_iter().try_for_each(|(i, grad)| self.update(i, grad, at))
    }

    /// The weights to look at and to keep, in the parameters' order, where they are not those that train: previews,
    /// validation and the saved model use them.
    fn averaged(&self) -> Result<Option<Vec<Tensor>>> {
        Ok(None)
    }

    /// Everything needed to go on exactly, as named tensors.
    fn save(&self) -> Result<BTreeMap<String, Tensor>>;

    /// Takes it back.
    fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()>;
}

impl Kind for dyn Optimizer {
    const NAME: &'static str = "optimizer";
    const ABOUT: &'static str = "how weights follow their gradients";
}
