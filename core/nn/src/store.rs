//! Named parameters. A model asks its [`Scope`] for each weight by name and shape; the [`Store`] behind it takes the
//! values from weight files, from a seeded initialisation, or from nowhere (shapes only), and afterwards knows every
//! parameter and every adaptable layer by its path. A missing or misshapen key fails at once, an unused one at
//! [`Store::finish`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::{Arc, Mutex, RwLock};

use candle_core::{DType, Device, Result, Shape, Tensor, Var, bail};

use crate::layers::Adapted;
use crate::rng::Stream;
use crate::weights::WeightFiles;

/// How a parameter starts when no file gives it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All zeros.
    Zeros,
    /// All ones.
    Ones,
    /// Uniform on ±1/sqrt(fan_in), PyTorch's default for linear and convolution.
    FanIn(usize),
    /// Normal with this standard deviation.
    Normal(f64),
}

/// Where values come from.
pub enum Source {
    /// Weight files: every key must be there, with its shape.
    Files(WeightFiles),
    /// Seeded initialisation, a function of (seed, component, name) alone.
    Random(u64),
    /// Shapes without memory, to check a model against a key list.
    Shapes,
}

/// A named parameter: a frozen tensor, or a variable that trains. Clones share the value.
#[derive(Clone)]
pub struct Param(Arc<Inner>);

struct Inner {
    name: String,
    value: RwLock<Value>,
}

enum Value {
    Frozen(Tensor),
    Trains(Var),
}

impl Param {
    /// A frozen parameter.
    pub fn new(name: impl Into<String>, value: Tensor) -> Self {
        Self(Arc::new(Inner { name: name.into(), value: RwLock::new(Value::Frozen(value)) }))
    }

    /// The path in the model, as in its weight file: `down_blocks.0.resnets.0.conv1.weight`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The value, part of the graph where it trains.
    pub fn tensor(&self) -> Tensor {
        match &*self.0.value.read().expect("no writer panics") {
            Value::Frozen(t) => t.clone(),
            Value::Trains(v) => v.as_tensor().clone(),
        }
    }

    /// The variable, where it trains.
    pub fn var(&self) -> Option<Var> {
        match &*self.0.value.read().expect("no writer panics") {
            Value::Frozen(_) => None,
            Value::Trains(v) => Some(v.clone()),
        }
    }

    /// Makes it a variable, with an f32 master value whatever the stored type was.
    pub fn train(&self) -> Result<Var> {
        self.train_as(DType::F32)
    }

    /// Makes it a variable of type `dtype`.
    pub fn train_as(&self, dtype: DType) -> Result<Var> {
        let mut value = self.0.value.write().expect("no writer panics");
        let var = match &*value {
            Value::Trains(v) => v.clone(),
            Value::Frozen(t) => Var::from_tensor(&t.to_dtype(dtype)?.contiguous()?)?,
        };
        *value = Value::Trains(var.clone());
        Ok(var)
    }

    /// Makes it a frozen tensor of `dtype` again.
    pub fn freeze(&self, dtype: DType) -> Result<()> {
        let tensor = self.tensor().detach().to_dtype(dtype)?;
        *self.0.value.write().expect("no writer panics") = Value::Frozen(tensor);
        Ok(())
    }

    /// Replaces the value; the shape must stay.
    pub fn set(&self, tensor: &Tensor) -> Result<()> {
        let old = self.tensor();
        if old.shape() != tensor.shape() {
            bail!("`{}` has shape {:?}, the new value {:?}", self.name(), old.shape(), tensor.shape());
        }
        let mut value = self.0.value.write().expect("no writer panics");
        match &*value {
            Value::Trains(v) => v.set(&tensor.to_dtype(v.dtype())?.to_device(v.device())?.contiguous()?)?,
            Value::Frozen(_) => *value = Value::Frozen(tensor.to_device(old.device())?),
        }
        Ok(())
    }
}

