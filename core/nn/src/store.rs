//! Named parameters. A model asks its [`Scope`] for each weight by name and shape; the [`Store`] behind it takes the
//! values from weight files, from a seeded initialisation, or from nowhere (shapes only), and afterwards knows every
//! parameter and every adaptable layer by its path. A missing or misshapen key fails at once, an unused one at
//! [`Store::finish`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Result, Shape, Tensor, bail};

use crate::held::Held;
use crate::layers::Adapted;
pub use crate::param::Param;
use crate::quant::{Format, Packed};
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
    /// A network of another making, which says what its parameters start from, by their names.
    Own(Box<dyn Fn(&str) -> Result<Tensor> + Send + Sync>),
    /// Shapes without memory, to check a model against a key list.
    Shapes,
}

/// All parameters and adaptable layers of one component (a UNet, a text encoder, a VAE).
pub struct Store {
    component: String,
    source: Source,
    dtype: DType,
    device: Device,
    keep: Keep,
    reads: Reads,
    /// Whether some value was let go of.
    gone: AtomicBool,
    params: Mutex<BTreeMap<String, Kept>>,
    layers: Mutex<BTreeMap<String, Adapted>>,
    buffers: Mutex<BTreeMap<String, Buffer>>,
    blocks: AtomicUsize,
}

/// How the matrices of linear layers are kept while they do not train. Everything else is kept as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Packed into few bits.
    pub packed: Option<Format>,
    /// Those of the first so many blocks on the host, from where they visit the device.
    pub hosted_blocks: usize,
}

impl Keep {
    /// What of it holds for a parameter of so many numbers: the form that it is packed in, and whether it is on the host.
    fn of(self, matrix: Option<Place>, count: usize) -> (Option<Format>, bool) {
        let packed = self.packed.filter(|_| matrix.is_some() && count >= LEAST_PACKED);
        (packed, matrix.and_then(|place| place.block).is_some_and(|block| block < self.hosted_blocks))
    }
}

/// When values are read from weight files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reads {
    /// When the model is built.
    #[default]
    AtOnce,
    /// At the first [`Store::recall`]; names and shapes are checked when the model is built.
    WhenUsed,
}

/// Matrices smaller than this are not worth packing.
const LEAST_PACKED: usize = 4096;

/// A parameter, and what brings its value back.
#[derive(Clone)]
struct Kept {
    param: Param,
    init: Init,
    /// Whether it is a linear layer's matrix, and in which block.
    matrix: Option<Place>,
}

