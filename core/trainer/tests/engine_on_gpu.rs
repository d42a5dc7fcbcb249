//! A network of a plugin's in the memory of a GPU answers as it does in the machine's, to the bit, and is given nothing by the
//! machine's memory:
//!
//!     SCONCE_TEST_DEVICE=cuda:0 cargo test --release -p sconce-core --features cuda --test engine_on_gpu
#![cfg(feature = "cuda")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use candle_core::cuda_backend::cudarc::driver::{result, sys};
use candle_core::{DType, Device, Error, Result, Var};
use sconce_core::Cond;
use sconce_core::architecture::{Architecture, Start};
use sconce_core::model::{Backbone, Recompute};
use sconce_nn::Store;
use sconce_nn::checkpoint::backward;
use sconce_nn::rng::Stream;
use sconce_nn::store::Source;
use sconce_patch_mlp::PatchMlp;
use sconce_sdk::network::{About, Buffer, Gradients, Network, Parameter, Tape};
use sconce_sdk::{Cuda, CudaBuffer, CudaGradients, CudaNetwork, CudaTape, Kind};
use serde_json::json;

fn small() -> PatchMlp {
    serde_json::from_value(json!({ "channels": 3, "width": 12, "words": 6 })).expect("its parameters")
}

/// The example's network, which on a GPU takes its tensors from there by itself and puts its answers there.
struct Staged {
    inner: PatchMlp,
    /// Passes by the machine's memory.
    by_host: AtomicUsize,
}

impl Staged {
    fn new() -> Arc<Self> {
        Arc::new(Self { inner: small(), by_host: AtomicUsize::new(0) })
    }
}

impl Network for Staged {
    fn about(&self) -> About {
        self.inner.about()
    }
    fn parameters(&self) -> Vec<Parameter> {
        self.inner.parameters()
    }
    fn read(&self, parameter: usize, out: &mut [f32]) -> std::result::Result<(), String> {
        self.inner.read(parameter, out)
    }
    fn write(&self, parameter: usize, values: &[f32]) -> std::result::Result<(), String> {
        self.inner.write(parameter, values)
    }
    fn record(&self, inputs: &[Buffer], out: &mut [f32]) -> std::result::Result<Box<dyn Tape>, String> {
        self.by_host.fetch_add(1, Ordering::Relaxed);
        self.inner.record(inputs, out)
    }
    fn on_cuda(&self, at: Cuda) -> std::result::Result<Option<Arc<dyn CudaNetwork>>, String> {
        let mut current = std::ptr::null_mut();
        // SAFETY: room for a context.
        unsafe { sys::cuCtxGetCurrent(&raw mut current) }.result().map_err(|e| e.to_string())?;
        assert_eq!(current as usize, at.context, "the program's context is the calling thread's");
        Ok(Some(Arc::new(There { inner: small(), at })))
    }
}

struct There {
    inner: PatchMlp,
    at: Cuda,
}

fn fetched(at: Cuda, buffer: CudaBuffer) -> std::result::Result<Vec<f32>, String> {
    let mut data = vec![f32::NAN; buffer.elements()];
    // SAFETY: the buffer has so many elements, and the copy is done before the data is looked at.
    let copied = unsafe {
        let stream = at.stream as sys::CUstream;
        result::memcpy_dtoh_async(&mut data, buffer.address(), stream)
            .and_then(|()| result::stream::synchronize(stream))
    };
    copied.map(|()| data).map_err(|e| e.to_string())
}

fn put(at: Cuda, data: &[f32], buffer: CudaBuffer) -> std::result::Result<(), String> {
    assert_eq!(data.len(), buffer.elements());
    // SAFETY: the buffer has so many elements, and the copy is done before the data is freed.
    let copied = unsafe {
        let stream = at.stream as sys::CUstream;
        result::memcpy_htod_async(buffer.address(), data, stream).and_then(|()| result::stream::synchronize(stream))
    };
    copied.map_err(|e| e.to_string())
}

impl CudaNetwork for There {
    fn write(&self, parameter: usize, values: CudaBuffer) -> std::result::Result<(), String> {
        self.inner.write(parameter, &fetched(self.at, values)?)
    }

