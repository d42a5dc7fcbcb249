//! A network in the memory of the GPU that is trained on: its tensors cross by their addresses.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use sconce_nn::kernels::address;
use sconce_sdk::network::Network;
use sconce_sdk::{Cuda, CudaBuffer, CudaGradients, CudaNetwork, CudaTape};

use super::pass::{Kept, Named, Room, Side, fault};

/// A network that takes addresses, on this GPU.
struct OnCuda {
    network: Arc<dyn CudaNetwork>,
    device: Device,
}

/// The network on this device, if that is a GPU in whose memory it works.
pub fn side(network: &dyn Network, device: &Device) -> Result<Option<Arc<dyn Side>>> {
    let Device::Cuda(cuda) = device else { return Ok(None) };
    let stream = cuda.cuda_stream();
    let context = stream.context();
    let at = Cuda {
        device: context.ordinal() as u32,
        context: context.cu_ctx() as usize,
        stream: stream.cu_stream() as usize,
    };
    current(device)?;
    let made = network.on_cuda(at).map_err(fault)?;
    Ok(made.map(|network| Arc::new(OnCuda { network, device: device.clone() }) as Arc<dyn Side>))
}

/// Makes the GPU's context the calling thread's.
fn current(device: &Device) -> Result<()> {
    match device {
        Device::Cuda(cuda) => cuda.cuda_stream().context().bind_to_thread().map_err(candle_core::Error::wrap),
        _ => Ok(()),
    }
}

/// The tensor in the GPU's memory, f32 without gaps.
fn here(tensor: &Tensor, device: &Device) -> Result<Tensor> {
    tensor.detach().to_dtype(DType::F32)?.to_device(device)?.contiguous()
}

/// The tensor for the plugin.
fn lent<'a>(name: &'a str, tensor: &'a Tensor) -> Result<CudaBuffer<'a>> {
    // SAFETY: the tensor is f32 without gaps and outlives the buffer; its memory is freed in the order of the stream that the
    // plugin's work is queued on.
    Ok(unsafe { CudaBuffer::new(name, tensor.dims(), address(tensor)?) })
}

impl Side for OnCuda {
    fn by_host(&self) -> bool {
        false
    }

    fn tell(&self, i: usize, param: &Tensor) -> Result<()> {
        current(&self.device)?;
        let values = here(param, &self.device)?;
        self.network.write(i, lent("values", &values)?).map_err(fault)
    }

    fn ask(&self, inputs: &[Named], keep: bool) -> Result<(Tensor, Option<Box<dyn Kept>>)> {
        current(&self.device)?;
        let tensors: Vec<Tensor> = inputs.iter().map(|(_, t)| here(t, &self.device)).collect::<Result<_>>()?;
        let buffers = inputs.iter().zip(&tensors).map(|((name, _), tensor)| lent(name, tensor));
        let buffers: Vec<CudaBuffer> = buffers.collect::<Result<_>>()?;
        let out = Tensor::zeros(tensors[0].shape(), DType::F32, &self.device)?;
        let tape = match keep {
            true => Some(self.network.record(&buffers, lent("out", &out)?).map_err(fault)?),
            false => self.network.forward(&buffers, lent("out", &out)?).map_err(fault).map(|()| None)?,
        };
        Ok((out, tape.map(|tape| Box::new(Taped { tape, device: self.device.clone() }) as Box<dyn Kept>)))
    }
}

struct Taped {
    tape: Box<dyn CudaTape>,
    device: Device,
}

impl Kept for Taped {
    fn backward(&mut self, d_out: &Tensor, rooms: &[Room], inputs: usize) -> Result<Vec<Option<Tensor>>> {
        current(&self.device)?;
        let given = here(d_out, &self.device)?;
        let zeros = |(_, shape): &(String, Vec<usize>)| Tensor::zeros(shape.as_slice(), DType::F32, &self.device);
        let filled: Vec<Option<Tensor>> =
            rooms.iter().map(|room| room.as_ref().map(zeros).transpose()).collect::<Result<_>>()?;
        let buffers = rooms.iter().zip(&filled).map(|(room, tensor)| match (room, tensor) {
            (Some((name, _)), Some(tensor)) => lent(name, tensor).map(Some),
            _ => Ok(None),
        });
        let mut of_inputs: Vec<Option<CudaBuffer>> = buffers.collect::<Result<_>>()?;
        let parameters = of_inputs.split_off(inputs);
        let wanted = CudaGradients { inputs: of_inputs, parameters };
        self.tape.backward(lent("out", &given)?, &wanted).map_err(fault)?;
        Ok(filled)
    }
}