/// All parameters and adaptable layers of one component (a UNet, a text encoder, a VAE).
pub struct Store {
    component: String,
    source: Source,
    dtype: DType,
    device: Device,
    params: Mutex<BTreeMap<String, Param>>,
    layers: Mutex<BTreeMap<String, Adapted>>,
    buffers: Mutex<BTreeMap<String, Buffer>>,
}

/// A tensor of the weight files that is no parameter: it follows from the config, and never trains.
#[derive(Clone)]
struct Buffer {
    shape: Shape,
    default: Arc<dyn Fn() -> Result<Tensor> + Send + Sync>,
}

impl Store {
    /// A store for `component` (the folder's name: `unet`, `text_encoder`, …) whose frozen values are kept as `dtype`.
    pub fn new(component: impl Into<String>, source: Source, dtype: DType, device: &Device) -> Arc<Self> {
        Arc::new(Self {
            component: component.into(),
            source,
            dtype,
            device: device.clone(),
            params: Mutex::default(),
            layers: Mutex::default(),
            buffers: Mutex::default(),
        })
    }

    /// The root scope, for building the model.
    pub fn root(self: &Arc<Self>) -> Scope {
        Scope { store: self.clone(), path: String::new() }
    }

    /// The component's name.
    pub fn component(&self) -> &str {
        &self.component
    }

    /// The type in which frozen values are kept.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the values live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Call when the model is built: an error if the files hold keys that the model has no place for.
    pub fn finish(&self) -> Result<()> {
        let Source::Files(files) = &self.source else { return Ok(()) };
        let params = self.params.lock().expect("no holder panics");
        let buffers = self.buffers.lock().expect("no holder panics");
        let known = |key: &str| params.contains_key(key) || buffers.contains_key(key);
        let unused: BTreeSet<&str> = files.keys().filter(|k| !known(k)).collect();
        if unused.is_empty() {
            return Ok(());
        }
        bail!(
            "{}: {} key(s) have no place in the model that its config.json describes, the first: {}. The config and \
             the weights are not of the same model.",
            self.component,
            unused.len(),
            unused.iter().take(5).map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ")
        )
    }

    /// Every parameter, sorted by name.
    pub fn params(&self) -> Vec<Param> {
        self.params.lock().expect("no holder panics").values().cloned().collect()
    }

    /// A parameter's value in f32 as its file holds it, where that is more than the store keeps: the start of an f32
    /// master, and what a model that is saved again must not lose. Otherwise its value as it is.
    pub fn exact(&self, param: &Param) -> Result<Tensor> {
        match &self.source {
            Source::Files(files) if self.dtype != DType::F32 && param.var().is_none() => {
                files.tensor(param.name(), DType::F32, &self.device)
            }
            _ => param.tensor().detach().to_dtype(DType::F32),
        }
    }

    /// The names of its buffers, sorted.
    pub fn buffers(&self) -> Vec<String> {
        self.buffers.lock().expect("no holder panics").keys().cloned().collect()
    }

    /// The value of a buffer on the CPU, in the type that its file has or else f32. It is read each time: buffers are large
    /// tables of which little is used.
    pub fn buffer(&self, name: &str) -> Result<Tensor> {
        let buffer = self.buffers.lock().expect("no holder panics").get(name).cloned();
        let Some(Buffer { shape, default }) = buffer else { bail!("{}: there is no buffer `{name}`", self.component) };
        match &self.source {
            Source::Files(files) if files.info(name).is_some() => files.stored(name, &Device::Cpu),
            Source::Shapes => Tensor::zeros((), self.dtype, &Device::Cpu)?.broadcast_as(shape),
            _ => default(),
        }
    }

    /// Every linear and convolution, by path: where adapters go.
    pub fn layers(&self) -> Vec<Adapted> {
        self.layers.lock().expect("no holder panics").values().cloned().collect()
    }

    /// The number of scalars in all parameters.
    pub fn elements(&self) -> usize {
        self.params().iter().map(|p| p.tensor().elem_count()).sum()
    }

