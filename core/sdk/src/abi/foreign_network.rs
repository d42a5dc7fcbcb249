//! A backbone of the other side's as a [`Network`] of ours: the same calls from the outside, with every length looked at
//! before memory is lent.

use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::{Arc, OnceLock};

use super::backbone::SconceBackbone;
use super::basic::{SconceNoise, SconceObject, SconceStatus};
use super::cuda::{SconceCuda, SconceCudaBackbone};
use super::foreign::{ABSENT, Foreign};
use super::foreign_cuda::ForeignCuda;
use super::sink::{SconceError, TextBuffer};
use super::tensor::{Lent, SconceTensor, SconceTensors, View};
use crate::cuda::{Cuda, CudaNetwork};
use crate::network::{About, Buffer, Gradients, Network, Parameter, Tape};
use crate::noise::Noise;
use crate::registry::ParamError;

/// A network of the other side's, which its tapes keep alive.
#[derive(Clone)]
pub(super) struct ForeignNetwork(Arc<Inner>);

struct Inner {
    foreign: Foreign<SconceBackbone>,
    parameters: OnceLock<Vec<Parameter>>,
}

impl ForeignNetwork {
    pub fn new(foreign: Foreign<SconceBackbone>) -> Self {
        Self(Arc::new(Inner { foreign, parameters: OnceLock::new() }))
    }

    fn foreign(&self) -> &Foreign<SconceBackbone> {
        &self.0.foreign
    }

    fn call(
        &self,
        function: &str,
        call: impl FnOnce(&SconceBackbone, *mut c_void, *const SconceError) -> SconceStatus,
    ) -> Result<(), String> {
        self.foreign().try_call(call).map_err(|e| self.foreign().named(function, &e))
    }

    fn known(&self) -> &[Parameter] {
        self.0.parameters.get_or_init(|| self.listed())
    }

    fn listed(&self) -> Vec<Parameter> {
        unsafe extern "C" fn put(context: *mut c_void, tensor: *const SconceTensor) {
            // SAFETY: the context is the list below, which lives while the sink does.
            let list = unsafe { &*context.cast::<RefCell<Vec<Result<Parameter, String>>>>() };
            // SAFETY: the library's tensor lives until this call returns.
            let view = unsafe { SconceTensor::view(tensor) };
            let parameter = |v: View| Parameter { name: v.name.to_owned(), shape: v.shape.to_vec() };
            list.borrow_mut().push(view.map(parameter).map_err(|e| e.message));
        }
        let list: RefCell<Vec<Result<Parameter, String>>> = RefCell::default();
        let context = std::ptr::from_ref(&list).cast_mut().cast();
        let sink = SconceTensors { size: size_of::<SconceTensors>(), context, put: Some(put) };
        self.foreign().call("parameters", |table, handle, error| match table.parameters {
            // SAFETY: a sink that lives, and the table's own handle.
            Some(parameters) => unsafe { parameters(handle, &raw const sink, error) },
            None => ABSENT,
        });
        list.into_inner().into_iter().collect::<Result<_, _>>().unwrap_or_else(|what| {
            self.foreign().fault("parameters", ParamError::new(what));
            Vec::new()
        })
    }

    fn pass(&self, inputs: &[Buffer], out: &mut [f32], tape: *mut *mut c_void) -> Result<(), String> {
        let shape = match inputs {
            [x, ..] if x.data.len() == out.len() => x.shape,
            _ => return Err(format!("the first input has not the {} elements of the output", out.len())),
        };
        if let Some(wrong) = inputs.iter().find(|b| b.shape.iter().product::<usize>() != b.data.len()) {
            return Err(format!("the input `{}` has {} elements for {:?}", wrong.name, wrong.data.len(), wrong.shape));
        }
        let tensor = |b: &Buffer| Some(SconceTensor::of(b.name, b.shape, b.data.as_ptr().cast_mut()));
        let inputs = Lent::of(inputs.iter().map(tensor));
        let answer = SconceTensor::of("out", shape, out.as_mut_ptr());
        self.call("forward", |table, handle, error| match table.forward {
            // SAFETY: lists with their lengths, a tensor that may be written to, and the table's own handle.
            Some(f) => unsafe { f(handle, inputs.n(), inputs.list(), &raw const answer, tape, error) },
            None => ABSENT,
        })
    }
}

impl Network for ForeignNetwork {
    fn about(&self) -> About {
        let unknown = || About { channels: 0, side_multiple: 1, conditions: Vec::new(), native: Default::default() };
        let text = TextBuffer::default();
        let sink = text.sink();
        let done = self.foreign().call("about", |table, handle, error| match table.about {
            // SAFETY: a sink that lives, and the table's own handle.
            Some(about) => unsafe { about(handle, &raw const sink, error) },
            None => ABSENT,
        });
        if !done {
            return unknown();
        }
        let about = text.finish("a text").map_err(|e| e.message);
        let about = about.and_then(|text| serde_json::from_str(&text).map_err(|e| format!("says what is not so: {e}")));
        about.unwrap_or_else(|what| {
            self.foreign().fault("about", ParamError::new(what));
            unknown()
        })
    }

    fn parameters(&self) -> Vec<Parameter> {
        self.known().to_vec()
    }

