//! What the pictures are mixed with. A plugin of this kind sees the batch and gives its noise, as a function of (seed,
//! images seen) alone, but where pairing needs the pictures: a resumed run draws the same.

use candle_core::{Result, Tensor};
use sconce_nn::rng::Stream;
use sconce_sdk::{Kind, Noise};

/// The batch that noise is drawn for.
pub struct Batch<'a> {
    /// The clean latents, B C H W.
    pub x0: &'a Tensor,
    /// Signal and noise of each picture.
    pub levels: &'a [Noise],
    /// The run's seed.
    pub seed: u64,
    /// Pictures seen before this batch.
    pub images_seen: u64,
}

impl Batch<'_> {
    /// The random numbers of `purpose` at this point of the run.
    pub fn stream(&self, purpose: &str) -> Stream {
        Stream::new(self.seed, purpose).at(self.images_seen, 0)
    }

    /// Standard normal numbers of the latents' shape.
    pub fn normal(&self, purpose: &str) -> Result<Tensor> {
        self.stream(purpose).normal(self.x0.shape(), self.x0.device())
    }
}

/// Noise for a batch, B C H W each.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// The eps of x_t = alpha x0 + sigma eps, which the network is given.
    pub input: Tensor,
    /// The eps of y = a x0 + b eps, which it is to output: the same, but where a plugin parts the two.
    pub target: Tensor,
}

impl Drawn {
    /// The same for both.
    pub fn plain(eps: Tensor) -> Self {
        Self { input: eps.clone(), target: eps }
    }

    /// With `more` in both.
    pub fn plus(&self, more: &Tensor) -> Result<Self> {
        Ok(Self { input: self.input.broadcast_add(more)?, target: self.target.broadcast_add(more)? })
    }
}

/// What the pictures are mixed with.
///
/// Laws: finite, of the latents' shape, a function of (seed, images seen) and, where pictures are paired with noise, of
/// the batch's latents.
pub trait NoiseSource: Send + Sync {
    /// Noise for each picture of a batch.
    fn draw(&self, batch: &Batch) -> Result<Drawn>;
}

impl Kind for dyn NoiseSource {
    const NAME: &'static str = "noise";
    const ABOUT: &'static str = "what the pictures are mixed with";
}
