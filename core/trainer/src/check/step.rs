//! What the distance and the noise do, where they are not the plain ones.

use candle_core::{DType, Device, Tensor};
use serde_json::json;

use super::{Report, figure, in_one_line};
use crate::distance::is_square;
use crate::noise::Batch;
use crate::recipe::Resolved;

pub(super) fn explain(resolved: &Resolved, report: &mut Report) {
    distance(resolved, report);
    mixed(resolved, report);
}

/// What a distance other than the squared error makes of an output's error, on top of the weighting.
fn distance(resolved: &Resolved, report: &mut Report) {
    let (recipe, distance) = (&resolved.recipe, &resolved.recipe.distance);
    if is_square(&**distance) {
        return;
    }
    let first = recipe.schedule.grid().map_or(0.0, |n| 1.0 / n as f64);
    let share = |t: f64, d: f64| distance.at(d, distance.width(t, &recipe.schedule.at(t)))[0] / (d * d);
    let shares = [first, 1.0].map(|t| [0.1, 1.0].map(|d| share(t, d)));
    let [clean, noisy] = shares.map(|[small, large]| format!("{} and {}", figure(small), figure(large)));
    report.fact(
        "distance",
        format!(
            "{}: errors of 0.1 and of 1 count {clean} of their squares at t = {first}, {noisy} at t = 1, times the weight above",
            in_one_line(&distance.table())
        ),
        json!({ "table": distance, "errors": [0.1, 1.0], "first": shares[0], "last": shares[1] }),
    );
}

/// What the pictures are mixed with, where it is not plain; and whether samplers start from it.
fn mixed(resolved: &Resolved, report: &mut Report) {
    const SHAPE: (usize, usize, usize, usize) = (32, 4, 32, 32);
    let (noise, end) = (&resolved.recipe.noise, resolved.recipe.schedule.at(1.0));
    let measure = || -> candle_core::Result<(bool, f64)> {
        let x0 = Tensor::zeros(SHAPE, DType::F32, &Device::Cpu)?;
        let batch = Batch { x0: &x0, levels: &[end; SHAPE.0], seed: 0, images_seen: 0 };
        let (drawn, plain) = (noise.draw(&batch)?, batch.normal("noise")?);
        let same = |t: &Tensor| Ok::<_, candle_core::Error>((t - &plain)?.abs()?.max_all()?.to_scalar::<f32>()? == 0.0);
        let of_mean = |t: &Tensor| t.mean((2, 3))?.sqr()?.mean_all()?.to_scalar::<f32>();
        let more = f64::from(of_mean(&drawn.input)? / of_mean(&plain)?);
        Ok((same(&drawn.input)? && same(&drawn.target)?, more))
    };
    let (plain, more) = match measure() {
        Ok(measured) => measured,
        Err(e) => {
            let message = format!("the noise `{}` cannot be drawn: {}", noise.name(), crate::message(&e));
            return report.refuse("no-noise", message, "see [noise] in the recipe");
        }
    };
    if plain {
        return;
    }
    report.fact(
        "noise",
        format!(
            "{}: at t = 1 the mean of 32x32 latent pixels varies {} times as much as Gaussian noise's",
            in_one_line(&noise.table()),
            figure(more)
        ),
        json!({ "table": noise, "mean_variance_ratio_last": more }),
    );
    if end.alpha == 0.0 && more > 1.5 {
        report.warn(
            "noise-at-the-end",
            format!(
                "the schedule ends in pure noise, and the noise `{}` is not the Gaussian noise that samplers start from: the model \
                 learns its first step on inputs that it will not be given",
                noise.name()
            ),
            format!("a schedule that ends in pure noise teaches brightness by itself: take gaussian noise, or let it fade with the signal (`sconce show noise {}`)", noise.name()),
        );
    }
}
