//! The kinds of scalar plugin, each a trait with its laws. [`crate::testkit`] checks the laws on everything registered.

use std::sync::Arc;

use crate::average::{Snapshots, Track};
use crate::learned::{SamplerState, WeightingState};
use crate::noise::{Level, Noise};
use crate::registry::Kind;

/// How much signal and noise there is at each time.
///
/// Laws: alpha >= 0 and sigma >= 0; log-SNR falls strictly in t; `t_of` inverts it; the derivatives agree with
/// differences; all of it at every size.
pub trait Schedule: Send + Sync {
    /// Signal and noise at t in [0, 1]: t = 0 is data, t = 1 is noise. A discrete schedule interpolates between its
    /// grid points (linearly in log-SNR), so that solvers may ask anywhere.
    fn at(&self, t: f64) -> Noise;

    /// The time of a log-SNR; the ends of [0, 1] for what lies beyond them.
    fn t_of(&self, log_snr: f64) -> f64 {
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..80 {
            let mid = 0.5 * (low + high);
            if self.at(mid).log_snr() > log_snr { low = mid } else { high = mid }
        }
        0.5 * (low + high)
    }

    /// The number of points of a discrete table: point i of `Some(n)` is at t = (i + 1)/n and exact there. Training
    /// draws its times from these points alone.
    fn grid(&self) -> Option<usize> {
        None
    }

    /// This schedule for latents of this many rows and columns; `None` where the size does not matter. A batch has one
    /// size: the step and the sampler ask here once. A wrapper asks what it wraps.
    fn at_size(&self, _height: usize, _width: usize) -> Option<Arc<dyn Schedule>> {
        None
    }
}

/// What the network learns: y = a x0 + b eps.
///
/// Laws: x0 and eps are recovered from (x_t, y) wherever the determinant is not 0.
pub trait Objective: Send + Sync {
    /// The pair `[a, b]` at a noise level.
    fn target(&self, noise: &Noise) -> [f64; 2];

    /// Factor on x_t before it enters the network (EDM's c_in; 1 elsewhere).
    fn input_scale(&self, _noise: &Noise) -> f64 {
        1.0
    }
}

/// How much the error counts at each noise level.
///
/// Laws: finite and not negative on every level that the timestep sampler draws; the weight on the x0 error does not
/// depend on the objective.
pub trait Weighting: Send + Sync {
    /// w(lambda), the factor on |x0 - x0'|².
    fn on_x0(&self, log_snr: f64) -> f64;

    /// What it learns as the run goes, at its start; `None` for one that is the same all along.
    fn start(&self) -> Option<Box<dyn WeightingState>> {
        None
    }

    /// The factor on the output error |y - y'|²: w sigma²/D², which is what the step uses.
    fn on_output(&self, noise: &Noise, target: [f64; 2]) -> f64 {
        let d = noise.determinant(target);
        self.on_x0(noise.log_snr()) * (noise.sigma / d).powi(2)
    }
}

/// Which times are trained on, as an inverse cumulative distribution, so that stratifying a batch is free.
///
/// The schedule is there for distributions over noise levels, such as a log-normal sigma; one over t does not look at it.
///
/// Laws: `quantile` rises in u and stays in [0, 1]; the density is that of the quantiles, and integrates to 1.
pub trait TimestepSampler: Send + Sync {
    /// The time t of the quantile u in [0, 1).
    fn quantile(&self, u: f64, schedule: &dyn Schedule) -> f64;

    /// The share of the draws at t or before it. Default: the quantile inverted by bisection.
    fn cumulative(&self, t: f64, schedule: &dyn Schedule) -> f64 {
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..60 {
            let mid = 0.5 * (low + high);
            if self.quantile(mid, schedule) <= t { low = mid } else { high = mid }
        }
        0.5 * (low + high)
    }

