//! diffusion-pipe: a TOML with tables for model, adapter and optimizer, and a dataset in a TOML of its own, where each folder is
//! trained on in every resolution of a list.

mod dataset;
mod model;
mod run;
mod training;

use serde_json::{Map, Value};

use crate::case::{Case, Learns};
use crate::family::Family;
use crate::rule::{Field, Rule};
use crate::{Error, Migration, Program, Read, Wanted, value};

/// All fields, by what they are about.
pub(crate) static RULES: &[&[Rule]] = &[run::RULES, model::RULES, training::RULES, dataset::RULES];

/// The model types that sconce has.
const TYPES: &[(&str, Family)] = &[("sdxl", Family::Sdxl), ("flux", Family::Flux), ("sd3", Family::Sd3)];

/// A configuration.
pub(crate) fn toml(config: Map<String, Value>, read: &mut Read) -> Result<Migration, Error> {
    let mut warnings = Vec::new();
    let mut fields = Vec::new();
    let named = config.get("dataset").and_then(Value::as_str).map(str::to_owned);
    for (key, value) in config {
        match value {
            Value::Object(inner) => {
                fields.extend(
                    inner.into_iter().map(|(name, v)| Field::new(format!("{key}.{name}"), format!("{key}.{name}"), v)),
                );
            }
            value => fields.push(Field::new(&key, &key, value)),
        }
    }
    let mut folders = 1;
    if let Some(name) = named {
        match read(Wanted::Dataset, &name) {
            Ok(text) => folders = dataset::fields(value::toml(&text)?, &format!("{name}: "), &mut fields)?,
            Err(why) => {
                warnings.push(format!("cannot read the dataset `{name}`, so that the recipe asks for it: {why}"))
            }
        }
    }
    finish(fields, folders, warnings, true)
}

/// A dataset without the rest.
pub(crate) fn dataset_alone(config: Map<String, Value>) -> Result<Migration, Error> {
    let mut fields = Vec::new();
    let folders = dataset::fields(config, "", &mut fields)?;
    let warning = "this is the dataset of diffusion-pipe alone: migrate the configuration that names it, and \
         the rest of the recipe comes with it";
    finish(fields, folders, vec![warning.into()], false)
}

fn finish(fields: Vec<Field>, folders: usize, warnings: Vec<String>, whole: bool) -> Result<Migration, Error> {
    let mut case = Case::new(Program::DiffusionPipe, RULES, fields)?;
    case.warnings = warnings;
    let kind = case.text("model.type");
    case.family = match TYPES.iter().find(|(name, _)| *name == kind) {
        Some((_, family)) => *family,
        None if !whole => Family::Flux,
        None => {
            let all = TYPES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            return Err(Error::Unsupported(format!(
                "sconce has no model like diffusion-pipe's `{kind}`: it trains {all}"
            )));
        }
    };
    case.learns = if case.given("adapter.type").is_some() { Learns::Adapter } else { Learns::Whole };
    case.schnell = ["model.diffusers_path", "model.transformer_path"]
        .iter()
        .any(|k| case.text(k).to_ascii_lowercase().contains("schnell"));
    case.folders = folders;
    case.unread = case.given("directory[].path").is_none();
    let batch = case.value("micro_batch_size_per_gpu");
    case.batch = batch.as_f64().or_else(|| batch.get(0)?.get(1)?.as_f64()).unwrap_or(1.0);
    case.accumulate = case.number("gradient_accumulation_steps").unwrap_or(1.0);
    case.side_px = case.all("directory[].resolution").iter().find_map(|f| dataset::side(&f.value)).unwrap_or(1024.0);
    let entries = case.run();
    if whole {
        training::trained(&mut case);
    } else {
        case.draft.only("data");
        case.draft.ask("optimizer.lr", "the learning rate");
    }
    case.draft.ask(
        "train.images",
        "pictures in the whole run: passes times the pictures, each as often as its folder's \
             `repeats`",
    );
    Ok(case.done(entries))
}
