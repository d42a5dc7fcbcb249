//! Adapters: small trained additions to the layers of a frozen model. A plugin of this kind says what goes on one layer;
//! the trainer picks the layers by pattern, and the file layouts are the key maps' matter.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Result, Tensor};
use sconce_nn::layers::LayerAdapter;
use sconce_nn::rng::Stream;
use sconce_nn::{Adapted, Param};
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
}

/// How layers are adapted.
pub trait Adapter: Send + Sync {
    /// Patterns of the layers to adapt, with `*` for any text: `*.attn*.to_q`. Matched against `component.path`.
    fn targets(&self) -> &[String];

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

impl Kind for dyn Adapter {
    const NAME: &'static str = "adapter";
    const ABOUT: &'static str = "what is added to the layers of a frozen model";
}
