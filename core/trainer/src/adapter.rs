//! Adapters: small trained additions to the layers of a frozen model. A plugin of this kind says what goes on one layer;
//! the trainer picks the layers by pattern, and the file layouts are the key maps' matter.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Result, Tensor};
use sconce_nn::layers::{LayerAdapter, Shape};
use sconce_nn::rng::Stream;
use sconce_nn::weights::WeightFiles;
use sconce_nn::{Adapted, Param, Store};
use sconce_sdk::Kind;

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
pub trait Adapter: Send + Sync {
    /// Patterns of the layers to adapt, with `*` for any text: `*.attn*.to_q`. Matched against `component.path`.
    fn targets(&self) -> &[String];

    /// Factor on the learning rate of the trained tensor with this short name.
    fn lr_factor(&self, _short: &str) -> f64 {
        1.0
    }

    /// How many numbers it trains on one layer: for estimates, before anything is built.
    fn elements(&self, layer: Shape) -> usize;

    /// A fresh adapter for one layer, which leaves the layer's output as it is until it trains.
    fn build(&self, component: &str, layer: &Adapted, init: &Stream) -> Result<Attached>;

    /// An adapter with given values (a file's), keyed by short name.
    fn restore(
        &self,
        component: &str,
        layer: &Adapted,
        tensors: &BTreeMap<String, Tensor>,
        constants: &BTreeMap<String, f64>,
    ) -> Result<Attached>;
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

/// A layout of adapter files: how layers and tensors are named. The model's layers are told by its stores, with or without
/// their values: the denoiser's, the autoencoder's, the text encoders'.
pub trait AdapterLayout: Send + Sync {
    /// The file's tensors.
    fn write(&self, stores: &[Arc<Store>], adapters: &[Saved]) -> Result<BTreeMap<String, Tensor>>;

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
