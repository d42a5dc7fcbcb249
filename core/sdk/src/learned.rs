//! What a scalar plugin may learn as a run goes: a state of plain numbers beside it, which the step asks, tells what it
//! saw after each update, and keeps in the checkpoint. It is a pure function of what it was told, so a resumed run is the
//! same run; a plugin that learns nothing has none and pays nothing.

/// One picture of an update, as its forward pass left it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// The quantile of the sampler's own distribution at which it was trained.
    pub quantile: f64,
    /// The log-SNR there; infinite without signal or noise.
    pub log_snr: f64,
    /// The weighting's factor there, without what was learned.
    pub weight: f64,
    /// The mean squared error of the output.
    pub error: f64,
    /// The weighted loss, `weight` times the mean distance.
    pub loss: f64,
    /// The logarithm of the loss that a learned weighting expected there, by which it was divided: 0 where there is none.
    pub log_loss: f64,
    /// How often pictures like it are drawn by the plugin's own distribution, against how often they are by what was
    /// learned: 1 where nothing was.
    pub importance: f64,
}

/// A state that is told what was seen, and can be written down.
pub trait Learned: Send {
    /// Takes in the pictures of one update.
    fn observe(&mut self, seen: &[Observation]);

    /// Everything needed to go on exactly.
    fn save(&self) -> Vec<f64>;

    /// Takes it back; an error says what does not fit.
    fn restore(&mut self, state: &[f64]) -> Result<(), String>;
}

/// What a timestep sampler learned: a map of [0, 1) onto itself before its own quantiles.
///
/// Laws: the map rises from 0 to 1, and the weight is its derivative. That is what keeps the loss unbiased: a place that
/// is drawn n times as often counts 1/n, whatever the state.
pub trait SamplerState: Learned {
    /// The quantile to train at in place of u, and its weight dv/du.
    fn map(&self, u: f64) -> [f64; 2];
}

/// What a weighting learned: the logarithm u(lambda) of the loss that it expects, by which a loss L becomes
/// L/e^u + u (Kendall, Gal & Cipolla 2018; Karras et al. 2024, equation 21).
///
/// Laws: finite, at infinite log-SNRs too.
pub trait WeightingState: Learned {
    /// u at a log-SNR.
    fn log_loss(&self, log_snr: f64) -> f64;
}
