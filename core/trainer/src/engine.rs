//! A denoiser whose engine is a plugin's own ([`Network`]): one node of the graph, whose inputs and parameters cross to the
//! plugin as plain memory, the machine's or the GPU's, and whose gradients are the plugin's vector-Jacobian product. The
//! parameters are the program's to train, average, save and restore like any other's; the plugin is told their values before
//! each pass.

#[cfg(feature = "cuda")]
mod cuda;
mod host;
mod pass;

use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Error, Result, Tensor, TensorId, bail};
use sconce_nn::function::{function_of_many, trains};
use sconce_nn::store::Init;
use sconce_nn::{Param, Store};
use sconce_sdk::network::{About, Condition, Parameter};
use sconce_sdk::{Network, Noise};

use self::host::Host;
use self::pass::{Pass, Side};
use crate::architecture::{Architecture, Start};
use crate::cond::Cond;
use crate::model::{Backbone, Recompute, RecomputeCell};

/// A network of a plugin's as what a [backbone] table makes.
pub struct Plain(pub Arc<dyn Network>);

impl Architecture for Plain {
    fn about(&self) -> About {
        self.0.about()
    }

    fn build(&self, store: Arc<Store>) -> Result<Arc<dyn Backbone>> {
        Ok(Arc::new(Engine::new(self.0.clone(), store)?))
    }

    fn start(&self) -> Start {
        let (network, parameters) = (self.0.clone(), self.0.parameters());
        Start::Own(Box::new(move |name| {
            let Some(i) = parameters.iter().position(|p| p.name == name) else { bail!("it has no parameter `{name}`") };
            let mut values = vec![0.0; parameters[i].elements()];
            network.read(i, &mut values).map_err(Error::Msg)?;
            Tensor::from_vec(values, parameters[i].shape.as_slice(), &Device::Cpu)
        }))
    }

    fn dtype(&self, _: DType) -> DType {
        DType::F32
    }
}

/// The network in the memory of the GPU that the program computes on, if it works there.
#[cfg(feature = "cuda")]
fn on_gpu(network: &dyn Network, device: &Device) -> Result<Option<Arc<dyn Side>>> {
    cuda::side(network, device)
}

#[cfg(not(feature = "cuda"))]
fn on_gpu(_: &dyn Network, _: &Device) -> Result<Option<Arc<dyn Side>>> {
    Ok(None)
}

/// The network on parameters of the program's.
struct Engine {
    about: About,
    network: Arc<dyn Network>,
    side: Arc<dyn Side>,
    store: Arc<Store>,
    /// In the network's order.
    params: Vec<Param>,
    /// Held while the network is asked: which frozen parameters it was told.
    told: Arc<Mutex<Vec<Option<TensorId>>>>,
    recompute: RecomputeCell,
}

impl Engine {
    fn new(network: Arc<dyn Network>, store: Arc<Store>) -> Result<Self> {
        let (root, about) = (store.root(), network.about());
        if about.channels == 0 || about.side_multiple == 0 {
            bail!("the backbone takes latents of {} channels, of multiples of {}", about.channels, about.side_multiple);
        }
        let param = |p: Parameter| match p.name.is_empty() {
            true => bail!("a parameter of the backbone has no name"),
            false => root.param(&p.name, p.shape, Init::Zeros),
        };
        let params: Vec<Param> = network.parameters().into_iter().map(param).collect::<Result<_>>()?;
        let side = match on_gpu(&*network, store.device())? {
            Some(side) => side,
            None => Arc::new(Host(network.clone())),
        };
        let told = Arc::new(Mutex::new(vec![None; params.len()]));
        Ok(Self { about, network, side, store, params, told, recompute: RecomputeCell::default() })
    }

    fn condition(&self, named: &Condition, cond: &Cond, batch: usize) -> Result<Tensor> {
        let tensor = cond.get(&named.name)?;
        named.takes(tensor.dims().get(1..).unwrap_or_default()).map_err(Error::Msg)?;
        match tensor.dims().first() == Some(&batch) {
            true => Ok(tensor.clone()),
            false => bail!("the condition `{}` is not of {batch} pictures: {:?}", named.name, tensor.dims()),
        }
    }
}

impl Backbone for Engine {
    fn forward(&self, x: &Tensor, time: &Tensor, cond: &Cond) -> Result<Tensor> {
        self.store.recall()?;
        let (batch, channels, height, width) = x.dims4()?;
        let multiple = self.about.side_multiple;
        if channels != self.about.channels || height % multiple != 0 || width % multiple != 0 {
            bail!(
                "the backbone takes latents of {} channels with sides that are multiples of {multiple}, not {channels} x \
                 {height} x {width}",
                self.about.channels
            );
        }
        let mut inputs = vec![("x".to_owned(), x.clone()), ("time".to_owned(), time.clone())]; // B C H W, B
        for named in &self.about.conditions {
            inputs.push((named.name.clone(), self.condition(named, cond, batch)?));
        }
        let params = self.params.iter().map(|p| Ok((p.name().to_owned(), p.tensor()?))).collect::<Result<Vec<_>>>()?;
        let all: Vec<Tensor> = inputs.iter().chain(&params).map(|(_, tensor)| tensor.clone()).collect();
        let inputs = inputs.into_iter().map(|(name, tensor)| (name, tensor.detach())).collect();
        let pass = Pass { side: self.side.clone(), told: self.told.clone(), inputs, params };
        if !all.iter().any(trains) {
            return pass.forward();
        }
        let (out, kept) = match self.recompute.get() {
            Recompute::Nothing => pass.record().map(|(out, kept)| (out, Some(kept)))?,
            Recompute::Blocks => (pass.forward()?, None),
        };
        let kept = Mutex::new(kept);
        let leaves = all.clone();
        function_of_many("engine", &leaves.iter().collect::<Vec<_>>(), out, move |d_out| {
            let mut kept = kept.lock().unwrap_or_else(|e| e.into_inner());
            let kept = match kept.as_mut() {
                Some(kept) => kept,
                None => kept.insert(pass.record()?.1),
            };
            pass.backward(&mut **kept, d_out, &all)
        })
    }

    fn time(&self, t: f64, noise: &Noise) -> f64 {
        self.network.time(t, noise)
    }

    fn store(&self) -> &Arc<Store> {
        &self.store
    }

    fn recompute(&self, what: Recompute) {
        self.recompute.set(what);
    }

    fn channels(&self) -> usize {
        self.about.channels
    }

    fn side_multiple(&self) -> usize {
        self.about.side_multiple
    }

    fn dtype(&self) -> DType {
        DType::F32
    }

    fn remark(&self) -> Option<&'static str> {
        let away = !self.store.device().is_cpu() && self.side.by_host();
        away.then_some(
            "the backbone works in the machine's memory: its tensors are copied there and back for each pass",
        )
    }
}
