//! About how much memory a run needs, by parts. The parts that follow from counts are exact; activations are a rule of
//! thumb, and are said to be one.

use candle_core::{DType, Device, Tensor, Var};
use serde_json::json;

use super::Report;
use crate::model::Recompute;
use crate::optimizer::{Optimizer, Trained};
use crate::recipe::{Float, Resolved, Task};

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
    // Weights that train have f32 masters beside the copy that computes.
    let masters = if recipe.adapter.is_none() && compute == 4.0 { 0.0 } else { 4.0 * trained };
    let averaged = if recipe.adapter.is_some() { VIEWS * trained } else { trained };
    let averages = recipe.ema.tracks().len() as f64 * averaged;
    let side = recipe.data.source.iter().filter_map(|s| s.resolution_px).max().unwrap_or(resolved.native.resolution_px);
    let places = f64::from(side).powi(2) * recipe.data.batch as f64
        / match recipe.train.task {
            Task::Denoiser => PIXELS,
            Task::Autoencoder => AUTOENCODER_PIXELS,
        };
    let largest = sizes.iter().filter(|(name, _)| trains(name)).map(|(_, s)| *s as f64).fold(0.0, f64::max);
    let kept = match recipe.train.recompute {
        Recompute::Nothing => ACTIVATIONS,
        Recompute::Blocks => ACTIVATIONS * RECOMPUTED,
    };
    let parts = [
        ("weights", compute * all),
        ("masters", masters),
        ("gradients", 4.0 * trained),
        ("optimizer", 4.0 * state_per_weight(&*recipe.optimizer) * trained),
        ("average", 4.0 * averages),
        ("activations", kept * compute * places * largest.powf(GROWTH)),
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

/// Scalars that the optimizer keeps for each weight, found by asking it about a small one.
fn state_per_weight(optimizer: &dyn Optimizer) -> f64 {
    const SIDE: usize = 32;
    let kept = || -> candle_core::Result<usize> {
        let var = Var::from_tensor(&Tensor::zeros((SIDE, SIDE), DType::F32, &Device::Cpu)?)?;
        let gradient = var.ones_like()?;
        let mut state = optimizer.start(vec![Trained { name: "weight".into(), var, lr_factor: 1.0, decays: true }])?;
        state.step(&[Some(gradient)], 0.0)?;
        Ok(state.save()?.values().map(Tensor::elem_count).sum())
    };
    // AdamW's two, should it refuse.
    kept().map_or(2.0, |n| (n as f64 / (SIDE * SIDE) as f64).round())
}

fn size(bytes: f64) -> String {
    match bytes / f64::from(1 << 20) {
        mib if mib < 1000.0 => format!("{mib:.0} MiB"),
        mib => format!("{:.1} GiB", mib / 1024.0),
    }
}
