//! How a network's output becomes the run's y: as it is, or, in a converted model, mapped from what the checkpoint was
//! trained for.

use candle_core::{Error, Result};
use sconce_sdk::{Choice, Noise, Objective, ParamError, Schedule};

use crate::model::{Backbone, Native};
use crate::recipe::Convert;

/// A denoiser, and how it is read.
#[derive(Clone, Copy)]
pub struct Network<'a> {
    /// The denoiser.
    pub backbone: &'a dyn Backbone,
    /// What stands between it and the run's schedule and objective; `None` where it computes what they ask for.
    pub conversion: Option<&'a Conversion>,
}

impl<'a> Network<'a> {
    /// A denoiser that computes what the run asks for.
    pub fn plain(backbone: &'a dyn Backbone) -> Self {
        Self { backbone, conversion: None }
    }

    /// How its output is read at a time of the run's schedule, as y of the run's objective.
    pub fn read(&self, t: f64, noise: &Noise, objective: &dyn Objective) -> Preconditioning {
        let input = objective.input_scale(noise);
        let own = Preconditioning { skip: 0.0, output: 1.0, input, time: self.backbone.time(t, noise) };
        self.conversion
            .map_or(own, |c| c.mapped(|t, at| self.backbone.time(t, at), noise, objective).toward(&own, c.handed_over))
    }
}

/// y = c_skip x_t + c_out F(c_in x_t; c_noise) (Karras et al. 2022, equation 7).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preconditioning {
    /// c_skip.
    pub skip: f64,
    /// c_out.
    pub output: f64,
    /// c_in.
    pub input: f64,
    /// c_noise: the network's own time.
    pub time: f64,
}

impl Preconditioning {
    /// On the way to another, by a share from 0 to 1: what the network has to output, F = (y - c_skip x_t) / c_out, goes
    /// straight from the one to the other, and so does its time; the input goes by factors.
    fn toward(self, other: &Self, share: f64) -> Self {
        if share >= 1.0 {
            return *other;
        }
        let between = |a: f64, b: f64| a + share * (b - a);
        let output = 1.0 / between(1.0 / self.output, 1.0 / other.output);
        Self {
            skip: output * between(self.skip / self.output, other.skip / other.output),
            output,
            input: between(self.input.ln(), other.input.ln()).exp(),
            time: between(self.time, other.time),
        }
    }
}

/// A network trained for one schedule and objective, read as if it had been trained for another.
///
/// Times are mapped by log-SNR, on which alone it depends how hard a sample is to denoise, amounts by their ratio, and
/// outputs by the recovery formulas: with x_o = k x_t at the network's own level of the same log-SNR,
///
/// x0 = p x_o + q F,  y = a x0 + b (x_t - alpha x0)/sigma.
///
/// So the network starts as what it was. Beyond the log-SNR that its own schedule reaches, it is asked at that end.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// What the network was trained on.
    pub schedule: Choice<dyn Schedule>,
    /// What its output is.
    pub objective: Choice<dyn Objective>,
    convert: Convert,
    handed_over: f64,
}

impl Conversion {
    /// What a recipe asks for, after so many images; `None` where the network's output is taken as it is.
    pub fn of(convert: Convert, native: &Native, images_seen: u64) -> Result<Option<Self>> {
        let handed_over = convert.handed_over(images_seen);
        if handed_over >= 1.0 {
            return Ok(None);
        }
        let unknown = |e: ParamError| Error::Msg(format!("the checkpoint's own settings: {e}"));
        Ok(Some(Self {
            schedule: Choice::from_table(&native.schedule).map_err(unknown)?,
            objective: Choice::from_table(&native.objective).map_err(unknown)?,
            convert,
            handed_over,
        }))
    }

    /// The same after so many images; `None` where the network has taken over.
    pub fn after(&self, images_seen: u64) -> Option<Self> {
        let handed_over = self.convert.handed_over(images_seen);
        (handed_over < 1.0).then(|| Self { handed_over, ..self.clone() })
    }

    /// For latents of this many rows and columns.
    pub fn sized(&self, height: usize, width: usize) -> Self {
        Self { schedule: self.schedule.sized(height, width), ..self.clone() }
    }

    /// A time at which the network's old output and the new one point opposite ways, so that on a straight way between them
    /// there is an output that says nothing about the picture: such a conversion cannot fade.
    pub fn turns(&self, schedule: &dyn Schedule, objective: &dyn Objective) -> Option<f64> {
        let opposite = |t: &f64| self.mapped(|_, _| 0.0, &schedule.at(*t), objective).output < 0.0;
        (1..=100).map(|i| f64::from(i) / 100.0).find(opposite)
    }

    /// The network read wholly as what it was trained for. `time`: its own, by its own schedule.
    fn mapped(&self, time: impl Fn(f64, &Noise) -> f64, noise: &Noise, objective: &dyn Objective) -> Preconditioning {
        let first = self.schedule.grid().map_or(0.0, |n| 1.0 / n as f64); // a table has nothing trained before it
        let t = self.schedule.t_of(noise.log_snr()).max(first);
        let own = self.schedule.at(t);
        let (own_target, target) = (self.objective.target(&own), objective.target(noise));
        // Both ways are the same where the log-SNRs are; beyond the ends each keeps to what dominates there.
        let d = noise.determinant(target);
        let (k, [from_x, from_output], kept) = match noise.sigma >= noise.alpha {
            true => {
                let k = own.sigma / noise.sigma;
                // y = b/sigma x_t - D/sigma x0
                (k, own.x0_from(own_target).map(|c| -d / noise.sigma * c), target[1] / noise.sigma)
            }
            false => {
                let k = own.alpha / noise.alpha;
                // y = a/alpha x_t + D/alpha eps
                (k, own.eps_from(own_target).map(|c| d / noise.alpha * c), target[0] / noise.alpha)
            }
        };
        Preconditioning {
            skip: kept + k * from_x,
            output: from_output,
            input: k * self.objective.input_scale(&own),
            time: time(t, &own),
        }
    }
}
