//! A named parameter: a variable that trains, or a weight that does not, in whichever form it is held.

use std::sync::{Arc, RwLock};

use candle_core::{DType, Device, Result, Shape, Tensor, Var, bail};

use crate::held::Held;

/// A parameter. Clones share the value.
#[derive(Clone)]
pub struct Param(Arc<Inner>);

struct Inner {
    name: String,
    value: RwLock<Value>,
}

enum Value {
    Frozen(Held),
    Trains(Var),
}

impl Param {
    /// A frozen parameter.
    pub fn new(name: impl Into<String>, value: Tensor) -> Self {
        Self::held(name, Held::Dense(value))
    }

    /// A frozen parameter in any form.
    pub fn held(name: impl Into<String>, held: Held) -> Self {
        Self(Arc::new(Inner { name: name.into(), value: RwLock::new(Value::Frozen(held)) }))
    }

    /// The path in the model, as in its weight file: `down_blocks.0.resnets.0.conv1.weight`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The value on its device, part of the graph where it trains. A packed or hosted one is made each time: in
    /// operations, use [`Param::frozen`].
    ///
    /// # Errors
    /// If its store has let go of it.
    pub fn tensor(&self) -> Result<Tensor> {
        self.look(|value| match value {
            Value::Frozen(held) => held.tensor().map_err(|e| e.context(self.name().to_owned())),
            Value::Trains(var) => Ok(var.as_tensor().clone()),
        })
    }

    /// The form that it is held in; `None` where it trains.
    pub fn frozen(&self) -> Option<Held> {
        self.look(|value| match value {
            Value::Frozen(held) => Some(held.clone()),
            Value::Trains(_) => None,
        })
    }

    /// Its shape.
    pub fn shape(&self) -> Shape {
        self.look(|value| match value {
            Value::Frozen(held) => held.shape().clone(),
            Value::Trains(var) => var.shape().clone(),
        })
    }

    /// Where it is used.
    pub fn device(&self) -> Device {
        self.look(|value| match value {
            Value::Frozen(held) => held.device().clone(),
            Value::Trains(var) => var.device().clone(),
        })
    }

    /// The variable, where it trains.
    pub fn var(&self) -> Option<Var> {
        self.look(|value| match value {
            Value::Frozen(_) => None,
            Value::Trains(var) => Some(var.clone()),
        })
    }

    /// Makes it a variable, with an f32 master value whatever the stored type was.
    pub fn train(&self) -> Result<Var> {
        self.train_as(DType::F32)
    }

    /// Makes it a variable of type `dtype`.
    pub fn train_as(&self, dtype: DType) -> Result<Var> {
        let mut value = self.0.value.write().expect("no writer panics");
        let var = match &*value {
            Value::Trains(var) => var.clone(),
            Value::Frozen(held) => Var::from_tensor(&held.tensor()?.to_dtype(dtype)?.contiguous()?)?,
        };
        *value = Value::Trains(var.clone());
        Ok(var)
    }

    /// Replaces the value; the shape must stay.
    ///
    /// # Errors
    /// If the shapes differ, or the value is packed, hosted or let go of.
    pub fn set(&self, tensor: &Tensor) -> Result<()> {
        if &self.shape() != tensor.shape() {
            bail!("`{}` has shape {:?}, the new value {:?}", self.name(), self.shape(), tensor.shape());
        }
        let mut value = self.0.value.write().expect("no writer panics");
        match &*value {
            Value::Trains(var) => var.set(&tensor.to_dtype(var.dtype())?.to_device(var.device())?.contiguous()?)?,
            Value::Frozen(Held::Dense(old)) => {
                *value = Value::Frozen(Held::Dense(tensor.to_device(old.device())?));
            }
            Value::Frozen(_) => bail!("`{}` is not held as it is: its value cannot be replaced", self.name()),
        }
        Ok(())
    }

    /// Holds a frozen value in another form.
    pub(crate) fn hold(&self, held: Held) {
        let mut value = self.0.value.write().expect("no writer panics");
        if let Value::Frozen(old) = &mut *value {
            *old = held;
        }
    }

    fn look<R>(&self, f: impl FnOnce(&Value) -> R) -> R {
        f(&self.0.value.read().expect("no writer panics"))
    }
}
