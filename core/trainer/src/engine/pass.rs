//! One pass of a plugin's network: what it is told, what it answers, and its gradients, in the machine's memory.

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, DType, Device, Error, Result, Storage, Tensor, TensorId, bail};
use sconce_nn::function::trains;
use sconce_sdk::Network;
use sconce_sdk::network::{Buffer, Gradients, Tape};

/// An input in the machine's memory.
pub struct Input {
    name: String,
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl Input {
    /// The values of a tensor from anywhere.
    pub fn of(name: &str, tensor: &Tensor) -> Result<Self> {
        let shape = tensor.dims().to_vec();
        Ok(Self { name: name.to_owned(), shape, data: numbers(tensor)? })
    }
}

/// A tensor of these numbers, where `other` is, of its shape and type.
pub fn like(numbers: Vec<f32>, other: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(numbers, other.shape(), &Device::Cpu)?.to_dtype(other.dtype())?.to_device(other.device())
}

fn fault(what: String) -> Error {
    Error::Msg(format!("the backbone: {what}"))
}

fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.detach().to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// A network with what it is asked: inputs, and parameters as they are when it is.
pub struct Pass {
    /// The network.
    pub network: Arc<dyn Network>,
    /// Held while the network is asked: which frozen parameters it was told.
    pub told: Arc<Mutex<Vec<Option<TensorId>>>>,
    /// In the network's order.
    pub inputs: Vec<Input>,
    /// In the network's order.
    pub params: Vec<Tensor>,
}

impl Pass {
    /// The output, with nothing kept.
    pub fn forward(&self) -> Result<Vec<f32>> {
        self.ask(|inputs, out| self.network.forward(inputs, out)).map(|(out, ())| out)
    }

    /// The output, and what its gradients need.
    pub fn record(&self) -> Result<(Vec<f32>, Box<dyn Tape>)> {
        self.ask(|inputs, out| self.network.record(inputs, out))
    }

    fn ask<T>(
        &self,
        call: impl FnOnce(&[Buffer], &mut [f32]) -> std::result::Result<T, String>,
    ) -> Result<(Vec<f32>, T)> {
        let mut told = self.told.lock().unwrap_or_else(|e| e.into_inner());
        for (i, (param, told)) in self.params.iter().zip(told.iter_mut()).enumerate() {
            // What trains changes in place, and is told each time.
            if *told != Some(param.id()) {
                self.tell(i, param)?;
                *told = (!trains(param)).then(|| param.id());
            }
        }
        let inputs: Vec<Buffer> =
            self.inputs.iter().map(|i| Buffer { name: &i.name, shape: &i.shape, data: &i.data }).collect();
        let mut out = vec![0.0; inputs[0].data.len()];
        let made = call(&inputs, &mut out).map_err(fault)?;
        match out.iter().position(|v| !v.is_finite()) {
            Some(i) => Err(fault(format!("its output is {} at element {i}", out[i]))),
            None => Ok((out, made)),
        }
    }

    /// Tells the network a parameter, without a copy where it is in the machine's memory already.
    fn tell(&self, i: usize, param: &Tensor) -> Result<()> {
        let host = param.detach().to_dtype(DType::F32)?.to_device(&Device::Cpu)?.contiguous()?;
        let (storage, layout) = host.storage_and_layout();
        let (Storage::Cpu(CpuStorage::F32(data)), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
            bail!("a parameter came to the machine's memory in another form")
        };
        self.network.write(i, &data[start..end]).map_err(fault)
    }

    /// The gradients of those of the inputs and parameters that train, from that of the output.
    pub fn backward(&self, tape: &mut dyn Tape, d_out: &Tensor, all: &[Tensor]) -> Result<Vec<Option<Tensor>>> {
        let _told = self.told.lock().unwrap_or_else(|e| e.into_inner());
        let room = |t: &Tensor| trains(t).then(|| vec![0f32; t.elem_count()]);
        let mut rooms: Vec<Option<Vec<f32>>> = all.iter().map(room).collect();
        let (inputs, parameters) = rooms.split_at_mut(self.inputs.len());
        let mut wanted = Gradients {
            inputs: inputs.iter_mut().map(Option::as_deref_mut).collect(),
            parameters: parameters.iter_mut().map(Option::as_deref_mut).collect(),
        };
        tape.backward(&numbers(d_out)?, &mut wanted).map_err(fault)?;
        rooms.into_iter().zip(all).map(|(room, t)| room.map(|room| like(room, t)).transpose()).collect()
    }
}