    fn read(&self, parameter: usize, out: &mut [f32]) -> Result<(), String> {
        self.call("read", |table, handle, error| match table.read {
            // SAFETY: room with its length, and the table's own handle.
            Some(read) => unsafe { read(handle, parameter, out.len(), out.as_mut_ptr(), error) },
            None => ABSENT,
        })
    }

    fn write(&self, parameter: usize, values: &[f32]) -> Result<(), String> {
        self.call("write", |table, handle, error| match table.write {
            // SAFETY: an array with its length, and the table's own handle.
            Some(write) => unsafe { write(handle, parameter, values.len(), values.as_ptr(), error) },
            None => ABSENT,
        })
    }

    fn time(&self, t: f64, noise: &Noise) -> f64 {
        let Some(time) = self.foreign().table().time else { return t };
        let (level, mut out) = (SconceNoise::from(*noise), f64::NAN);
        // SAFETY: arrays of one, and the table's own handle.
        let call =
            |_: &_, handle, error| unsafe { time(handle, 1, &raw const t, &raw const level, &raw mut out, error) };
        if self.foreign().call("time", call) {
            self.foreign().watch("time", [out], &[("t", t), ("alpha", noise.alpha), ("sigma", noise.sigma)]);
        }
        out
    }

    fn record(&self, inputs: &[Buffer], out: &mut [f32]) -> Result<Box<dyn Tape>, String> {
        let mut tape = std::ptr::null_mut();
        self.pass(inputs, out, &raw mut tape)?;
        let own = |b: &Buffer| (b.name.to_owned(), b.shape.to_vec());
        Ok(Box::new(ForeignTape { network: self.clone(), tape, inputs: inputs.iter().map(own).collect() }))
    }

    fn forward(&self, inputs: &[Buffer], out: &mut [f32]) -> Result<(), String> {
        self.pass(inputs, out, std::ptr::null_mut())
    }

    fn on_cuda(&self, at: Cuda) -> Result<Option<Arc<dyn CudaNetwork>>, String> {
        let Some(on_cuda) = self.foreign().table().on_cuda else { return Ok(None) };
        let (place, mut object) = (SconceCuda::from(at), SconceObject::NONE);
        // SAFETY: a place and room for an object, and the table's own handle.
        self.call("on_cuda", |_, handle, error| unsafe { on_cuda(handle, &raw const place, &raw mut object, error) })?;
        if object.table.is_null() {
            return Ok(None);
        }
        // SAFETY: the library gives an object with a table of this kind, to keep.
        let made = unsafe { Foreign::<SconceCudaBackbone>::take(object, self.foreign().who(), |table| table.drop) };
        let made = made.and_then(|made| made.table().check().map(|()| made));
        let made = made.map_err(|e| self.foreign().named("on_cuda", &ParamError::from(e)))?;
        Ok(Some(Arc::new(ForeignCuda::new(made, self.clone()))))
    }
}

struct ForeignTape {
    network: ForeignNetwork,
    tape: *mut c_void,
    inputs: Vec<(String, Vec<usize>)>,
}

// SAFETY: the ABI asks that a tape may be passed from thread to thread; one at a time uses it.
unsafe impl Send for ForeignTape {}

impl Drop for ForeignTape {
    fn drop(&mut self) {
        if let Some(forget) = self.network.foreign().table().forget {
            self.network.foreign().with(|handle| {
                // SAFETY: the tape is one of this handle's, and nothing uses it after this.
                unsafe { forget(handle, self.tape) };
            });
        }
    }
}

impl Tape for ForeignTape {
    fn backward(&mut self, d_out: &[f32], wanted: &mut Gradients) -> Result<(), String> {
        let known = self.network.known();
        if wanted.inputs.len() != self.inputs.len() || wanted.parameters.len() != known.len() {
            let [i, p] = [self.inputs.len(), known.len()];
            return Err(format!("there are {i} inputs and {p} parameters to want gradients of or not"));
        }
        let fits = |n: usize, shape: &[usize]| n == shape.iter().product::<usize>();
        let shape = &self.inputs[0].1;
        if !fits(d_out.len(), shape) {
            return Err(format!("the gradient has {} elements for {shape:?}", d_out.len()));
        }
        let of_inputs = wanted.inputs.iter().zip(self.inputs.iter().map(|(_, shape)| shape));
        let mut all = of_inputs.chain(wanted.parameters.iter().zip(known.iter().map(|p| &p.shape)));
        let wrong = |(room, shape): (&Option<&mut [f32]>, &Vec<usize>)| {
            room.as_ref().filter(|room| !fits(room.len(), shape)).map(|room| (room.len(), shape.clone()))
        };
        if let Some((n, shape)) = all.find_map(wrong) {
            return Err(format!("the room for a gradient has {n} elements for {shape:?}"));
        }
        let given = SconceTensor::of("out", shape, d_out.as_ptr().cast_mut());
        let rooms = wanted.inputs.iter_mut().zip(&self.inputs);
        let d_inputs =
            rooms.map(|(room, (name, shape))| Some(SconceTensor::of(name, shape, room.as_mut()?.as_mut_ptr())));
        let rooms = wanted.parameters.iter_mut().zip(known);
        let d_parameters =
            rooms.map(|(room, p)| Some(SconceTensor::of(&p.name, &p.shape, room.as_mut()?.as_mut_ptr())));
        let (d_inputs, d_parameters) = (Lent::of(d_inputs), Lent::of(d_parameters));
        let tape = self.tape;
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
