//! A backbone of the other side's in the memory of a GPU, as a [`CudaNetwork`] of ours.

use std::ffi::c_void;
use std::sync::Arc;

use super::basic::SconceStatus;
use super::cuda::SconceCudaBackbone;
use super::foreign::{ABSENT, Foreign};
use super::foreign_network::ForeignNetwork;
use super::sink::SconceError;
use super::tensor::{Lent, SconceTensor};
use crate::cuda::{CudaBuffer, CudaGradients, CudaNetwork, CudaTape};
use crate::network::{Network, Parameter};

/// Which its tapes keep alive, as it keeps the network that it is of.
#[derive(Clone)]
pub(super) struct ForeignCuda(Arc<Inner>);

struct Inner {
    // Freed first.
    foreign: Foreign<SconceCudaBackbone>,
    parameters: Vec<Parameter>,
    _of: ForeignNetwork,
}

impl ForeignCuda {
    pub fn new(foreign: Foreign<SconceCudaBackbone>, of: ForeignNetwork) -> Self {
        Self(Arc::new(Inner { foreign, parameters: of.parameters(), _of: of }))
    }

    fn call(
        &self,
        function: &str,
        call: impl FnOnce(&SconceCudaBackbone, *mut c_void, *const SconceError) -> SconceStatus,
    ) -> Result<(), String> {
        self.0.foreign.try_call(call).map_err(|e| self.0.foreign.named(function, &e))
    }

    fn pass(&self, inputs: &[CudaBuffer], out: CudaBuffer, tape: *mut *mut c_void) -> Result<(), String> {
        if inputs.first().map(CudaBuffer::shape) != Some(out.shape()) {
            return Err(format!("the first input has not the shape {:?} of the output", out.shape()));
        }
        let inputs = Lent::of(inputs.iter().map(|input| Some(SconceTensor::on_cuda(input))));
        let answer = SconceTensor::on_cuda(&out);
        self.call("forward", |table, handle, error| match table.forward {
            // SAFETY: lists with their lengths, a tensor that may be written to, and the table's own handle.
            Some(f) => unsafe { f(handle, inputs.n(), inputs.list(), &raw const answer, tape, error) },
            None => ABSENT,
        })
    }
}

impl CudaNetwork for ForeignCuda {
    fn write(&self, parameter: usize, values: CudaBuffer) -> Result<(), String> {
        let tensor = SconceTensor::on_cuda(&values);
        self.call("write", |table, handle, error| match table.write {
            // SAFETY: a tensor that lives, and the table's own handle.
            Some(write) => unsafe { write(handle, parameter, &raw const tensor, error) },
            None => ABSENT,
        })
    }

    fn record(&self, inputs: &[CudaBuffer], out: CudaBuffer) -> Result<Box<dyn CudaTape>, String> {
        let mut tape = std::ptr::null_mut();
        self.pass(inputs, out, &raw mut tape)?;
        let shapes = inputs.iter().map(|input| input.shape().to_vec()).collect();
        Ok(Box::new(ForeignTape { network: self.clone(), tape, shapes }))
    }

    fn forward(&self, inputs: &[CudaBuffer], out: CudaBuffer) -> Result<(), String> {
        self.pass(inputs, out, std::ptr::null_mut())
    }
}

struct ForeignTape {
    network: ForeignCuda,
    tape: *mut c_void,
    /// Of the inputs.
    shapes: Vec<Vec<usize>>,
}

// SAFETY: the ABI asks that a tape may be passed from thread to thread; one at a time uses it.
unsafe impl Send for ForeignTape {}

impl Drop for ForeignTape {
    fn drop(&mut self) {
        if let Some(forget) = self.network.0.foreign.table().forget {
            self.network.0.foreign.with(|handle| {
                // SAFETY: the tape is one of this handle's, and nothing uses it after this.
                unsafe { forget(handle, self.tape) };
            });
        }
    }
}

impl CudaTape for ForeignTape {
    fn backward(&mut self, d_out: CudaBuffer, wanted: &CudaGradients) -> Result<(), String> {
        let parameters = &self.network.0.parameters;
        let (inputs, known) = (self.shapes.iter(), parameters.iter().map(|p| &p.shape));
        let rooms = || wanted.inputs.iter().zip(inputs).chain(wanted.parameters.iter().zip(known));
        if wanted.inputs.len() != self.shapes.len() || wanted.parameters.len() != parameters.len() {
            let [i, p] = [self.shapes.len(), parameters.len()];
            return Err(format!("there are {i} inputs and {p} parameters to want gradients of or not"));
        }
        let given = rooms().filter_map(|(room, shape)| Some((room.as_ref()?, shape)));
        let mut all = given.chain(std::iter::once((&d_out, &self.shapes[0])));
        if let Some((room, shape)) = all.find(|(room, shape)| room.shape() != &shape[..]) {
            return Err(format!("the gradient `{}` is of {:?}, not of {shape:?}", room.name(), room.shape()));
        }
        let lent = |rooms: &[Option<CudaBuffer>]| Lent::of(rooms.iter().map(|r| r.as_ref().map(SconceTensor::on_cuda)));
        let (d_inputs, d_parameters) = (lent(&wanted.inputs), lent(&wanted.parameters));
        let (given, tape) = (SconceTensor::on_cuda(&d_out), self.tape);
        self.network.call("backward", |table, handle, error| match table.backward {
            // SAFETY: lists with their lengths of tensors that may be written to, a tape of this handle's, and the table's
            // own handle.
            Some(f) => unsafe {
                let (i, p) = (d_inputs.n(), d_parameters.n());
                f(handle, tape, &raw const given, i, d_inputs.list(), p, d_parameters.list(), error)
            },
            None => ABSENT,
        })
    }
}