    fn value(&self, name: &str, shape: &Shape, init: Init) -> Result<Tensor> {
        let from = &self.component;
        match &self.source {
            Source::Files(files) => {
                let Some((found, stored)) = files.info(name) else {
                    let first = files.paths().first().map(|p| p.display().to_string()).unwrap_or_default();
                    bail!(
                        "{first}: `{name}` {:?} of the {from} is missing: config.json and weights are not of the same \
                         model, or the file is not whole",
                        shape.dims()
                    )
                };
                if found != shape.dims() {
                    let path = files.path_of(name).map(|p| p.display().to_string()).unwrap_or_default();
                    bail!(
                        "{path}: `{name}` has shape {found:?}, the config asks for {:?}: config.json and weights are \
                         not of the same model",
                        shape.dims()
                    );
                }
                let value = files.tensor(name, self.dtype, &self.device)?;
                if !value.dtype().is_float() {
                    let path = files.path_of(name).map(|p| p.display().to_string()).unwrap_or_default();
                    bail!("{path}: `{name}` is stored as {stored}, which is no type of weights");
                }
                Ok(value)
            }
            Source::Random(seed) => {
                let stream = Stream::new(*seed, &format!("init {from}/{name}"));
                let value = match init {
                    Init::Zeros => Tensor::zeros(shape, DType::F32, &self.device)?,
                    Init::Ones => Tensor::ones(shape, DType::F32, &self.device)?,
                    Init::Normal(std) => (stream.normal(shape, &self.device)? * std)?,
                    Init::FanIn(fan_in) => {
                        let bound = 1.0 / (fan_in as f64).sqrt();
                        let u = stream.uniform(shape.elem_count());
                        let v: Vec<f32> = u.into_iter().map(|u| ((2.0 * u - 1.0) * bound) as f32).collect();
                        Tensor::from_vec(v, shape, &self.device)?
                    }
                };
                value.to_dtype(self.dtype)
            }
            Source::Shapes => Tensor::zeros((), self.dtype, &self.device)?.broadcast_as(shape),
        }
    }
}

/// A place in the tree of parameter names.
#[derive(Clone)]
pub struct Scope {
    store: Arc<Store>,
    path: String,
}

impl Scope {
    /// The child `name`: `scope.at("resnets").at(0)`.
    pub fn at(&self, name: impl Display) -> Self {
        Self { store: self.store.clone(), path: self.join(name) }
    }

    /// The path of this scope.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The store.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The parameter `name` here. Asking twice for one name is an error.
    pub fn param(&self, name: &str, shape: impl Into<Shape>, init: Init) -> Result<Param> {
        let name = self.join(name);
        let param = Param::new(name.clone(), self.store.value(&name, &shape.into(), init)?);
        let mut params = self.store.params.lock().expect("no holder panics");
        if params.insert(name.clone(), param.clone()).is_some() {
            bail!("{}: `{name}` is asked for twice", self.store.component);
        }
        Ok(param)
    }

    /// Makes the buffer `name` known here, see [`Store::buffer`]. `default` computes it where no file holds it.
    ///
    /// # Errors
    /// If a file holds it with another shape.
    pub fn buffer(
        &self,
        name: &str,
        shape: impl Into<Shape>,
        default: impl Fn() -> Result<Tensor> + Send + Sync + 'static,
    ) -> Result<()> {
        let (name, shape) = (self.join(name), shape.into());
        if let Source::Files(files) = &self.store.source
            && let Some((found, _)) = files.info(&name)
            && found != shape.dims()
        {
            bail!("{}: `{name}` has shape {found:?}, the config asks for {:?}", self.store.component, shape.dims());
        }
        self.store.buffers.lock().expect("no holder panics").insert(name, Buffer { shape, default: Arc::new(default) });
        Ok(())
    }

    /// Makes a layer known as a place for adapters.
    pub(crate) fn register(&self, layer: &Adapted) {
        self.store.layers.lock().expect("no holder panics").insert(self.path.clone(), layer.clone());
    }

    fn join(&self, name: impl Display) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }
}
