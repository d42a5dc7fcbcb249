//! How an operation of ours enters candle's autograd graph: a value that is already computed, its inputs, and the
//! vector-Jacobian product that belongs to it. One primitive serves every kernel on every device, and an input that
//! nothing trains (neither a variable nor computed from one) is left out of the graph, so that frozen weights cost
//! neither gradient nor gradient memory.

use std::sync::{Arc, Mutex};

use candle_core::cpu_backend::CpuDevice;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Storage, Tensor, WithDType,
    bail,
};

use crate::checkpoint;
use crate::uses::Use;

/// The vector-Jacobian product: from the output and its gradient to the gradients of the inputs, in their order.
/// What it returns for an input that nothing trains is ignored; ask [`trains`] to save the work.
type Vjp = dyn Fn(&Tensor, &Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync;

/// The value of a function: a tensor that the graph copies, or memory that it takes over.
pub enum Output {
    /// Detached, and any view of its memory; the only kind on a GPU.
    Tensor(Tensor),
    /// On the CPU, row-major.
    Cpu(CpuStorage, Shape),
}

impl Output {
    /// Memory on the CPU that the graph takes over.
    pub fn cpu<T: WithDType>(data: Vec<T>, shape: impl Into<Shape>) -> Self {
        Output::Cpu(T::to_cpu_storage_owned(data), shape.into())
    }

    /// The value as a tensor outside any graph.
    pub fn tensor(self) -> Result<Tensor> {
        match self {
            Output::Tensor(tensor) => Ok(tensor),
            Output::Cpu(CpuStorage::F32(data), shape) => cpu_tensor(data, shape),
            Output::Cpu(CpuStorage::F64(data), shape) => cpu_tensor(data, shape),
            Output::Cpu(CpuStorage::F16(data), shape) => cpu_tensor(data, shape),
            Output::Cpu(CpuStorage::BF16(data), shape) => cpu_tensor(data, shape),
            Output::Cpu(..) => bail!("a function's output must be of a float type"),
        }
    }
}

impl From<Tensor> for Output {
    fn from(tensor: Tensor) -> Self {
        Output::Tensor(tensor)
    }
}

/// True if a gradient must reach `tensor`: it is a variable, or computed from one.
pub fn trains(tensor: &Tensor) -> bool {
    tensor.is_variable() || tensor.track_op()
}

/// A tensor on the CPU that takes `data` over without a copy, outside any graph.
pub fn cpu_tensor<T: WithDType>(data: Vec<T>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(data, shape, &candle_core::Device::Cpu)
}

/// Records `out` as a differentiable function of `inputs` (at most three of which may train).
///
/// `out` must be detached (computed from detached inputs). With no input that trains, `out` is returned
/// as it is and `vjp` is dropped: inference builds no graph.
pub fn function(
    name: &'static str,
    inputs: &[&Tensor],
    out: impl Into<Output>,
    vjp: impl Fn(&Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync + 'static,
) -> Result<Tensor> {
    function_of_output(name, inputs, out, move |_, grad| vjp(grad))
}

/// [`function`] of any number of inputs that train: a custom operation takes three, so those beyond are gathered in nodes of
/// their own, which candle visits after the first one, and to which it leaves their gradients.
pub fn function_of_many(
    name: &'static str,
    inputs: &[&Tensor],
    out: impl Into<Output>,
    vjp: impl Fn(&Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync + 'static,
) -> Result<Tensor> {
    let tracked: Vec<usize> = (0..inputs.len()).filter(|&i| trains(inputs[i])).collect();
    let leaves: Vec<&Tensor> = tracked.iter().map(|&i| inputs[i]).collect();
    let slots = Slots::default();
    let filled = slots.clone();
    gathered(name, &leaves, 0, &slots, out.into(), move |dy| {
        let mut all = vjp(dy)?;
        let grads = tracked.iter().map(|&i| all.get_mut(i).and_then(Option::take)).collect();
        *filled.lock().expect("no holder of this lock panics") = grads;
        Ok(())
    })
}

/// Gradients on their way from the node that computes them to those that hand them on, by input.
type Slots = Arc<Mutex<Vec<Option<Tensor>>>>;

/// A node over inputs, of which `first` is the number of the first: it lets `fill` put gradients into the slots, hands on two or
/// three of them, and leaves the rest to a node of their own.
fn gathered(
    name: &'static str,
    leaves: &[&Tensor],
    first: usize,
    slots: &Slots,
    out: Output,
    fill: impl Fn(&Tensor) -> Result<()> + Send + Sync + 'static,
) -> Result<Tensor> {
    let direct = if leaves.len() > 3 { 2 } else { leaves.len() };
    let mut inputs = leaves[..direct].to_vec();
    let rest = match leaves.len() > direct {
        true => {
            let stand_in = Output::Tensor(Tensor::zeros((), DType::F32, leaves[0].device())?);
            Some(gathered(name, &leaves[direct..], first + direct, slots, stand_in, filled_before)?)
        }
        false => None,
    };
    inputs.extend(&rest);
    let zero = rest.as_ref().map(|rest| rest.zeros_like()).transpose()?;
    let slots = slots.clone();
    function(name, &inputs, out, move |dy| {
        fill(dy)?;
        let mut slots = slots.lock().expect("no holder of this lock panics");
        let mut grads: Vec<_> = (first..first + direct).map(|i| slots.get_mut(i).and_then(Option::take)).collect();
        grads.push(zero.clone());
        Ok(grads)
    })
}

/// What the nodes behind the first one need not do.
fn filled_before(_: &Tensor) -> Result<()> {
    Ok(())
}

/// [`function`] whose vector-Jacobian product is given the output too, without keeping a second copy of it.
pub fn function_of_output(
    name: &'static str,
    inputs: &[&Tensor],
    out: impl Into<Output>,
    vjp: impl Fn(&Tensor, &Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync + 'static,
) -> Result<Tensor> {
    let out = out.into();
    let tracked: Vec<usize> = (0..inputs.len()).filter(|&i| trains(inputs[i])).collect();
    let variables: Vec<_> = tracked.iter().map(|&i| inputs[i].is_variable().then(|| inputs[i].clone())).collect();
    let uses = Mutex::new(variables.iter().map(|v| v.as_ref().map(|v| Use::of(v.id()))).collect());
    let node = Node { name, out: Mutex::new(Some(out)), vjp: Box::new(vjp), tracked: tracked.clone(), variables, uses };
    match tracked[..] {
        [] => node.take()?.tensor(),
        [a] => inputs[a].apply_op1(node),
        [a, b] => inputs[a].apply_op2(inputs[b], node),
        [a, b, c] => inputs[a].apply_op3(inputs[b], inputs[c], node),
        _ => bail!("{name}: at most three inputs can train, {} do", tracked.len()),
    }
}

struct Node {
    name: &'static str,
    out: Mutex<Option<Output>>,
    vjp: Box<Vjp>,
    tracked: Vec<usize>,
    /// Those of the tracked inputs that are variables.
    variables: Vec<Option<Tensor>>,
    /// One of each of them, until its gradient is computed.
    uses: Mutex<Vec<Option<Use>>>,
}

impl Node {
    fn take(&self) -> Result<Output> {
        let mut slot = self.out.lock().expect("no holder of this lock panics");
        slot.take().ok_or_else(|| candle_core::Error::Msg(format!("{}: the graph node was evaluated twice", self.name)))
    }

    fn cpu(&self) -> Result<(CpuStorage, Shape)> {
        use candle_core::backend::{BackendDevice, BackendStorage};
        let out = match self.take()? {
            Output::Cpu(storage, shape) => return Ok((storage, shape)),
            Output::Tensor(out) => out,
        };
        let (storage, layout) = out.storage_and_layout();
        match &*storage {
            Storage::Cpu(cpu) => {
                // Cloning the storage would take all of it, whatever part of it this tensor is a view of.
                // SAFETY: the copy writes every element.
                let mut copy = unsafe { CpuDevice.alloc_uninit(out.shape(), out.dtype())? };
                cpu.copy_strided_src(&mut copy, 0, layout)?;
                Ok((copy, out.shape().clone()))
            }
            _ => bail!("{}: the output is not on the CPU, its input is", self.name),
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self) -> Result<(CudaStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        let out = self.take()?.tensor()?.contiguous()?;
        let (storage, layout) = out.storage_and_layout();
        match &*storage {
            Storage::Cuda(cuda) => Ok((cuda.try_clone(layout)?, out.shape().clone())),
            _ => bail!("{}: the output is not on the GPU, its input is", self.name),
        }
    }

    #[cfg(not(feature = "cuda"))]
    fn cuda(&self) -> Result<(CudaStorage, Shape)> {
        bail!("{}: this build has no CUDA support", self.name)
    }

    /// The gradients of the tracked inputs, in the order in which candle knows them. Those of variables go to the sink
    /// where one is open: candle would add each to zeros of its size first.
    fn grads(&self, out: &Tensor, grad: &Tensor) -> Result<[Option<Tensor>; 3]> {
        let mut all = (self.vjp)(&out.detach(), &grad.contiguous()?.detach())?;
        let mut out = [None, None, None];
        let uses = std::mem::take(&mut *self.uses.lock().expect("no holder of this lock panics"));
        let mut uses = uses.into_iter();
        for ((slot, &i), variable) in out.iter_mut().zip(&self.tracked).zip(&self.variables) {
            let grad = all.get_mut(i).and_then(Option::take);
            drop(uses.next());
            *slot = match (variable, grad) {
                (Some(variable), Some(grad)) => checkpoint::sink(variable, grad)?,
                (_, grad) => grad,
            };
        }
        Ok(out)
    }
}

impl CustomOp1 for Node {
    fn name(&self) -> &'static str {
        self.name
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }
    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }
    fn bwd(&self, _: &Tensor, out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let [a, _, _] = self.grads(out, grad)?;
        Ok(a)
    }
}

impl CustomOp2 for Node {
    fn name(&self) -> &'static str {
        self.name
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }
    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }
    fn bwd(&self, _: &Tensor, _: &Tensor, out: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [a, b, _] = self.grads(out, grad)?;
        Ok((a, b))
    }
}

impl CustomOp3 for Node {
    fn name(&self) -> &'static str {
        self.name
    }
    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }
    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }
    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = self.grads(out, grad)?;
        Ok((a, b, c))
    }
}
