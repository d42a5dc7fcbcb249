//! A network in the machine's memory.

use std::sync::Arc;

use candle_core::{CpuStorage, DType, Device, Layout, Result, Storage, Tensor, bail};
use sconce_sdk::Network;
use sconce_sdk::network::{Buffer, Gradients, Tape};

use super::pass::{Kept, Named, Room, Side, fault};

/// A network that takes slices. What is in the machine's memory already is lent, not copied.
pub struct Host(pub Arc<dyn Network>);

/// The tensor in the machine's memory, f32 without gaps.
fn host(tensor: &Tensor) -> Result<Tensor> {
    tensor.detach().to_dtype(DType::F32)?.to_device(&Device::Cpu)?.contiguous()
}

/// The numbers of a tensor of [`host`]'s.
fn numbers<'a>(storage: &'a Storage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(data)), Some((start, end))) => Ok(&data[start..end]),
        _ => bail!("a tensor came to the machine's memory in another form"),
    }
}

impl Side for Host {
    fn by_host(&self) -> bool {
        true
    }

    fn tell(&self, i: usize, param: &Tensor) -> Result<()> {
        let host = host(param)?;
        let (storage, layout) = host.storage_and_layout();
        self.0.write(i, numbers(&storage, layout)?).map_err(fault)
    }

    fn ask(&self, inputs: &[Named], keep: bool) -> Result<(Tensor, Option<Box<dyn Kept>>)> {
        let tensors: Vec<Tensor> = inputs.iter().map(|(_, tensor)| host(tensor)).collect::<Result<_>>()?;
        let lent: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
        let buffers = inputs.iter().zip(&lent).map(|((name, tensor), (storage, layout))| {
            Ok(Buffer { name, shape: tensor.dims(), data: numbers(storage, layout)? })
        });
        let buffers: Vec<Buffer> = buffers.collect::<Result<_>>()?;
        let mut out = vec![0.0; buffers[0].data.len()];
        let tape = match keep {
            true => Some(self.0.record(&buffers, &mut out).map_err(fault)?),
            false => self.0.forward(&buffers, &mut out).map_err(fault).map(|()| None)?,
        };
        let out = Tensor::from_vec(out, tensors[0].shape(), &Device::Cpu)?;
        Ok((out, tape.map(|tape| Box::new(OnHost(tape)) as Box<dyn Kept>)))
    }
}

struct OnHost(Box<dyn Tape>);

impl Kept for OnHost {
    fn backward(&mut self, d_out: &Tensor, rooms: &[Room], inputs: usize) -> Result<Vec<Option<Tensor>>> {
        let given = host(d_out)?;
        let (storage, layout) = given.storage_and_layout();
        let empty = |room: &Room| room.as_ref().map(|(_, shape)| vec![0f32; shape.iter().product()]);
        let mut filled: Vec<Option<Vec<f32>>> = rooms.iter().map(empty).collect();
        let (of_inputs, of_parameters) = filled.split_at_mut(inputs);
        let mut wanted = Gradients {
            inputs: of_inputs.iter_mut().map(Option::as_deref_mut).collect(),
            parameters: of_parameters.iter_mut().map(Option::as_deref_mut).collect(),
        };
        self.0.backward(numbers(&storage, layout)?, &mut wanted).map_err(fault)?;
        let tensor = |(filled, room): (Option<Vec<f32>>, &Room)| {
            let gradient = filled.zip(room.as_ref());
            gradient.map(|(data, (_, shape))| Tensor::from_vec(data, shape.as_slice(), &Device::Cpu)).transpose()
        };
        filled.into_iter().zip(rooms).map(tensor).collect()
    }
}
