//! Whose configuration a text is, by what it says and never by its name: people rename files, and `config.toml` is
//! everybody's.

use serde_json::{Map, Value};

use crate::{Error, kohya, value};

type Table = Map<String, Value>;

/// What a text is.
pub(crate) enum Input {
    /// sd-scripts' `--config_file`.
    Kohya(Table),
    /// A command line, or a script with one.
    KohyaCommand,
    /// sd-scripts' `--dataset_config`.
    KohyaDataset(Table),
    /// OneTrainer's.
    OneTrainer(Table),
    /// diffusion-pipe's.
    DiffusionPipe(Table),
    /// diffusion-pipe's `dataset`.
    DiffusionPipeDataset(Table),
    /// A recipe.
    Sconce(Table),
}

/// Tables that only recipes have.
const OURS: &[&str] =
    &["extends", "needs", "schedule", "objective", "weighting", "timesteps", "train", "sampling", "data"];

/// Fields that only OneTrainer's configurations have.
const ONETRAINER: &[&str] = &["training_method", "model_type", "base_model_name", "concept_file_name", "__version"];

/// Finds out what a text is.
pub(crate) fn detect(text: &str) -> Result<Input, Error> {
    let text = value::small(text)?;
    let unknown = |why: &str| Err(Error::Unrecognised(why.to_owned()));
    let start = text.trim_start();
    if start.is_empty() {
        return unknown("it is empty");
    }
    if start.starts_with('{') {
        return match value::json(text)? {
            Value::Object(config) if ONETRAINER.iter().any(|k| config.contains_key(*k)) => {
                Ok(Input::OneTrainer(config))
            }
            Value::Object(config) if config.contains_key("pretrained_model_name_or_path") => {
                unknown("it is of kohya's GUI: let that print its training command, and give the command")
            }
            _ => unknown("it is JSON, without the fields of OneTrainer"),
        };
    }
    if kohya::is_command(text) {
        return Ok(Input::KohyaCommand);
    }
    let config = match value::toml(text) {
        Ok(config) => config,
        Err(_) if start.starts_with('[') && value::json(text).is_ok() => {
            return unknown(
                "it is a list in JSON: OneTrainer's concepts or samples belong to a configuration; give that",
            );
        }
        Err(e) => return Err(e),
    };
    let table = |name: &str| config.get(name).and_then(Value::as_object);
    let tables = |name: &str| config.get(name).is_some_and(Value::is_array);
    let model = |key: &str| table("model").is_some_and(|model| model.contains_key(key));
    if tables("datasets") || (table("general").is_some() && config.len() == 1) {
        return Ok(Input::KohyaDataset(config));
    }
    if tables("directory") {
        return Ok(Input::DiffusionPipeDataset(config));
    }
    if model("type") && !model("path") {
        return Ok(Input::DiffusionPipe(config));
    }
    // Sections of sd-scripts mean nothing, and may have any name: fields tell.
    if kohya::is_config(&config) {
        return Ok(Input::Kohya(config));
    }
    if model("path") || OURS.iter().any(|k| config.get(*k).is_some_and(|v| v.is_object() || *k == "extends")) {
        return Ok(Input::Sconce(config));
    }
    match config.keys().next() {
        Some(key) => unknown(&format!("none of its fields (`{key}` …) is one of a trainer")),
        None => unknown("it says nothing"),
    }
}
