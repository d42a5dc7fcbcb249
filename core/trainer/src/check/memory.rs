//! About how much memory a run needs, by parts. The parts that follow from counts are exact; activations are a rule of
//! thumb, and are said to be one.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device};
use sconce_nn::store::Keep;
use sconce_nn::{Adapted, Store};
use serde_json::{Map, json};

use super::Report;
use crate::model::{Recompute, Tokens};
use crate::optimizer::Optimizer;
use crate::recipe::{Float, Gradients, Recipe, Resolved, Task};
use crate::train::Part;

/// Activations kept for the backward pass: this times latent pixels times the denoiser's parameters to the power of
/// [`GROWTH`], in elements a picture. Fitted to the peaks of LoRA steps on UNets of 7 M, 212 M (SDXL's form), 860 M (SD 1.5)
/// and 2.6 G (SDXL) parameters, which it meets within a third.
const ACTIVATIONS: f64 = 1.1;
const GROWTH: f64 = 0.6;
/// The same in a transformer, for each token in each block, as a multiple of the token's width. Fitted to the peaks of bf16
/// steps of an MMDiT (209 M, all of it) and of a FLUX.1 (199 M, a LoRA) on a GPU, which it meets within a tenth.
const TOKEN: f64 = 42.0;
/// What is left of them when blocks are computed again: 0.22 (SDXL) to 0.54 (the smallest) in the same measurements.
const RECOMPUTED: f64 = 0.3;
/// Pixels of a picture that stand behind a latent pixel.
const PIXELS: f64 = 64.0;
/// The same for an autoencoder, most of whose activations are at the picture's own resolution.
const AUTOENCODER_PIXELS: f64 = 8.0;
/// The views by which a LoRA is averaged, as a multiple of its parameters.
const VIEWS: f64 = 3.0;
/// How far the estimate may be above what a recipe's maker says before it is told.
const TOLERANCE: f64 = 1.25;
const GB: f64 = 1e9;
/// What a model's numbers are about half of, each: matrices and kernels. Optimizers may keep less for one than for the
/// other, or for large ones.
const MODEL: [&[usize]; 2] = [&[1280, 1280], &[320, 320, 3, 3]];
/// The same of an adapter.
const ADDED: [&[usize]; 1] = [&[16, 1280]];

