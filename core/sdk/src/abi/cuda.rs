//! Backbones in the memory of a GPU: the calls of [`super::backbone`] that have tensors, on addresses of CUDA's.

use std::ffi::c_void;
use std::sync::Arc;

use super::basic::{SconceObject, SconceStatus};
use super::crossing::{free, handle, shared};
use super::declare::c_struct;
use super::guard::guard;
use super::passes::{backward, forget, forward};
use super::sink::SconceError;
use super::table::{Table, TableError};
use super::tensor::SconceTensor;
use crate::cuda::{Cuda, CudaNetwork};
use crate::registry::ParamError;

c_struct! {
    /// Where a program computes: a GPU, as CUDA's driver knows it. From 1.1 on.
    pub struct SconceCuda {
        /// sizeof(SconceCuda), as the caller knows it.
        pub size: usize,
        /// The GPU's number among those that the process sees.
        pub device: u32,
        /// 0.
        pub reserved: u32,
        /// Its CUcontext, which is current in the thread of every call. The program's is the GPU's primary one, which CUDA's
        /// runtime uses too.
        pub context: *mut c_void,
        /// The CUstream that the program's work is queued on; null is the context's default one.
        pub stream: *mut c_void,
    }
}

c_struct! {
    /// A network on one GPU: its tensors are in SCONCE_MEMORY_CUDA, and its parameters are written there. From 1.1 on.
    ///
    /// Work is queued on the stream that the object was made for, in whose order the program writes tensors, reads the answers
    /// and frees both; or it is done when the function returns.
    pub struct SconceCudaBackbone {
        /// sizeof(SconceCudaBackbone), as its writer knows it.
        pub size: usize,
        /// Frees a handle. Null: there is nothing to free.
        pub drop: Option<unsafe extern "C" fn(handle: *mut c_void)>,
        /// Sets the values of a parameter, before the first pass and whenever they changed. Must be there.
        pub write: Option<unsafe extern "C" fn(handle: *mut c_void, parameter: usize, values: *const SconceTensor, error: *const SconceError) -> SconceStatus>,
        /// As of SconceBackbone. Must be there.
        pub forward: Option<unsafe extern "C" fn(handle: *mut c_void, n_inputs: usize, inputs: *const *const SconceTensor, out: *const SconceTensor, tape: *mut *mut c_void, error: *const SconceError) -> SconceStatus>,
        /// As of SconceBackbone. Must be there.
        pub backward: Option<unsafe extern "C" fn(handle: *mut c_void, tape: *mut c_void, d_out: *const SconceTensor, n_inputs: usize, d_inputs: *const *const SconceTensor, n_parameters: usize, d_parameters: *const *const SconceTensor, error: *const SconceError) -> SconceStatus>,
        /// Frees a tape; every tape is freed, before its handle is. Must be there.
        pub forget: Option<unsafe extern "C" fn(handle: *mut c_void, tape: *mut c_void)>,
    }
}

impl Table for SconceCuda {
    const LEAST: usize = size_of::<Self>();
}
impl Table for SconceCudaBackbone {
    const LEAST: usize = size_of::<Self>();
}

impl From<Cuda> for SconceCuda {
    fn from(at: Cuda) -> Self {
        let pointer = std::ptr::without_provenance_mut;
        let (context, stream) = (pointer(at.context), pointer(at.stream));
        Self { size: size_of::<Self>(), device: at.device, reserved: 0, context, stream }
    }
}

impl From<SconceCuda> for Cuda {
    fn from(at: SconceCuda) -> Self {
        Self { device: at.device, context: at.context.addr(), stream: at.stream.addr() }
    }
}

impl SconceCudaBackbone {
    /// Fails if a function is absent that must be there.
    pub(super) fn check(&self) -> Result<(), TableError> {
        let absent = [
            ("write", self.write.is_none()),
            ("forward", self.forward.is_none()),
            ("backward", self.backward.is_none()),
            ("forget", self.forget.is_none()),
        ];
        match absent.iter().find(|(_, absent)| *absent) {
            Some((function, _)) => Err(TableError::Missing { name: "SconceCudaBackbone", function }),
            None => Ok(()),
        }
    }
}

/// A network of ours for the other side; its table's `drop` frees it.
pub(super) fn export(network: Arc<dyn CudaNetwork>) -> SconceObject {
    static EXPORT: SconceCudaBackbone = SconceCudaBackbone {
        size: size_of::<SconceCudaBackbone>(),
        drop: Some(free::<Arc<dyn CudaNetwork>>),
        write: Some(write),
        forward: Some(forward::<dyn CudaNetwork>),
        backward: Some(backward::<dyn CudaNetwork>),
        forget: Some(forget::<dyn CudaNetwork>),
    };
    SconceObject { table: (&raw const EXPORT).cast(), handle: handle(network) }
}

unsafe extern "C" fn write(
    handle: *mut c_void,
    parameter: usize,
    values: *const SconceTensor,
    error: *const SconceError,
) -> SconceStatus {
    let body = || {
        // SAFETY: the caller passes what this table came with, and a tensor in the memory that it was made for.
        let (network, values) = unsafe { (shared::<dyn CudaNetwork>(handle), SconceTensor::view(values)?.buffer()?) };
        network.write(parameter, values).map_err(ParamError::new)
    };
    // SAFETY: the caller passes a sink.
    unsafe { guard(error, body) }
}
