//! Adapters: small trained additions to the layers of a frozen model. A plugin of this kind says what goes on one layer;
//! the trainer picks the layers by pattern, and the file layouts are the key maps' matter.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Error, Result, Tensor, bail};
use sconce_nn::layers::{LayerAdapter, Shape};
use sconce_nn::rng::Stream;
use sconce_nn::weights::WeightFiles;
use sconce_nn::{Adapted, Param, Store};
use sconce_sdk::{Choice, Kind, registry};

use crate::hub::{self, Needs};

/// An adapter on one layer: what runs, and what trains.
pub struct Attached {
    /// The component of the layer (`unet`).
    pub component: String,
    /// The layer's path.
    pub path: String,
    /// What runs in the layer's forward.
    pub layer: Arc<dyn LayerAdapter>,
    /// Trained tensors by their short name (`lora_A.weight`).
    pub params: BTreeMap<String, Param>,
    /// Constants that belong in a file beside them (`alpha`).
    pub constants: BTreeMap<String, f64>,
    /// How it is averaged. `None`: each trained tensor by itself, which is right where what is added is linear in them.
    pub mean: Option<Arc<dyn Mean>>,
    /// What a file says of it beyond its trained tensors, where they are not all.
    pub file: Option<Arc<InFile>>,
}

/// Trained tensors and constants, as they are, to those that a file holds.
pub type InFile = dyn Fn(Saved) -> Result<Saved> + Send + Sync;

impl Attached {
    /// What a file holds of it, with these values of its tensors and constants.
    pub fn saved(&self, tensors: BTreeMap<String, Tensor>, constants: BTreeMap<String, f64>) -> Result<Saved> {
        let saved = Saved { component: self.component.clone(), path: self.path.clone(), tensors, constants };
        match &self.file {
            Some(file) => file(saved),
            None => Ok(saved),
        }
    }
}

/// How an adapter is averaged that is not linear in its trained tensors: by views of it that are linear in what it adds to
/// the layer.
pub trait Mean: Send + Sync {
    /// The views by name, in one order, f32.
    fn views(&self) -> Result<Vec<(&'static str, Tensor)>>;

    /// An adapter that adds what these averaged views tell, as near as `rank` allows (as it is trained, where none is
    /// given).
    fn tensors(&self, means: &[Tensor], rank: Option<usize>) -> Result<Averaged>;
}

/// An adapter made from averaged views.
pub struct Averaged {
    /// Its tensors by short name, as in [`Attached`].
    pub tensors: BTreeMap<String, Tensor>,
    /// The constants beside them.
    pub constants: BTreeMap<String, f64>,
    /// The squared norm of what it leaves out of the average.
    pub left_out: f64,
    /// The squared norm of the average.
    pub whole: f64,
}

/// How layers are adapted.
///
/// Laws: a fresh one changes nothing; what it trains is what it says, and all of it gets a gradient; merged into the weight it
/// computes what it does beside it; its file gives it back, and half its strength is half its effect.
pub trait Adapter: Send + Sync {
    /// Patterns of the layers to adapt, with `*` for any text: `*.attn*.to_q`. Matched against `component.path`.
    fn targets(&self) -> &[String];

    /// Every pattern that it names, each of which must match a layer.
    fn patterns(&self) -> Vec<&String> {
        self.targets().iter().collect()
    }

    /// Factor on the learning rate of the trained tensor with this short name.
    fn lr_factor(&self, _short: &str) -> f64 {
        1.0
    }

    /// The short names that its tensors have in files: all that it may write.
    fn tensors(&self) -> Vec<&'static str>;

    /// Whether a file's tensors on a layer, by short name, are of this kind.
    fn knows(&self, tensors: &BTreeMap<String, Tensor>) -> bool {
        tensors.keys().all(|short| self.tensors().contains(&short.as_str()))
    }

    /// How many numbers it trains on the layer at `place` (`component.path`): for estimates, before anything is built.
    fn elements(&self, place: &str, layer: Shape) -> usize;

    /// A fresh adapter for one layer of `store`, which leaves the layer's output as it is until it trains.
    fn build(&self, store: &Store, layer: &Adapted, init: &Stream) -> Result<Attached>;

    /// An adapter with given values (a file's), keyed by short name, its effect multiplied by `strength`.
    fn restore(
        &self,
        component: &str,
        layer: &Adapted,
        tensors: &BTreeMap<String, Tensor>,
        constants: &BTreeMap<String, f64>,
        strength: f64,
    ) -> Result<Attached>;