    fn record(&self, inputs: &[CudaBuffer], out: CudaBuffer) -> std::result::Result<Box<dyn CudaTape>, String> {
        let data: Vec<Vec<f32>> = inputs.iter().map(|i| fetched(self.at, *i)).collect::<std::result::Result<_, _>>()?;
        let buffer = |(i, data): (&CudaBuffer<'_>, &Vec<f32>)| (i.name().to_owned(), i.shape().to_vec(), data.clone());
        let named: Vec<_> = inputs.iter().zip(&data).map(buffer).collect();
        let buffers: Vec<Buffer> = named.iter().map(|(name, shape, data)| Buffer { name, shape, data }).collect();
        let mut answer = vec![0.0; out.elements()];
        let tape = self.inner.record(&buffers, &mut answer)?;
        put(self.at, &answer, out)?;
        Ok(Box::new(Taped { tape: Mutex::new(tape), at: self.at }))
    }
}

struct Taped {
    tape: Mutex<Box<dyn Tape>>,
    at: Cuda,
}

impl CudaTape for Taped {
    fn backward(&mut self, d_out: CudaBuffer, wanted: &CudaGradients) -> std::result::Result<(), String> {
        let rooms = |list: &[Option<CudaBuffer>]| -> Vec<Option<Vec<f32>>> {
            list.iter().map(|room| room.as_ref().map(|room| vec![0.0; room.elements()])).collect()
        };
        let (mut inputs, mut parameters) = (rooms(&wanted.inputs), rooms(&wanted.parameters));
        let mut host = Gradients {
            inputs: inputs.iter_mut().map(Option::as_deref_mut).collect(),
            parameters: parameters.iter_mut().map(Option::as_deref_mut).collect(),
        };
        let d_out = fetched(self.at, d_out)?;
        self.tape.get_mut().map_err(|e| e.to_string())?.backward(&d_out, &mut host)?;
        let all = wanted.inputs.iter().zip(inputs).chain(wanted.parameters.iter().zip(parameters));
        all.filter_map(|(buffer, data)| buffer.zip(data)).try_for_each(|(buffer, data)| put(self.at, &data, buffer))
    }
}

/// Output and gradients of x, context and each parameter.
fn answers(network: Arc<Staged>, device: &Device, recompute: Recompute) -> Result<Vec<Vec<f32>>> {
    let network: Arc<dyn Network> = network;
    let engine = <dyn Architecture>::adapted(Box::new(network)).expect("a network is one");
    let Start::Own(read) = engine.start() else { panic!("an engine knows what it starts from") };
    let store = Store::new("backbone", Source::Own(read), DType::F32, device);
    let backbone: Arc<dyn Backbone> = engine.build(store.clone())?;
    assert_eq!(backbone.remark(), None);
    backbone.recompute(recompute);
    let trained: Vec<Var> = store.params().iter().map(|p| p.train()).collect::<Result<_>>()?;
    let of = |name: &str, shape: &[usize]| Stream::new(4, name).normal(shape, device);
    let (x, context) = (Var::from_tensor(&of("x", &[2, 3, 4, 6])?)?, Var::from_tensor(&of("context", &[2, 5, 6])?)?);
    let cond = Cond::default().with("context", context.as_tensor().clone());
    let mut answers = Vec::new();
    // Twice: what was trained between is told again.
    for _ in 0..2 {
        let y = backbone.forward(&x, &of("time", &[2])?, &cond)?;
        let mut gradients = backward(&(&y * of("weigh", &[2, 3, 4, 6])?)?.sum_all()?)?;
        answers.push(y.flatten_all()?.to_vec1()?);
        for of in [&x, &context].into_iter().chain(&trained) {
            let gradient = gradients.remove(of).ok_or_else(|| Error::Msg("no gradient".into()))?;
            answers.push(gradient.flatten_all()?.to_vec1()?);
        }
        trained[0].set(&(trained[0].as_tensor() * 0.5)?)?;
    }
    let broken = backbone.forward(&(x.as_tensor() + f64::NAN)?, &of("time", &[2])?, &cond);
    let error = broken.expect_err("an output of NaN").to_string();
    assert!(error.contains("the backbone: its output is NaN at element "), "{error}");
    Ok(answers)
}

#[test]
fn a_network_on_the_gpu_gives_the_bits_of_the_one_in_the_machine() -> Result<()> {
    let name = std::env::var("SCONCE_TEST_DEVICE").expect("SCONCE_TEST_DEVICE=cuda:0 names the GPU");
    let device = Device::new_cuda(name.trim_start_matches("cuda:").parse().expect("a number"))?;
    for recompute in [Recompute::Nothing, Recompute::Blocks] {
        let (here, there) = (Staged::new(), Staged::new());
        let (ours, theirs) =
            (answers(there.clone(), &device, recompute)?, answers(here.clone(), &Device::Cpu, recompute)?);
        assert_eq!(ours.len(), 2 * 9);
        assert!(ours == theirs, "{ours:?}\n{theirs:?}");
        assert!(ours.iter().all(|numbers| numbers.iter().any(|v| *v != 0.0)));
        assert_eq!(there.by_host.load(Ordering::Relaxed), 0);
        assert_ne!(here.by_host.load(Ordering::Relaxed), 0);
    }
    Ok(())
}
