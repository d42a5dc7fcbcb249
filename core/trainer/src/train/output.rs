//! What a run leaves behind: a whole model folder or adapter files, each with the recipe and what the model predicts
//! in its header, so that other programs sample it right.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Error, Result, Tensor};
use sconce_sdk::{Objective, Schedule};
use serde_json::{Map, Value};

use super::run::Job;
use super::weights::Weights;
use crate::adapter::Saved;
use crate::model::{Native, SaveModel};
use crate::recipe::{ModelLayout, Recipe};

/// The header's fields that hold the recipe, and the lock of the run.
pub const RECIPE: &str = "sconce.recipe";
/// See [`RECIPE`].
pub const LOCK: &str = "sconce.lock";

/// What the header of a weight file tells.
pub struct Header<'a> {
    /// The title.
    pub title: &'a str,
    /// What the weights predict, and on which schedule.
    pub trained_as: &'a Native,
    /// The resolved recipe.
    pub recipe: &'a str,
    /// `lora` for an adapter, nothing for a whole model.
    pub adapter: Option<&'a str>,
    /// What is predicted, on which schedule, as the run computed with them.
    pub process: (&'a dyn Schedule, &'a dyn Objective),
    /// The run, whose recipe tells more.
    pub run: &'a Recipe,
}

/// Header fields: ModelSpec 1.0.1, the recipe, and for adapters the `ss_*` fields that other programs read.
pub fn header(h: &Header) -> BTreeMap<String, String> {
    let name = |table: &Value| table.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let prediction = name(&h.trained_as.objective);
    let base = &h.trained_as.architecture;
    let architecture = h.adapter.map_or(base.clone(), |a| format!("{base}/{a}"));
    let side = h.trained_as.resolution_px;
    let mut fields = BTreeMap::from([
        ("modelspec.sai_model_spec", "1.0.1".to_owned()),
        ("modelspec.architecture", architecture),
        ("modelspec.implementation", "https://github.com/huggingface/diffusers".to_owned()),
        // Of the tensors' bytes: put in when they are written.
        (sconce_nn::weights::TENSORS_HASH, String::new()),
        ("modelspec.title", h.title.to_owned()),
        ("modelspec.resolution", format!("{side}x{side}")),
        ("modelspec.prediction_type", prediction),
        ("sconce.version", env!("CARGO_PKG_VERSION").to_owned()),
        (RECIPE, h.recipe.to_owned()),
        ("sconce.objective", h.trained_as.objective.to_string()),
        ("sconce.schedule", h.trained_as.schedule.to_string()),
    ]);
    let told = &h.run.output;
    let words: Vec<&str> = h.run.train.token.iter().map(|token| token.text.as_str()).collect();
    for (name, text) in [
        ("modelspec.author", told.author.clone()),
        ("modelspec.description", told.description.clone()),
        ("modelspec.license", told.license.clone()),
        ("modelspec.trigger_phrase", (!words.is_empty()).then(|| words.join(", "))),
    ] {
        fields.extend(text.map(|text| (name, text)));
    }
    if h.adapter.is_some() {
        let flag = |b: bool| if b { "True" } else { "False" }.to_owned();
        let (schedule, objective) = h.process;
        let middle = schedule.at(0.5);
        fields.insert("ss_v_parameterization", flag(objective.target(&middle) == [-middle.sigma, middle.alpha]));
        fields.insert("ss_zero_terminal_snr", flag(schedule.at(1.0).alpha == 0.0));
        fields.insert("ss_base_model_version", h.trained_as.base_version.clone());
        fields.insert("ss_v2", flag(h.trained_as.base_version.starts_with("sd_v2")));
        fields.insert("ss_output_name", h.title.to_owned());
        fields.extend(as_kohya(h.run));
    }
    fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

/// What kohya's scripts would say of such a run, for the programs that show it.
fn as_kohya(run: &Recipe) -> Vec<(&'static str, String)> {
    let table = run.adapter.as_ref().map(|adapter| adapter.table()).unwrap_or_default();
    // Of an adapter around another one the inner has the rank.
    let number = |name: &str| table.get(name).or_else(|| table.get("of")?.get(name)).filter(|n| n.is_number());
    let module = if number("rank").is_some() { "networks.lora" } else { "lycoris.kohya" };
    let mut fields = vec![
        ("ss_network_module", module.to_owned()),
        ("ss_learning_rate", run.optimizer.lr().to_string()),
        ("ss_optimizer", run.optimizer.name().to_owned()),
        ("ss_lr_scheduler", run.lr.name().to_owned()),
        ("ss_num_train_images", run.train.images.to_string()),
        ("ss_gradient_accumulation_steps", run.train.accumulate.to_string()),
        ("ss_max_grad_norm", run.train.clip_norm.to_string()),
        ("ss_caption_dropout_rate", run.data.caption_dropout.to_string()),
        ("ss_seed", run.train.seed.to_string()),
    ];
    fields.extend(number("rank").map(|n| ("ss_network_dim", n.to_string())));
    fields.extend(number("alpha").map(|n| ("ss_network_alpha", n.to_string())));
    fields
}

/// Writes a whole model in the layouts that the recipe asks for.
fn write_model(job: &Job, save: &SaveModel, out: &Path) -> Result<Vec<PathBuf>> {
    let layouts = &job.recipe.output.model_layouts;
    let keeps = layouts.contains(&ModelLayout::Diffusers);
    // The single file is made of the folder, which may be there for that alone.
    let folder = out.join(if keeps { "model" } else { "model.tmp" });
    let mut written = job.model.save(&folder, save)?;
    if layouts.contains(&ModelLayout::SingleFile) {
        let file = out.join("model.safetensors");
        job.model.single_file(&folder, &file, save.metadata)?;
        if !keeps {
            written.clear();
            std::fs::remove_dir_all(&folder).map_err(|e| Error::Msg(format!("{}: {e}", folder.display())))?;
        }
        written.push(file);
    }
    Ok(written)
}

/// Writes the result of a run: `model/` after a full fine-tune, one file a layout after an adapter's.
pub(super) fn write(
    job: &Job,
    weights: &Weights,
    adapters: &[Saved],
    configs: &BTreeMap<String, Map<String, Value>>,
    out: &Path,
) -> Result<Vec<PathBuf>> {
    let recipe = job.recipe;
    let native = job.model.native();
    let conversion = recipe.model.conversion(native, recipe.train.images)?;
    // A network that is read through a mapping computes what it did: that is what other programs are told.
    let (schedule, objective) = match &conversion {
        Some(conversion) => (&conversion.schedule, &conversion.objective),
        None => (&recipe.schedule, &recipe.objective),
    };
    let mut trained_as = native.clone();
    trained_as.schedule = schedule.table();
    trained_as.objective = objective.table();
    trained_as.spacing = recipe.sampling.spacing.table();
    trained_as.solver = recipe.sampling.solver.table();
    let title = recipe.output.title.clone().unwrap_or_else(|| job.resolved.name.clone());
    let dtype: DType = recipe.output.dtype.into();
    let text = job.resolved.portable_toml();
    let header = |adapter| {
        let mut fields = header(&Header {
            title: &title,
            trained_as: &trained_as,
            recipe: &text,
            adapter,
            process: (&**schedule, &**objective),
            run: recipe,
        });
        fields.extend(job.notes.clone());
        fields.extend(job.lock.get().map(|lock| (LOCK.to_owned(), lock.clone())));
        fields
    };
    let words = super::tokens::write(job.model, &weights.words, dtype, &header(Some("textual-inversion")), out)?;
    let changed = weights.by_component();
    if recipe.adapter.is_none() {
        let metadata = header(None);
        let shard_bytes = recipe.output.shard_mb.map(|mb| mb * 1_000_000);
        let save =
            SaveModel { weights: &changed, configs, dtype, trained_as: &trained_as, metadata: &metadata, shard_bytes };
        // Where words are all that was learned, the model is as it was.
        let mut written = if changed.is_empty() { Vec::new() } else { write_model(job, &save, out)? };
        written.extend(words);
        return Ok(written);
    }
    let name = recipe.adapter.as_ref().map_or("adapter", |a| a.name());
    let write = |layout: &sconce_sdk::Choice<dyn crate::adapter::AdapterLayout>| {
        let path = out.join(format!("{name}-{}.safetensors", layout.name()));
        let cast = |(key, t): (String, Tensor)| Ok((key, t.to_dtype(dtype)?));
        let tensors: BTreeMap<String, Tensor> =
            layout.write(&job.model.stores(), adapters)?.into_iter().map(cast).collect::<Result<_>>()?;
        sconce_nn::weights::save(&path, &tensors, &header(Some(name)))?;
        Ok(path)
    };
    recipe.output.adapter_layouts.iter().map(write).chain(words.into_iter().map(Ok)).collect()
}
