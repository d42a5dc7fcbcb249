//! The checkpoint's own layer: which family a folder is of, and what it says about how it was trained.

use std::path::Path;

use sconce_sdk::{Choice, Kind, ParamError, registry};
use serde_json::{Map, Value, json};

use super::error::Origin;
use super::layer::Layer;
use crate::architecture::Architecture;
use crate::model::{Family, Native};

/// The family of a model folder: the named one, or the only one that recognises it.
pub fn family(path: &Path, named: Option<&str>) -> Result<Choice<dyn Family>, ParamError> {
    if let Some(name) = named {
        return Choice::named(name);
    }
    if !path.exists() {
        let error = ParamError::new(format!("there is no `{}`", path.display()));
        return Err(error.help("give the path of a diffusers folder (the one that holds model_index.json)"));
    }
    let mut found: Vec<Choice<dyn Family>> = Vec::new();
    for plugin in registry::of_kind(<dyn Family>::NAME)? {
        let family = Choice::<dyn Family>::named(plugin.name)?;
        let detected = family.detect(path);
        if detected.map_err(|e| ParamError::new(format!("cannot read `{}`: {}", path.display(), crate::message(&e))))? {
            found.push(family);
        }
    }
    let names: Vec<&str> = found.iter().map(Choice::name).collect();
    match names.len() {
        1 => Ok(found.remove(0)),
        0 => {
            let known: Vec<&str> = registry::of_kind(<dyn Family>::NAME)?.iter().map(|p| p.name).collect();
            let error = ParamError::new(format!("`{}` is a model of no known family", path.display()));
            Err(error.help(format!("the families are: {}", known.join(", "))))
        }
        _ => {
            let error =
                ParamError::new(format!("`{}` could be of several families: {}", path.display(), names.join(", ")));
            Err(error.help("say which: model.family = \"…\""))
        }
    }
}

/// A family's model with a plugin's denoiser in the place of its own.
pub(super) fn with_backbone(
    family: &Choice<dyn Family>,
    backbone: &Choice<dyn Architecture>,
) -> Result<Choice<dyn Family>, ParamError> {
    Choice::from_table(&json!({ "type": "own-backbone", "around": family.name(), "backbone": backbone.table() }))
}

/// What the checkpoint says, as the layer just above the defaults.
pub(super) fn layer(native: &Native) -> Layer {
    let tables = json!({
        "schedule": native.schedule,
        "objective": native.objective,
        "sampling": { "spacing": native.spacing, "solver": native.solver },
    });
    let Value::Object(tables) = tables else { unreachable!("an object was written") };
    let mut layer = Layer::plain(Origin::Native(format!("the rule of {}", native.family)), tables);
    for (field, path) in [
        ("schedule", "schedule"),
        ("objective", "objective"),
        ("spacing", "sampling.spacing"),
        ("solver", "sampling.solver"),
    ] {
        if let Some(evidence) = native.evidence.get(field) {
            layer.origins.insert(path.to_owned(), Origin::Native(evidence.clone()));
        }
    }
    layer
}

/// The plugins where neither the recipe nor the checkpoint says anything.
pub(super) const DEFAULTS: [(&str, &str); 6] = [
    ("weighting", "native"),
    ("timesteps", "uniform"),
    ("distance", "mse"),
    ("noise", "gaussian"),
    ("ema", "none"),
    ("lr", "constant"),
];

/// What holds where nobody says anything.
pub(super) fn defaults() -> Layer {
    let tables: Map<String, Value> = DEFAULTS.iter().map(|(k, v)| (k.to_string(), json!({ "type": v }))).collect();
    Layer::plain(Origin::Default("where nothing else is said".into()), tables)
}