/// Where a matrix is.
#[derive(Clone, Copy)]
struct Place {
    block: Option<usize>,
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
        Self::keeping(component, source, dtype, device, Keep::default(), Reads::AtOnce)
    }

    /// [`Store::new`], with matrices kept as `keep` says, and read when `reads` says.
    pub fn keeping(
        component: impl Into<String>,
        source: Source,
        dtype: DType,
        device: &Device,
        keep: Keep,
        reads: Reads,
    ) -> Arc<Self> {
        Arc::new(Self {
            keep,
            reads,
            gone: AtomicBool::new(false),
            blocks: AtomicUsize::new(0),
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
        Scope { store: self.clone(), path: String::new(), block: None }
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
        self.params.lock().expect("no holder panics").values().map(|kept| kept.param.clone()).collect()
    }

    /// Its blocks, counted as [`Scope::block`] made them.
    pub fn blocks(&self) -> usize {
        self.blocks.load(Ordering::Relaxed)
    }

    /// Whether some of its parameters are matrices of linear layers, which [`Keep`] is about.
    pub fn has_matrices(&self) -> bool {
        self.params.lock().expect("no holder panics").values().any(|kept| kept.matrix.is_some())
    }

    /// Bytes that its parameters take where they are used, and on the host beside that.
    pub fn bytes(&self) -> [usize; 2] {
        let size = |p: &Param| match (p.frozen(), p.var()) {
            (Some(held), _) => held.bytes(),
            (None, var) => [var.map_or(0, |v| v.elem_count() * v.dtype().size_in_bytes()), 0],
        };
        self.params().iter().map(size).fold([0, 0], |[a, b], [c, d]| [a + c, b + d])
    }

    /// What [`Store::bytes`] would be with nothing trained, were its parameters kept so, what is not packed as `dtype`.
    pub fn bytes_as(&self, keep: Keep, dtype: DType) -> [usize; 2] {
        let mut bytes = [0, 0];
        for kept in self.params.lock().expect("no holder panics").values() {
            let count = kept.param.shape().elem_count();
            let (packed, hosted) = keep.of(kept.matrix, count);
            bytes[usize::from(hosted)] += packed.map_or(count * dtype.size_in_bytes(), |format| format.bytes(count));
        }
        bytes
    }

    /// Lets go of every value that does not train: [`Store::recall`] brings them back, as the source has them.
    pub fn release(&self) {
        for kept in self.params.lock().expect("no holder panics").values() {
            if let Some(held) = kept.param.frozen() {
                kept.param.hold(held.released());
            }
        }
        self.gone.store(true, Ordering::Release);
    }

    /// Brings back what was let go of; what was not stays as it is.
    pub fn recall(&self) -> Result<()> {
        if !self.gone.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let released: Vec<(String, Kept)> = {
            let params = self.params.lock().expect("no holder panics");
            let gone = |kept: &Kept| matches!(kept.param.frozen(), Some(Held::Released(_)));
            params.iter().filter(|(_, kept)| gone(kept)).map(|(name, kept)| (name.clone(), kept.clone())).collect()
        };
        for (name, Kept { param, init, matrix }) in released {
            match self.held(&name, &param.shape(), init, matrix) {
                Ok(held) => param.hold(held),
                Err(e) => {
                    self.gone.store(true, Ordering::Release);
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    /// A parameter's value in f32 as its file holds it, where that is more than the store keeps: the start of an f32
    /// master, and what a model that is saved again must not lose. Otherwise its value as it is.
    pub fn exact(&self, param: &Param) -> Result<Tensor> {
        let released = matches!(param.frozen(), Some(Held::Released(_)));
        let more = self.dtype != DType::F32 || self.keep != Keep::default();
        match &self.source {
            Source::Files(files) if released || (more && param.var().is_none()) => {
                files.tensor(param.name(), DType::F32, &self.device)
            }
            _ if released => {
                let kept = self.params.lock().expect("no holder panics").get(param.name()).cloned();
                let Some(Kept { init, .. }) = kept else { bail!("{}: no `{}`", self.component, param.name()) };
                self.value(param.name(), &param.shape(), init, &self.device)?.to_dtype(DType::F32)
            }
            _ => param.tensor()?.detach().to_dtype(DType::F32),
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
        self.params().iter().map(|p| p.shape().elem_count()).sum()
    }

    /// A value in the form that it is kept in.
    fn held(&self, name: &str, shape: &Shape, init: Init, matrix: Option<Place>) -> Result<Held> {
        let (packed, hosted) = self.keep.of(matrix, shape.elem_count());
        if matches!(self.source, Source::Shapes) || (packed.is_none() && !hosted) {
            return Ok(Held::Dense(self.value(name, shape, init, &self.device)?));
        }
        let value = self.value(name, shape, init, &Device::Cpu)?;
        let held = match packed {
            Some(format) => {
                let at = if hosted { &Device::Cpu } else { &self.device };
                Held::Packed(Packed::new(&value, format, self.dtype, at).map_err(|e| e.context(name.to_owned()))?)
            }
            None => Held::Dense(value),
        };
        Ok(if hosted { Held::Hosted(Box::new(held), self.device.clone()) } else { held })
    }

    /// An error if the files do not hold a tensor, or with another shape, or as what is no weight.
    fn demand(&self, files: &WeightFiles, name: &str, shape: &Shape) -> Result<()> {
        let from = &self.component;
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
        if stored == "bool" || stored.starts_with(['i', 'u']) {
            let path = files.path_of(name).map(|p| p.display().to_string()).unwrap_or_default();
            bail!("{path}: `{name}` is stored as {stored}, which is no type of weights");
        }
        Ok(())
    }

    fn value(&self, name: &str, shape: &Shape, init: Init, device: &Device) -> Result<Tensor> {
        let from = &self.component;
        match &self.source {
            Source::Files(files) => {
                self.demand(files, name, shape)?;
                files.tensor(name, self.dtype, device)
            }
            Source::Random(seed) => {
                let stream = Stream::new(*seed, &format!("init {from}/{name}"));
                let value = match init {
                    Init::Zeros => Tensor::zeros(shape, DType::F32, device)?,
                    Init::Ones => Tensor::ones(shape, DType::F32, device)?,
                    Init::Normal(std) => (stream.normal(shape, device)? * std)?,
                    Init::FanIn(fan_in) => {
                        let bound = 1.0 / (fan_in as f64).sqrt();
                        let u = stream.uniform(shape.elem_count());
                        let v: Vec<f32> = u.into_iter().map(|u| ((2.0 * u - 1.0) * bound) as f32).collect();
                        Tensor::from_vec(v, shape, device)?
                    }
                };
                value.to_dtype(self.dtype)
            }
            Source::Own(read) => read(name)?.reshape(shape)?.to_dtype(self.dtype)?.to_device(device),
            Source::Shapes => Tensor::zeros((), self.dtype, &self.device)?.broadcast_as(shape),
        }
    }
}

/// A place in the tree of parameter names.
#[derive(Clone)]
pub struct Scope {
    store: Arc<Store>,
    path: String,
    block: Option<usize>,
}

impl Scope {
    /// The child `name`: `scope.at("resnets").at(0)`.
    pub fn at(&self, name: impl Display) -> Self {
        Self { store: self.store.clone(), path: self.join(name), block: self.block }
    }

    /// The same place as one of the blocks that the network repeats, in the order in which they run: the unit by which
    /// weights stay on the host.
    pub fn block(&self) -> Self {
        Self { block: Some(self.store.blocks.fetch_add(1, Ordering::Relaxed)), ..self.clone() }
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
        self.add(name, shape.into(), init, None)
    }

    /// The matrix `name` of a linear layer here, kept as the store keeps them.
    pub fn matrix(&self, name: &str, shape: impl Into<Shape>, init: Init) -> Result<Param> {
        self.add(name, shape.into(), init, Some(Place { block: self.block }))
    }

    fn add(&self, name: &str, shape: Shape, init: Init, matrix: Option<Place>) -> Result<Param> {
        let name = self.join(name);
        let held = match (&self.store.source, self.store.reads) {
            (Source::Files(files), Reads::WhenUsed) => {
                self.store.demand(files, &name, &shape)?;
                self.store.gone.store(true, Ordering::Release);
                Held::absent(&shape, self.store.dtype, &self.store.device)
            }
            _ => self.store.held(&name, &shape, init, matrix)?,
        };
        let param = Param::held(name.clone(), held);
        let kept = Kept { param: param.clone(), init, matrix };
        let mut params = self.store.params.lock().expect("no holder panics");
        if params.insert(name.clone(), kept).is_some() {
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
