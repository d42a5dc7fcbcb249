//! The passes of a backbone of ours, as the other side asks for them: alike in the machine's memory and in a GPU's.

use std::ffi::c_void;

use super::basic::SconceStatus;
use super::crossing::{free, set, shared};
use super::guard::guard;
use super::sink::SconceError;
use super::tensor::{SconceTensor, View};
use crate::cuda::{CudaBuffer, CudaGradients, CudaNetwork, CudaTape};
use crate::network::{Buffer, Gradients, Network, Tape};
use crate::registry::ParamError;

/// A network over one kind of memory.
pub(super) trait Passes {
    /// A tensor to read.
    type Given<'a>;
    /// A tensor to write.
    type Room<'a>;
    /// What is kept of a pass.
    type Tape: ?Sized;

    /// # Safety
    /// The tensor's data lives for `'a`, in this memory, and nobody writes to it.
    unsafe fn given<'a>(tensor: &View<'a>) -> Result<Self::Given<'a>, ParamError>;

    /// # Safety
    /// The tensor's data lives for `'a`, in this memory, and nobody else reads it or writes to it.
    unsafe fn room<'a>(tensor: &View<'a>) -> Result<Self::Room<'a>, ParamError>;

    /// The output, and a tape if it is asked for.
    fn pass(
        &self,
        inputs: &[Self::Given<'_>],
        out: Self::Room<'_>,
        keep: bool,
    ) -> Result<Option<Box<Self::Tape>>, String>;

    /// The gradients that there is room for.
    fn back<'a>(
        tape: &mut Self::Tape,
        d_out: Self::Given<'a>,
        inputs: Vec<Option<Self::Room<'a>>>,
        parameters: Vec<Option<Self::Room<'a>>>,
    ) -> Result<(), String>;
}

impl Passes for dyn Network {
    type Given<'a> = Buffer<'a>;
    type Room<'a> = &'a mut [f32];
    type Tape = dyn Tape;

    unsafe fn given<'a>(tensor: &View<'a>) -> Result<Buffer<'a>, ParamError> {
        // SAFETY: by this function's contract.
        let data = unsafe { tensor.numbers()? };
        Ok(Buffer { name: tensor.name, shape: tensor.shape, data })
    }

    unsafe fn room<'a>(tensor: &View<'a>) -> Result<&'a mut [f32], ParamError> {
        // SAFETY: by this function's contract.
        unsafe { tensor.room() }
    }

    fn pass(&self, inputs: &[Buffer], out: &mut [f32], keep: bool) -> Result<Option<Box<dyn Tape>>, String> {
        if keep { self.record(inputs, out).map(Some) } else { self.forward(inputs, out).map(|()| None) }
    }

    fn back<'a>(
        tape: &mut (dyn Tape + 'static),
        d_out: Buffer<'a>,
        inputs: Vec<Option<&'a mut [f32]>>,
        parameters: Vec<Option<&'a mut [f32]>>,
    ) -> Result<(), String> {
        tape.backward(d_out.data, &mut Gradients { inputs, parameters })
    }
}

impl Passes for dyn CudaNetwork {
    type Given<'a> = CudaBuffer<'a>;
    type Room<'a> = CudaBuffer<'a>;
    type Tape = dyn CudaTape;

    unsafe fn given<'a>(tensor: &View<'a>) -> Result<CudaBuffer<'a>, ParamError> {
        // SAFETY: by this function's contract.
        unsafe { tensor.buffer() }
    }

    unsafe fn room<'a>(tensor: &View<'a>) -> Result<CudaBuffer<'a>, ParamError> {
        // SAFETY: by this function's contract.
        unsafe { tensor.buffer() }
    }

    fn pass(&self, inputs: &[CudaBuffer], out: CudaBuffer, keep: bool) -> Result<Option<Box<dyn CudaTape>>, String> {
        if keep { self.record(inputs, out).map(Some) } else { self.forward(inputs, out).map(|()| None) }
    }

    fn back<'a>(
        tape: &mut (dyn CudaTape + 'static),
        d_out: CudaBuffer<'a>,
        inputs: Vec<Option<CudaBuffer<'a>>>,
        parameters: Vec<Option<CudaBuffer<'a>>>,
    ) -> Result<(), String> {
        tape.backward(d_out, &CudaGradients { inputs, parameters })
    }
}