/// `stores`: of all the model's components; `parts`: what of them trains.
pub(super) fn explain(resolved: &Resolved, stores: &[Arc<Store>], parts: &[Part], report: &mut Report) {
    let recipe = &resolved.recipe;
    // Encoders that learn words stay, too; which ones do is the model's to say where the recipe does not.
    let learns = |component: &str| {
        let named = |encoders: &Vec<String>| encoders.is_empty() || encoders.iter().any(|e| e == component);
        component.starts_with("text_encoder") && recipe.train.token.iter().any(|token| named(&token.encoders))
    };
    let trains = |store: &Store| {
        parts.iter().any(|part| part.store.component() == store.component()) || learns(store.component())
    };
    let (adapter, compute) = (recipe.adapter.as_deref(), DType::from(recipe.model.dtype));
    let in_full =
        |store: &Store| adapter.is_none() && parts.iter().any(|part| part.store.component() == store.component());
    let added = |part: &Part| match adapter {
        Some(adapter) => {
            let place = |layer: &Adapted| format!("{}.{}", part.store.component(), layer.path());
            part.layers.iter().map(|layer| adapter.elements(&place(layer), layer.shape())).sum()
        }
        None => part.store.elements(),
    };
    let trained = parts.iter().map(added).sum::<usize>() as f64;
    // Weights that train are kept in their own type beside the copy that computes.
    let kept = recipe.train.weights.dtype().size_in_bytes() as f64;
    let masters = if adapter.is_none() && compute == recipe.train.weights.dtype() { 0.0 } else { kept * trained };
    let gradients = match recipe.train.gradients {
        Gradients::All => kept * trained,
        Gradients::Released => 0.0,
    };
    let load = recipe.model.load_options(&Device::Cpu);
    let bytes = |store: &Store| {
        let swapped = if is_denoiser(resolved, store) { load.swap_blocks } else { 0 };
        store.bytes_as(Keep { hosted_blocks: swapped, ..load.keep(store.component()) }, compute)
    };
    // Text encoders that do not train are let go of when all is encoded.
    let stays = |store: &&Arc<Store>| is_denoiser(resolved, store) || store.component() == "vae" || trains(store);
    let [weights, hosted] = sum(stores.iter().filter(stays).map(|store| bytes(store)));
    let [encoders, _] = sum(stores.iter().filter(|s| !stays(s)).map(|store| bytes(store)));
    // The matrices of one block at a time, and of the next.
    let visiting = if load.swap_blocks > 0 { 2.0 * hosted / load.swap_blocks as f64 } else { 0.0 };
    let averaged = if adapter.is_some() { VIEWS * trained } else { trained };
    let averages = recipe.ema.tracks().len() as f64 * averaged;
    let shapes: &[&[usize]] = if adapter.is_some() { &ADDED } else { &MODEL };
    let state =
        shapes.iter().map(|shape| state_per_weight(&*recipe.optimizer, shape)).sum::<f64>() / shapes.len() as f64;
    let side = recipe.data.source.iter().filter_map(|s| s.resolution_px).max().unwrap_or(resolved.native.resolution_px);
    let places = f64::from(side).powi(2) * recipe.data.batch as f64
        / match recipe.train.task {
            Task::Denoiser => PIXELS,
            Task::Autoencoder => AUTOENCODER_PIXELS,
        };
    let denoiser = || stores.first().map_or(0, |store| store.elements());
    let largest = parts.iter().map(|part| part.store.elements()).max().unwrap_or_else(denoiser) as f64;
    let tokens = match recipe.train.task {
        Task::Denoiser => resolved.family.tokens(&resolved.model_dir, side).ok().flatten(),
        Task::Autoencoder => None,
    };
    let elements = match (tokens, recipe.train.recompute) {
        (Some(tokens), recompute) => in_transformer(&tokens, recipe, recompute),
        (None, Recompute::Nothing) => ACTIVATIONS * places * largest.powf(GROWTH),
        (None, Recompute::Blocks) => RECOMPUTED * ACTIVATIONS * places * largest.powf(GROWTH),
    };
    let running = [
        ("weights", weights),
        ("visiting blocks", visiting),
        ("masters", masters),
        ("gradients", gradients),
        ("optimizer", state * trained),
        ("average", 4.0 * averages),
        ("activations", elements * compute.size_in_bytes() as f64),
    ];
    // A denoiser that takes an adapter is read when the encoders are gone.
    let [before, _] = sum(stores.iter().filter(|s| in_full(s) || s.component() == "vae").map(|store| bytes(store)));
    let encoding = encoders + before + masters;
    let all: f64 = running.iter().map(|(_, bytes)| bytes).sum();
    let listed: Vec<String> =
        running.iter().filter(|(_, b)| *b > 0.0).map(|(name, b)| format!("{name} {}", size(*b))).collect();
    let mut text = format!("about {}: {} (activations by rule of thumb)", size(all.max(encoding)), listed.join(", "));
    if encoding > all {
        text += &format!("; it takes more before that, to encode: {}", size(encoding));
    }
    if hosted > 0.0 {
        text += &format!("; on the host {}", size(hosted));
    }
    let named = |(name, bytes): &(&str, f64)| ((*name).to_owned(), json!(bytes.round()));
    let sizes: BTreeMap<&str, usize> = stores.iter().map(|s| (s.component(), s.elements())).collect();
    report.fact(
        "memory",
        text,
        json!({ "bytes": all.max(encoding).round(), "host_bytes": hosted.round(), "encoding_bytes": encoding.round(),
                "parts": running.iter().map(named).collect::<Map<_, _>>(), "parameters": sizes }),
    );
    let said = recipe.needs.as_ref().and_then(|needs| needs.memory_gb);
    if let Some(said) = said.filter(|said| all.max(encoding) > TOLERANCE * said * GB) {
        report.warn(
            "more-memory",
            format!(
                "the recipe's maker says {said} GB of memory, and as it is set here it takes about {}",
                size(all.max(encoding))
            ),
            "take a smaller data.batch or resolution_px, or train.recompute = \"blocks\"",
        );
    }
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

/// Numbers that a transformer keeps for the backward pass: of every block, or of one and every other's input.
fn in_transformer(tokens: &Tokens, recipe: &Recipe, recompute: Recompute) -> f64 {
    let text = recipe.model.max_sequence_length.map_or(tokens.text, |most| most.min(tokens.text));
    let numbers = (recipe.data.batch * (tokens.picture + text) * tokens.width) as f64;
    let blocks = tokens.blocks as f64;
    numbers
        * match recompute {
            Recompute::Nothing => TOKEN * blocks,
            Recompute::Blocks => TOKEN + blocks,
        }
}

fn is_denoiser(resolved: &Resolved, store: &Store) -> bool {
    store.component() == resolved.native.denoiser
}

/// On the device and on the host.
fn sum(bytes: impl Iterator<Item = [usize; 2]>) -> [f64; 2] {
    bytes.fold([0.0, 0.0], |[a, b], [c, d]| [a + c as f64, b + d as f64])
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
