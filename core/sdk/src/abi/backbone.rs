//! Backbones across the border: networks over plain memory, whose parameters the program owns, writes before a pass, and
//! trains by the products that the library gives.

use std::ffi::c_void;
use std::sync::Arc;

use super::basic::{SconceNoise, SconceObject, SconceStatus};
use super::crossing::{Portable, each_of_two, free, set, shared};
use super::cuda::SconceCuda;
use super::declare::c_struct;
use super::foreign::Foreign;
use super::foreign_network::ForeignNetwork;
use super::guard::guard;
use super::passes::{backward, forget, forward};
use super::sink::{SconceError, SconceText};
use super::table::{Table, TableError, read};
use super::tensor::{SconceTensor, SconceTensors};
use crate::network::Network;
use crate::registry::ParamError;

c_struct! {
    /// A denoiser with an engine of its own. Its parameters are the program's to train: it reads them once, and writes them
    /// before a pass whenever they changed.
    ///
    /// Laws: asked the same, it answers the same, to the bit; what is written is read; the products are those of the
    /// derivatives. Several threads may ask at once; nothing is written while one does.
    ///
    /// `inputs` are "x" (B C H W), "time" (B), and the conditions that `about` names, in that order. A list of tensors is one
    /// of pointers, so that SconceTensor can grow.
    pub struct SconceBackbone {
        /// sizeof(SconceBackbone), as its writer knows it.
        pub size: usize,
        /// Frees a handle. Null: there is nothing to free.
        pub drop: Option<unsafe extern "C" fn(handle: *mut c_void)>,
        /// Puts a JSON object: "channels" of the latents; "side_multiple", which latents' sides must be multiples of (1
        /// where it is not there); "conditions", a list of {"name": "context", "shape": [77, 768]} with the sides behind the
        /// batch's, 0 for any; "native", tables of a recipe that say what it was trained as. Must be there.
        pub about: Option<unsafe extern "C" fn(handle: *mut c_void, json: *const SconceText, error: *const SconceError) -> SconceStatus>,
        /// Puts name and shape of each parameter, always the same in the same order. Must be there.
        pub parameters: Option<unsafe extern "C" fn(handle: *mut c_void, list: *const SconceTensors, error: *const SconceError) -> SconceStatus>,
        /// Copies the values of a parameter, counted as in `parameters`, to `out`: n is the number of its elements. Must be
        /// there.
        pub read: Option<unsafe extern "C" fn(handle: *mut c_void, parameter: usize, n: usize, out: *mut f32, error: *const SconceError) -> SconceStatus>,
        /// Sets the values of a parameter. Must be there.
        pub write: Option<unsafe extern "C" fn(handle: *mut c_void, parameter: usize, n: usize, values: *const f32, error: *const SconceError) -> SconceStatus>,
        /// The output for the inputs, into `out`, which has the shape of "x". Where `tape` is not null, something is going to
        /// be trained: it becomes what `backward` needs of this pass, and `forget` frees it. Must be there.
        pub forward: Option<unsafe extern "C" fn(handle: *mut c_void, n_inputs: usize, inputs: *const *const SconceTensor, out: *const SconceTensor, tape: *mut *mut c_void, error: *const SconceError) -> SconceStatus>,
        /// The vector-Jacobian product: from the gradient of the output to those of the inputs and of the parameters. A null
        /// pointer in a list is one that is not wanted; the others are to be overwritten. The parameters are still those of
        /// the pass. It may be called more than once for a tape. Must be there.
        pub backward: Option<unsafe extern "C" fn(handle: *mut c_void, tape: *mut c_void, d_out: *const SconceTensor, n_inputs: usize, d_inputs: *const *const SconceTensor, n_parameters: usize, d_parameters: *const *const SconceTensor, error: *const SconceError) -> SconceStatus>,
        /// Frees a tape; every tape is freed, before its handle is. Must be there.
        pub forget: Option<unsafe extern "C" fn(handle: *mut c_void, tape: *mut c_void)>,
        /// The network's own times for n t in [0, 1], with the noise level of each: what the input "time" holds. Null: t.
        pub time: Option<unsafe extern "C" fn(handle: *mut c_void, n: usize, t: *const f64, noise: *const SconceNoise, out: *mut f64, error: *const SconceError) -> SconceStatus>,
        /// From 1.1 on. Makes the network in the memory of a GPU, for a program that trains there: an object with a
        /// SconceCudaBackbone, which is freed before this handle is. One whose table stays null, or a null function: the
        /// network works in the machine's memory, and its tensors are copied there and back. A failure ends the run.
        pub on_cuda: Option<unsafe extern "C" fn(handle: *mut c_void, at: *const SconceCuda, object: *mut SconceObject, error: *const SconceError) -> SconceStatus>,
    }
}

impl Table for SconceBackbone {
    const LEAST: usize = std::mem::offset_of!(Self, time);
}

