//! One pass of a plugin's network: what it is told, what it answers, and its gradients.

use std::sync::{Arc, Mutex};

use candle_core::{Error, Result, Tensor, TensorId, bail};
use sconce_nn::function::trains;

/// A tensor with its name.
pub type Named = (String, Tensor);

/// What a gradient is of, name and shape; `None` where none is wanted.
pub type Room = Option<(String, Vec<usize>)>;

/// The memory that a network works in, and how tensors come there.
pub trait Side: Send + Sync {
    /// Whether that is the machine's.
    fn by_host(&self) -> bool;

    /// Tells the network a parameter.
    fn tell(&self, i: usize, param: &Tensor) -> Result<()>;

    /// The output for the inputs, in f32, of the first one's shape; where `keep`, with what its gradients need.
    fn ask(&self, inputs: &[Named], keep: bool) -> Result<(Tensor, Option<Box<dyn Kept>>)>;
}

/// What a network kept of a pass.
pub trait Kept: Send {
    /// The gradients that there is room for, in f32, of which the first `inputs` are the inputs' and the rest the parameters'.
    fn backward(&mut self, d_out: &Tensor, rooms: &[Room], inputs: usize) -> Result<Vec<Option<Tensor>>>;
}

/// An error with whose it is.
pub fn fault(what: String) -> Error {
    Error::Msg(format!("the backbone: {what}"))
}

/// The tensor where `other` is, of its type.
pub fn like(tensor: &Tensor, other: &Tensor) -> Result<Tensor> {
    tensor.to_dtype(other.dtype())?.to_device(other.device())
}

/// A network with what it is asked: inputs, and parameters as they are when it is.
pub struct Pass {
    /// Where the network is.
    pub side: Arc<dyn Side>,
    /// Held while the network is asked: which frozen parameters it was told.
    pub told: Arc<Mutex<Vec<Option<TensorId>>>>,
    /// In the network's order, outside of any graph.
    pub inputs: Vec<Named>,
    /// In the network's order.
    pub params: Vec<Named>,
}

impl Pass {
    /// The output, with nothing kept.
    pub fn forward(&self) -> Result<Tensor> {
        Ok(self.ask(false)?.0)
    }

    /// The output, and what its gradients need.
    pub fn record(&self) -> Result<(Tensor, Box<dyn Kept>)> {
        match self.ask(true)? {
            (out, Some(kept)) => Ok((out, kept)),
            _ => bail!("the backbone kept nothing of a pass to be trained by"),
        }
    }

    fn ask(&self, keep: bool) -> Result<(Tensor, Option<Box<dyn Kept>>)> {
        let mut told = self.told.lock().unwrap_or_else(|e| e.into_inner());
        for (i, ((_, param), told)) in self.params.iter().zip(told.iter_mut()).enumerate() {
            // What trains changes in place, and is told each time.
            if *told != Some(param.id()) {
                self.side.tell(i, param)?;
                *told = (!trains(param)).then(|| param.id());
            }
        }
        let (out, kept) = self.side.ask(&self.inputs, keep)?;
        finite(&out)?;
        Ok((like(&out, &self.inputs[0].1)?, kept))
    }

    /// The gradients of those of `all`, inputs and parameters, that train, from that of the output.
    pub fn backward(&self, kept: &mut dyn Kept, d_out: &Tensor, all: &[Tensor]) -> Result<Vec<Option<Tensor>>> {
        let _told = self.told.lock().unwrap_or_else(|e| e.into_inner());
        let names = self.inputs.iter().chain(&self.params).map(|(name, _)| name);
        let room = |(tensor, name): (&Tensor, &String)| trains(tensor).then(|| (name.clone(), tensor.dims().to_vec()));
        let rooms: Vec<Room> = all.iter().zip(names).map(room).collect();
        let gradients = kept.backward(d_out, &rooms, self.inputs.len())?;
        gradients.into_iter().zip(all).map(|(gradient, t)| gradient.map(|g| like(&g, t)).transpose()).collect()
    }
}

/// Fails at the first number that is none. Of a GPU's tensor one number is fetched where all are well.
fn finite(out: &Tensor) -> Result<()> {
    if !out.device().is_cpu() && (out * 0.0)?.sum_all()?.to_scalar::<f32>()? == 0.0 {
        return Ok(());
    }
    let numbers = out.flatten_all()?.to_vec1::<f32>()?;
    match numbers.iter().position(|v| !v.is_finite()) {
        Some(i) => Err(fault(format!("its output is {} at element {i}", numbers[i]))),
        None => Ok(()),
    }
}
