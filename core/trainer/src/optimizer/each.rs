//! Optimizers that update each parameter from its own gradient and state alone, which is most of them: a plugin writes
//! the rule of one parameter, and saving, restoring, groups, bf16 weights and updates inside the backward pass follow.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor, Var, bail};

use super::{At, OptimizerState, Trained};

/// How one parameter follows its gradient.
pub trait Rule: Clone + Send + Sync + 'static {
    /// The state of a parameter before its first update, by name: the names are those in a checkpoint.
    fn fresh(&self, p: &Trained) -> Result<Vec<(&'static str, Tensor)>>;

    /// One update on the CPU, in place. `weight` is f32, `state` in the order of [`Rule::fresh`].
    fn fused(&self, weight: &Var, grad: &Tensor, state: &[Var], update: &Update) -> Result<()>;

    /// The same with the device's own operations.
    fn composed(&self, weight: &Var, grad: &Tensor, state: &[Var], update: &Update) -> Result<()>;

    /// The value to look at and to keep, where it is not the one that trains.
    fn averaged(&self, _weight: &Tensor, _state: &[Var]) -> Result<Option<Tensor>> {
        Ok(None)
    }
}

/// The scalars of one update of one parameter.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// The learning rate, with the schedule's and the group's factors.
    pub lr: f64,
    /// In place of the optimizer's own weight decay.
    pub weight_decay: Option<f64>,
    /// Which update of this parameter it is, from 1.
    pub count: u64,
}

impl Update {
    /// What decoupled weight decay leaves of a weight: 1 - lr · decay.
    pub fn kept(&self, weight_decay: f64) -> f64 {
        1.0 - self.lr * self.weight_decay.unwrap_or(weight_decay)
    }

    /// 1 - beta^count: the share of a running mean that is not its start at zero.
    pub fn correction(&self, beta: f64) -> f64 {
        1.0 - beta.powf(self.count as f64)
    }
}

/// A [`Rule`] on every parameter.
pub struct Each<R> {
    rule: R,
    params: Vec<Trained>,
    states: Vec<State>,
}

/// The state of one parameter, and how often it was updated (one that gets no gradient stays behind).
struct State {
    names: Vec<&'static str>,
    vars: Vec<Var>,
    updates: u64,
}

impl<R: Rule> Each<R> {
    /// At its start.
    pub fn start(rule: R, params: Vec<Trained>) -> Result<Box<dyn OptimizerState>> {
        let state = |p: &Trained| {
            let (names, values): (Vec<_>, Vec<_>) = rule.fresh(p)?.into_iter().unzip();
            let vars = values.iter().map(Var::from_tensor).collect::<Result<_>>()?;
            Ok(State { names, vars, updates: 0 })
        };
        let states = params.iter().map(state).collect::<Result<_>>()?;
        Ok(Box::new(Self { rule, params, states }))
    }
}

impl<R: Rule> OptimizerState for Each<R> {
    fn update(&mut self, index: usize, grad: &Tensor, at: &At) -> Result<()> {
        let (Some(p), Some(state)) = (self.params.get(index), self.states.get_mut(index)) else {
            bail!("a gradient for parameter {index}, of which there are {}", self.params.len());
        };
        state.updates += 1;
        let update = Update { lr: at.lr * p.lr_factor, weight_decay: p.weight_decay, count: state.updates };
        p.widened(at, |weight| match weight.device().is_cpu() {
            true => self.rule.fused(weight, grad, &state.vars, &update),
            false => self.rule.composed(weight, grad, &state.vars, &update),
        })
    }

    fn averaged(&self) -> Result<Option<Vec<Tensor>>> {
        let one = |(p, state): (&Trained, &State)| self.rule.averaged(p.var.as_tensor(), &state.vars).transpose();
        let all: Vec<Tensor> = self.params.iter().zip(&self.states).filter_map(one).collect::<Result<_>>()?;
        Ok((!all.is_empty()).then_some(all))
    }

    fn save(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut saved = BTreeMap::new();
        for (p, state) in self.params.iter().zip(&self.states) {
            for (name, var) in state.names.iter().zip(&state.vars) {
                saved.insert(format!("{}.{name}", p.name), var.as_tensor().clone());
            }
            saved.insert(format!("{}.updates", p.name), Tensor::new(state.updates as i64, p.var.device())?);
        }
        Ok(saved)
    }

    fn restore(&mut self, saved: &BTreeMap<String, Tensor>) -> Result<()> {
        for (p, state) in self.params.iter().zip(&mut self.states) {
            let get = |name: &str| match saved.get(&format!("{}.{name}", p.name)) {
                Some(t) => Ok(t),
                None => bail!("the checkpoint has no optimizer state `{name}` for `{}`", p.name),
            };
            for (name, var) in state.names.iter().zip(&state.vars) {
                var.set(&get(name)?.to_dtype(var.dtype())?.to_device(var.device())?)?;
            }
            state.updates = get("updates")?.to_scalar::<i64>()?.unsigned_abs();
        }
        Ok(())
    }
}