    /// Draws per unit of t. Default: the mean over the thousandth that t is in, which is an answer for single times too.
    fn density(&self, t: f64, schedule: &dyn Schedule) -> f64 {
        const CELLS: f64 = 1000.0;
        let end = (t * CELLS).ceil().clamp(1.0, CELLS);
        let below = if end > 1.0 { self.cumulative((end - 1.0) / CELLS, schedule) } else { 0.0 };
        CELLS * (self.cumulative(end / CELLS, schedule) - below)
    }

    /// What it learns as the run goes, at its start; `None` for one that draws the same all along. A plugin that changes
    /// the times of another gives what the other gives: the state stands before all quantiles.
    fn start(&self) -> Option<Box<dyn SamplerState>> {
        None
    }
}

/// How far an output is from its target, element by element: rho_c(d) of the difference d and of a width c.
///
/// Laws: rho is 0 at 0, even, and grows with |d|; the slope is its derivative; the width is finite and above 0.
///
/// A weighting is derived for squared errors. A distance that is d² near 0, as all of the built-in ones but `smooth-l1`
/// are, leaves it its meaning where errors are small beside the width; larger ones count as though their weight were
/// rho/d² of it.
pub trait Distance: Send + Sync {
    /// rho_c(d) and its derivative by d.
    fn at(&self, difference: f64, width: f64) -> [f64; 2];

    /// The same for many differences, all those of a sample, to the bit. A plugin in a library is called once for them.
    fn at_each(&self, differences: &[f64], width: f64, out: &mut [[f64; 2]]) {
        differences.iter().zip(out).for_each(|(d, out)| *out = self.at(*d, width));
    }

    /// The width c at a time.
    fn width(&self, _t: f64, _noise: &Noise) -> f64 {
        1.0
    }
}

/// How averages of the weights follow them.
///
/// Laws: every decay is in [0, 1]; that of a track with a profile is the profile's; snapshots come at distances above 0,
/// and only of tracks among which there is a profile to rebuild others from.
pub trait EmaStrategy: Send + Sync {
    /// The averages that are kept, the same over the whole run. The first is what is validated, drawn and written at the
    /// end; where there is none, the weights themselves are.
    fn tracks(&self) -> Vec<Track>;

    /// average <- decay · average + (1 - decay) · weights, for the average `track` (counted as in `tracks`) after a step of
    /// `batch` images that ends at `images_seen`.
    fn decay(&self, track: usize, images_seen: u64, batch: u64) -> f64;

    /// Whether, in a run of `images_total`, all averages are written down as it goes, for `sconce ema`.
    fn snapshots(&self, _images_total: u64) -> Option<Snapshots> {
        None
    }
}

/// The factor on every learning rate over the run.
///
/// Laws: finite and not negative.
pub trait LrSchedule: Send + Sync {
    /// The factor for the step that begins at `images_seen` of `images_total`.
    fn factor(&self, images_seen: u64, images_total: u64) -> f64;
}

/// Where a sampler of n steps puts its noise levels.
///
/// Laws: n + 1 levels (the last is where the picture is taken); sigma/alpha falls strictly.
pub trait Spacing: Send + Sync {
    /// The levels of a run of `steps` steps.
    fn levels(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level>;

    /// The same for a solver that counts the last level among those to be placed, as diffusers' multistep solvers do:
    /// n + 1 are placed, and the last is moved to the end.
    fn levels_counting_last(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        self.levels(schedule, steps)
    }
}

macro_rules! kinds {
    ($($kind:ident, $name:literal, $about:literal;)*) => {$(
        impl Kind for dyn $kind {
            const NAME: &'static str = $name;
            const ABOUT: &'static str = $about;
        }
    )*};
}

kinds! {
    Schedule, "schedule", "how much signal and noise there is at each time";
    Objective, "objective", "what the network learns to output";
    Weighting, "weighting", "how much the error counts at each noise level";
    TimestepSampler, "timesteps", "which times are trained on";
    Distance, "distance", "how far an output is from its target";
    EmaStrategy, "ema", "how averages of the weights follow them";
    LrSchedule, "lr", "the factor on every learning rate over the run";
    Spacing, "spacing", "where a sampler puts its noise levels";
}
