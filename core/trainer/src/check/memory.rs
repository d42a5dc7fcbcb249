//! About how much memory a run needs, by parts. The parts that follow from counts are exact; activations are a rule of
//! thumb, and are said to be one.

use candle_core::DType;
use serde_json::json;

use super::Report;
use crate::model::Recompute;
use crate::optimizer::Optimizer;
use crate::recipe::{Float, Gradients, Resolved, Task};

/// Activations kept for the backward pass: this times latent pixels times the denoiser's parameters to the power of
/// [`GROWTH`], in elements a picture. Fitted to the peaks of LoRA steps on UNets of 7 M, 212 M (SDXL's form), 860 M (SD 1.5)
/// and 2.6 G (SDXL) parameters, which it meets within a third.
const ACTIVATIONS: f64 = 1.1;
const GROWTH: f64 = 0.6;
/// What is left of them when blocks are computed again: 0.22 (SDXL) to 0.54 (the smallest) in the same measurements.
const RECOMPUTED: f64 = 0.3;
/// Pixels of a picture that stand behind a latent pixel.
const PIXELS: f64 = 64.0;
/// The same for an autoencoder, most of whose activations are at the picture's own resolution.
const AUTOENCODER_PIXELS: f64 = 8.0;
/// Parameters of an adapter, as a share of what it adapts: rank 16 on attention and feed-forward layers.
const ADAPTER: f64 = 0.02;
/// The views by which a LoRA is averaged, as a multiple of its parameters.
const VIEWS: f64 = 3.0;
/// What a model's numbers are about half of, each: matrices and kernels. Optimizers may keep less for one than for the
/// other, or for large ones.
const MODEL: [&[usize]; 2] = [&[1280, 1280], &[320, 320, 3, 3]];
/// The same of an adapter.
const ADDED: [&[usize]; 1] = [&[16, 1280]];

pub(super) fn explain(resolved: &Resolved, report: &mut Report) {
    let recipe = &resolved.recipe;
    let sizes = match resolved.family.sizes(&resolved.model_dir) {
        Ok(sizes) => sizes,
        Err(e) => {
            report.warn(
                "no-sizes",
                format!("the model's sizes cannot be read, so memory is not estimated: {}", crate::message(&e)),
                "check its config.json files",
            );
            return;
        }
    };
    let trains = |name: &str| match recipe.train.task {
        Task::Autoencoder => name == "vae",
        Task::Denoiser => recipe.train.components.get(name).is_some_and(|rate| *rate > 0.0),
    };
    let compute = DType::from(recipe.model.dtype).size_in_bytes() as f64;
    let count =
        |pick: &dyn Fn(&str) -> bool| sizes.iter().filter(|(n, _)| pick(n)).map(|(_, s)| *s as f64).sum::<f64>();
    let (all, adapted) = (count(&|_| true), count(&trains));
    let trained = if recipe.adapter.is_some() { ADAPTER * adapted } else { adapted };
    // Weights that train are kept in their own type beside the copy that computes.
    let kept = recipe.train.weights.dtype().size_in_bytes() as f64;
    let masters = if recipe.adapter.is_none() && compute == kept { 0.0 } else { kept * trained };
    let gradients = match recipe.train.gradients {
        Gradients::All => kept * trained,
        Gradients::Released => 0.0,
    };
    let averaged = if recipe.adapter.is_some() { VIEWS * trained } else { trained };
    let averages = recipe.ema.tracks().len() as f64 * averaged;
    let shapes: &[&[usize]] = if recipe.adapter.is_some() { &ADDED } else { &MODEL };
    let state =
        shapes.iter().map(|shape| state_per_weight(&*recipe.optimizer, shape)).sum::<f64>() / shapes.len() as f64;
    let side = recipe.data.source.iter().filter_map(|s| s.resolution_px).max().unwrap_or(resolved.native.resolution_px);
    let places = f64::from(side).powi(2) * recipe.data.batch as f64
        / match recipe.train.task {
            Task::Denoiser => PIXELS,
            Task::Autoencoder => AUTOENCODER_PIXELS,
        };
    let largest = sizes.iter().filter(|(name, _)| trains(name)).map(|(_, s)| *s as f64).fold(0.0, f64::max);
    let activations = match recipe.train.recompute {
        Recompute::Nothing => ACTIVATIONS,
        Recompute::Blocks => ACTIVATIONS * RECOMPUTED,
    };
    let parts = [
        ("weights", compute * all),
        ("masters", masters),
        ("gradients", gradients),
        ("optimizer", state * trained),
        ("average", 4.0 * averages),
        ("activations", activations * compute * places * largest.powf(GROWTH)),
    ];
    let total: f64 = parts.iter().map(|(_, bytes)| bytes).sum();
    let listed: Vec<String> =
        parts.iter().filter(|(_, b)| *b > 0.0).map(|(name, b)| format!("{name} {}", size(*b))).collect();
    report.fact(
        "memory",
        format!("about {}: {} (activations by rule of thumb)", size(total), listed.join(", ")),
        json!({ "bytes": total.round(), "parts": parts.iter().map(|(n, b)| (n.to_string(), json!(b.round()))).collect::<serde_json::Map<_, _>>(),
                "parameters": sizes }),
    );
    if let Some(snapshots) = recipe.ema.snapshots(recipe.train.images) {
        let batch = (recipe.data.batch * recipe.train.accumulate) as u64;
        let count = recipe.train.images.div_ceil(snapshots.every_images.max(batch));
        let bytes = count as f64 * DType::from(Float::from(snapshots.dtype)).size_in_bytes() as f64 * averages;
        report.fact(
            "snapshots",
            format!("{count} of the averages, about {} of the disk", size(bytes)),
            json!({ "count": count, "every_images": snapshots.every_images, "bytes": bytes.round() }),
        );
    }
}

/// Bytes that the optimizer keeps for each number of a weight of this shape.
fn state_per_weight(optimizer: &dyn Optimizer, shape: &[usize]) -> f64 {
    // Should it refuse, AdamW's two in f32.
    optimizer.state_bytes(shape).map_or(8.0, |bytes| bytes as f64 / shape.iter().product::<usize>() as f64)
}

fn size(bytes: f64) -> String {
    match bytes / f64::from(1 << 20) {
        mib if mib < 1000.0 => format!("{mib:.0} MiB"),
        mib => format!("{:.1} GiB", mib / 1024.0),
    }
}
