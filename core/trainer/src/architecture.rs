//! A denoiser that a recipe names in its [backbone] table, to stand in the place of a model's own among its text encoders and
//! its autoencoder: a network in tensors, built on the parameters of a store, to which adapters, packing and all else apply;
//! or one with an engine of its own ([`Network`]).

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};
use sconce_nn::Store;
use sconce_sdk::network::About;
use sconce_sdk::registry::Object;
use sconce_sdk::{Kind, Network};

use crate::engine::Plain;
use crate::model::Backbone;

/// What a [backbone] table makes.
///
/// Laws: it asks for the same parameters whatever they start from, each once; asked the same, it answers the same, to the bit, in
/// the shape of x, and of each picture whatever else is in its batch; the gradients are those of differences, and the same where
/// blocks are computed again; its weight file gives it back.
pub trait Architecture: Send + Sync {
    /// What can be told before it is built. The conditions are for engines: a network in tensors takes what it needs.
    fn about(&self) -> About;

    /// The network on the parameters of `store`, which it asks for by name and shape.
    fn build(&self, store: Arc<Store>) -> Result<Arc<dyn Backbone>>;

    /// What its parameters start from where no file has them.
    fn start(&self) -> Start {
        Start::Seeded
    }

    /// The type that it computes in, where the recipe asks for `asked`.
    fn dtype(&self, asked: DType) -> DType {
        asked
    }
}

/// What parameters start from.
pub enum Start {
    /// The recipe's `model.random_seed`, as each parameter's `Init` says.
    Seeded,
    /// What the plugin says, by name.
    Own(Box<dyn Fn(&str) -> Result<Tensor> + Send + Sync>),
}

impl Kind for dyn Architecture {
    const NAME: &'static str = <dyn Network as Kind>::NAME;
    const ABOUT: &'static str = <dyn Network as Kind>::ABOUT;

    fn adapted(object: Object) -> Option<Arc<Self>> {
        let network = object.downcast::<Arc<dyn Network>>().ok()?;
        Some(Arc::new(Plain(*network)))
    }
}