/// A list of tensors.
///
/// # Safety
/// `list` is null or points to n pointers that live for `'a`.
unsafe fn pointers<'a>(n: usize, list: *const *const SconceTensor) -> Result<&'a [*const SconceTensor], ParamError> {
    match (n, list.is_null()) {
        (0, _) => Ok(&[]),
        (_, true) => Err(ParamError::new(format!("was given {n} tensors at a null pointer"))),
        // SAFETY: not null, and by this function's contract there are n.
        (_, false) => Ok(unsafe { std::slice::from_raw_parts(list, n) }),
    }
}

pub(super) unsafe extern "C" fn forward<N: Passes + ?Sized>(
    handle: *mut c_void,
    n_inputs: usize,
    inputs: *const *const SconceTensor,
    out: *const SconceTensor,
    tape: *mut *mut c_void,
    error: *const SconceError,
) -> SconceStatus {
    let body = || {
        // SAFETY: the caller passes what this table came with, tensors that it does not write to, and one that we may.
        let (network, inputs, out) =
            unsafe { (shared::<N>(handle), pointers(n_inputs, inputs)?, N::room(&SconceTensor::view(out)?)?) };
        // SAFETY: as above.
        let given = |tensor: &*const SconceTensor| unsafe { N::given(&SconceTensor::view(*tensor)?) };
        let inputs = inputs.iter().map(given).collect::<Result<Vec<_>, ParamError>>()?;
        match network.pass(&inputs, out, !tape.is_null()).map_err(ParamError::new)? {
            // SAFETY: the caller passes room for a tape.
            Some(kept) => unsafe { set(tape, Box::into_raw(Box::new(kept)).cast()) },
            None => Ok(()),
        }
    };
    // SAFETY: the caller passes a sink.
    unsafe { guard(error, body) }
}

pub(super) unsafe extern "C" fn backward<N: Passes + ?Sized>(
    _handle: *mut c_void,
    tape: *mut c_void,
    d_out: *const SconceTensor,
    n_inputs: usize,
    d_inputs: *const *const SconceTensor,
    n_parameters: usize,
    d_parameters: *const *const SconceTensor,
    error: *const SconceError,
) -> SconceStatus {
    let body = || {
        if tape.is_null() {
            return Err(ParamError::new("was given no tape"));
        }
        let rooms = |n, list| {
            let room = |tensor: &*const SconceTensor| match tensor.is_null() {
                true => Ok(None),
                // SAFETY: the caller passes tensors that we may write to.
                false => unsafe { N::room(&SconceTensor::view(*tensor)?).map(Some) },
            };
            // SAFETY: the caller passes lists of that many.
            unsafe { pointers(n, list)? }.iter().map(room).collect::<Result<Vec<_>, ParamError>>()
        };
        let (inputs, parameters) = (rooms(n_inputs, d_inputs)?, rooms(n_parameters, d_parameters)?);
        // SAFETY: the caller passes a tensor that it does not write to, and a tape that `forward` made, from one thread at a
        // time.
        let (d_out, tape) = unsafe { (N::given(&SconceTensor::view(d_out)?)?, &mut *tape.cast::<Box<N::Tape>>()) };
        N::back(tape, d_out, inputs, parameters).map_err(ParamError::new)
    };
    // SAFETY: the caller passes a sink.
    unsafe { guard(error, body) }
}

pub(super) unsafe extern "C" fn forget<N: Passes + ?Sized>(_handle: *mut c_void, tape: *mut c_void) {
    // SAFETY: the caller passes a tape that `forward` made, and does not use it after this.
    unsafe { free::<Box<N::Tape>>(tape) }
}