    /// [`build`](Self::build) that starts where another of its kind ended. The default takes one of the same shapes.
    fn start(&self, store: &Store, layer: &Adapted, init: &Stream, from: &Saved) -> Result<Attached> {
        let fresh = self.build(store, layer, init)?;
        let tensors = from.tensors.iter().map(|(k, t)| Ok((k.clone(), t.to_device(&layer.weight().device())?)));
        let was = self.restore(&from.component, layer, &tensors.collect::<Result<_>>()?, &from.constants, 1.0)?;
        let form = |of: &Attached| {
            let shapes = of.params.iter().map(|(short, p)| format!("{short} {:?}", p.shape().dims()));
            let constants = of.constants.iter().map(|(name, value)| format!("{name} {value}"));
            shapes.chain(constants).collect::<Vec<_>>().join(", ")
        };
        if form(&was) != form(&fresh) {
            bail!("{}: the file's adapter has {}; the recipe's {}", from.place(), form(&was), form(&fresh));
        }
        fresh.params.iter().try_for_each(|(short, param)| param.set(&was.params[short].tensor()?))?;
        Ok(fresh)
    }
}

/// The registered adapter that a file's tensors on a layer are of.
pub fn of_tensors(saved: &Saved) -> Result<Choice<dyn Adapter>> {
    for plugin in registry::of_kind(<dyn Adapter as Kind>::NAME).map_err(|e| Error::Msg(e.to_string()))? {
        let adapter = Choice::<dyn Adapter>::named(plugin.name).map_err(|e| Error::Msg(e.to_string()))?;
        if adapter.knows(&saved.tensors) {
            return Ok(adapter);
        }
    }
    let names: Vec<&str> = saved.tensors.keys().map(String::as_str).collect();
    bail!("{}: no adapter is made of {}", saved.place(), names.join(", "))
}

/// Reads an adapter file, here or of the Hub, in whichever registered layout it is, for a model of these layers.
pub fn read(stores: &[Arc<Store>], path: &Path) -> Result<Vec<Saved>> {
    let path = hub::here(path, Needs::Weights)?;
    let file = WeightFiles::open(&[&path])?;
    let mut known = Vec::new();
    for plugin in registry::of_kind(<dyn AdapterLayout as Kind>::NAME).map_err(|e| Error::Msg(e.to_string()))? {
        let layout = Choice::<dyn AdapterLayout>::named(plugin.name).map_err(|e| Error::Msg(e.to_string()))?;
        if let Some(found) = layout.read(stores, &file)? {
            return Ok(found);
        }
        known.push(plugin.name);
    }
    let first: Vec<&str> = file.keys().take(3).collect();
    bail!("{}: no adapter file of a known layout ({}); its keys begin with {first:?}", path.display(), known.join(", "))
}

/// An adapter on one layer, as a file holds it.
#[derive(Clone)]
pub struct Saved {
    /// The component of the layer.
    pub component: String,
    /// The layer's path.
    pub path: String,
    /// Tensors by their short name.
    pub tensors: BTreeMap<String, Tensor>,
    /// Constants beside them.
    pub constants: BTreeMap<String, f64>,
}

impl Saved {
    /// Where it is: `component.path`.
    pub fn place(&self) -> String {
        format!("{}.{}", self.component, self.path)
    }
}

/// A layout of adapter files: how layers and tensors are named. The model's layers are told by its stores, with or without
/// their values: the denoiser's, the autoencoder's, the text encoders'.
pub trait AdapterLayout: Send + Sync {
    /// The file's tensors.
    fn write(&self, stores: &[Arc<Store>], adapters: &[Saved]) -> Result<BTreeMap<String, Tensor>>;

    /// Whether the programs that read this layout know a tensor of this short name.
    fn carries(&self, short: &str) -> bool;

    /// What a file holds, or `None` if its keys are not of this layout. A key of this layout that fits no layer of the
    /// model is an error.
    fn read(&self, stores: &[Arc<Store>], file: &WeightFiles) -> Result<Option<Vec<Saved>>>;
}

impl Kind for dyn AdapterLayout {
    const NAME: &'static str = "adapter-layout";
    const ABOUT: &'static str = "how an adapter file names layers and tensors";
}

impl Kind for dyn Adapter {
    const NAME: &'static str = "adapter";
    const ABOUT: &'static str = "what is added to the layers of a frozen model";
}
