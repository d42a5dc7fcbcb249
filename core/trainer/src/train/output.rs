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
use crate::recipe::ModelLayout;

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
        ("modelspec.title", h.title.to_owned()),
        ("modelspec.resolution", format!("{side}x{side}")),
        ("modelspec.prediction_type", prediction),
        ("sconce.version", env!("CARGO_PKG_VERSION").to_owned()),
        (RECIPE, h.recipe.to_owned()),
        ("sconce.objective", h.trained_as.objective.to_string()),
        ("sconce.schedule", h.trained_as.schedule.to_string()),
    ]);
    if h.adapter.is_some() {
        let flag = |b: bool| if b { "True" } else { "False" }.to_owned();
        let (schedule, objective) = h.process;
        let middle = schedule.at(0.5);
        fields.insert("ss_v_parameterization", flag(objective.target(&middle) == [-middle.sigma, middle.alpha]));
        fields.insert("ss_zero_terminal_snr", flag(schedule.at(1.0).alpha == 0.0));
        fields.insert("ss_base_model_version", h.trained_as.family.clone());
        fields.insert("ss_output_name", h.title.to_owned());
    }
    fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
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
