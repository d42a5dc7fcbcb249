//! The forms in which a schedule may be written, and the level that each gives.

use sconce_sdk::{Discrete, Noise, ParamError};

use super::Spec;
use crate::check;
use crate::engine::{Dual, Formula, Reader};

const OF_TIME: [&str; 3] = ["t", "height", "width"];
const OF_LEVEL: [&str; 4] = ["t", "height", "width", "lambda"];
const OF_STEP: [&str; 5] = ["i", "height", "width", "n", "s"];
/// The most points of a grid.
const MOST: usize = 100_000;

#[derive(Clone, Debug)]
pub(super) enum Form {
    Both { alpha: Formula, sigma: Formula },
    Alpha(Formula),
    Sigma(Formula),
    LogSnr(Formula),
    LogSnrAnd { log_snr: Formula, alpha: Formula },
    Betas { beta: Formula, table: Discrete },
}

impl Form {
    pub fn read(spec: &Spec, size: [usize; 2]) -> Result<Self, ParamError> {
        let mut reader = Reader::new(&spec.params)?;
        if let Some(n) = spec.grid
            && !(2..=MOST).contains(&n)
        {
            return Err(ParamError::new(format!("is {n}: a grid has 2 to {MOST} points")).within("grid"));
        }
        let form = match (&spec.alpha, &spec.sigma, &spec.log_snr, &spec.beta) {
            (Some(alpha), Some(sigma), None, None) => {
                let alpha = reader.read("alpha", alpha, &OF_TIME)?;
                Self::Both { alpha, sigma: reader.read("sigma", sigma, &OF_TIME)? }
            }
            (Some(alpha), None, None, None) => Self::Alpha(reader.read("alpha", alpha, &OF_TIME)?),
            (None, Some(sigma), None, None) => Self::Sigma(reader.read("sigma", sigma, &OF_TIME)?),
            (None, None, Some(log_snr), None) => Self::LogSnr(reader.read("log_snr", log_snr, &OF_TIME)?),
            (Some(alpha), None, Some(log_snr), None) => {
                let log_snr = reader.read("log_snr", log_snr, &OF_TIME)?;
                Self::LogSnrAnd { log_snr, alpha: reader.read("alpha", alpha, &OF_LEVEL)? }
            }
            (None, None, None, Some(beta)) => {
                let Some(n) = spec.grid else {
                    return Err(ParamError::new("needs `grid`, the number of steps").within("beta"));
                };
                let beta = reader.read("beta", beta, &OF_STEP)?;
                Self::Betas { table: table(&beta, n, size)?, beta }
            }
            _ => {
                let ways = "`alpha` and `sigma`, one of them, `log_snr` alone or with `alpha`, or `beta`";
                return Err(ParamError::new(format!("takes {ways}")));
            }
        };
        reader.finish()?;
        Ok(form)
    }

    pub fn depends_on_size(&self) -> bool {
        let sized = |f: &Formula| f.uses(1) || f.uses(2);
        match self {
            Self::Both { alpha, sigma } => sized(alpha) || sized(sigma),
            Self::Alpha(f) | Self::Sigma(f) | Self::LogSnr(f) | Self::Betas { beta: f, .. } => sized(f),
            Self::LogSnrAnd { log_snr, alpha } => sized(log_snr) || sized(alpha),
        }
    }

    /// The level that the formulas give, which may be infinite at an end.
    pub fn at(&self, t: f64, size: [usize; 2]) -> Noise {
        let [height, width] = size.map(|x| Dual { value: x as f64, slope: 0.0 });
        let of_time = [Dual::variable(t), height, width];
        match self {
            Self::Both { alpha, sigma } => {
                let (alpha, sigma) = (alpha.along(&of_time), sigma.along(&of_time));
                Noise { alpha: alpha.value, sigma: sigma.value, d_alpha: alpha.slope, d_sigma: sigma.slope }
            }
            Self::Alpha(alpha) => {
                let (alpha, rest) = with_rest(alpha.along(&of_time));
                Noise { alpha: alpha.value, sigma: rest.value, d_alpha: alpha.slope, d_sigma: rest.slope }
            }
            Self::Sigma(sigma) => {
                let (sigma, rest) = with_rest(sigma.along(&of_time));
                Noise { alpha: rest.value, sigma: sigma.value, d_alpha: rest.slope, d_sigma: sigma.slope }
            }
            Self::LogSnr(log_snr) => {
                let lambda = log_snr.along(&of_time);
                let [alpha, sigma] = [lambda.value, -lambda.value].map(|x| 1.0 / (1.0 + (-x).exp()).sqrt());
                // alpha² is the logistic function of log-SNR, whose derivative is alpha² sigma².
                Noise::preserving(alpha, sigma, -0.5 * alpha * sigma * lambda.slope)
            }
            Self::LogSnrAnd { log_snr, alpha } => {
                let lambda = log_snr.along(&of_time);
                let alpha = alpha.along(&[of_time[0], height, width, lambda]);
                let ratio = (-0.5 * lambda.value).exp();
                let d_sigma = ratio * (alpha.slope - 0.5 * lambda.slope * alpha.value);
                Noise { alpha: alpha.value, sigma: alpha.value * ratio, d_alpha: alpha.slope, d_sigma }
            }
            Self::Betas { table, .. } => table.at(t),
        }
    }
}

/// An amount, and the other that makes the sum of their squares 1.
fn with_rest(x: Dual) -> (Dual, Dual) {
    let rest = ((1.0 - x.value) * (1.0 + x.value)).sqrt();
    (x, Dual { value: rest, slope: -x.value * x.slope / rest })
}

/// The variance that each of n steps adds.
pub(super) fn betas(beta: &Formula, n: usize, [height, width]: [usize; 2]) -> Vec<f64> {
    let at = |i: usize| beta.at(&[i as f64, height as f64, width as f64, n as f64, i as f64 / (n - 1) as f64]);
    (0..n).map(at).collect()
}

fn table(beta: &Formula, n: usize, size: [usize; 2]) -> Result<Discrete, ParamError> {
    let betas = betas(beta, n, size);
    for (i, beta) in betas.iter().enumerate() {
        let right = *beta > 0.0 && (*beta < 1.0 || *beta == 1.0 && i == n - 1);
        check::demand(right, "beta", *beta, format!("i = {i}"), "above 0 and below 1 (the last may be 1)")?;
    }
    Ok(Discrete::from_betas(betas))
}