static EXPORT: SconceBackbone = SconceBackbone {
    size: size_of::<SconceBackbone>(),
    drop: Some(free::<Arc<dyn Network>>),
    about: Some(about),
    parameters: Some(parameters),
    read: Some(read_values),
    write: Some(write_values),
    forward: Some(forward::<dyn Network>),
    backward: Some(backward::<dyn Network>),
    forget: Some(forget::<dyn Network>),
    time: Some(time),
    on_cuda: Some(on_cuda),
};

impl Portable for dyn Network {
    type Table = SconceBackbone;

    fn table() -> &'static SconceBackbone {
        &EXPORT
    }

    fn import(foreign: Foreign<SconceBackbone>) -> Arc<Self> {
        Arc::new(ForeignNetwork::new(foreign))
    }

    fn check(t: &SconceBackbone) -> Result<(), TableError> {
        let absent = [
            ("about", t.about.is_none()),
            ("parameters", t.parameters.is_none()),
            ("read", t.read.is_none()),
            ("write", t.write.is_none()),
            ("forward", t.forward.is_none()),
            ("backward", t.backward.is_none()),
            ("forget", t.forget.is_none()),
        ];
        match absent.iter().find(|(_, absent)| *absent) {
            Some((function, _)) => Err(TableError::Missing { name: "SconceBackbone", function }),
            None => Ok(()),
        }
    }

    fn release(table: &SconceBackbone) -> Option<unsafe extern "C" fn(*mut c_void)> {
        table.drop
    }
}

unsafe extern "C" fn about(handle: *mut c_void, json: *const SconceText, error: *const SconceError) -> SconceStatus {
    let body = || {
        // SAFETY: the caller passes what this table came with.
        let about = unsafe { shared::<dyn Network>(handle) }.about();
        let text = serde_json::to_string(&about).map_err(|e| ParamError::new(e.to_string()))?;
        // SAFETY: the caller passes a sink.
        unsafe { SconceText::give(json, &text) }
    };
    // SAFETY: the caller passes a sink.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn parameters(
    handle: *mut c_void,
    list: *const SconceTensors,
    error: *const SconceError,
) -> SconceStatus {
    let body = || {
        // SAFETY: the caller passes what this table came with, and a sink.
        let (network, list) = unsafe { (shared::<dyn Network>(handle), read(list)?) };
        let put = list.put.ok_or_else(|| ParamError::new("the sink for tensors has no `put`"))?;
        for parameter in network.parameters() {
            let tensor = SconceTensor::of(&parameter.name, &parameter.shape, std::ptr::null_mut());
            // SAFETY: the sink's own context, and a tensor that lives until the call returns.
            unsafe { put(list.context, &raw const tensor) };
        }
        Ok(())
    };
    // SAFETY: the caller passes a sink.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn read_values(
    handle: *mut c_void,
    parameter: usize,
    n: usize,
    out: *mut f32,
    error: *const SconceError,
) -> SconceStatus {
    let body = || {
        let shape = [n];
        let tensor = SconceTensor::of("a parameter", &shape, out);
        // SAFETY: the caller passes room for n numbers, which nobody else looks at.
        let out = unsafe { SconceTensor::view(&raw const tensor)?.room()? };
        // SAFETY: the caller passes what this table came with.
        unsafe { shared::<dyn Network>(handle) }.read(parameter, out).map_err(ParamError::new)
    };
    // SAFETY: the caller passes a sink.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn write_values(
    handle: *mut c_void,
    parameter: usize,
    n: usize,
    values: *const f32,
    error: *const SconceError,
) -> SconceStatus {
    let body = || {
        let shape = [n];
        let tensor = SconceTensor::of("a parameter", &shape, values.cast_mut());
        // SAFETY: the caller passes n numbers.
        let values = unsafe { SconceTensor::view(&raw const tensor)?.numbers()? };
        // SAFETY: the caller passes what this table came with.
        unsafe { shared::<dyn Network>(handle) }.write(parameter, values).map_err(ParamError::new)
    };
    // SAFETY: the caller passes a sink.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn time(
    handle: *mut c_void,
    n: usize,
    t: *const f64,
    noise: *const SconceNoise,
    out: *mut f64,
    error: *const SconceError,
) -> SconceStatus {
    let answer = |t: f64, noise: SconceNoise| {
        // SAFETY: the caller passes what this table came with.
        unsafe { shared::<dyn Network>(handle) }.time(t, &noise.into())
    };
    // SAFETY: the caller passes arrays of n, and a sink.
    unsafe { guard(error, || each_of_two(n, t, noise, out, answer)) }
}

unsafe extern "C" fn on_cuda(
    handle: *mut c_void,
    at: *const SconceCuda,
    object: *mut SconceObject,
    error: *const SconceError,
) -> SconceStatus {
    let body = || {
        // SAFETY: the caller passes what this table came with, and a place.
        let (network, at) = unsafe { (shared::<dyn Network>(handle), read(at)?) };
        let made = network.on_cuda(at.into()).map_err(ParamError::new)?;
        // SAFETY: the caller passes room for an object.
        unsafe { set(object, made.map_or(SconceObject::NONE, super::cuda::export)) }
    };
    // SAFETY: the caller passes a sink.
    unsafe { guard(error, body) }
}
