//! From a recipe's name to plugins: collects the layers, merges them, looks every plugin up, and reports all that is
//! wrong at once, each with its place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sconce_sdk::names::nearest;
use sconce_sdk::{Choice, ParamError, Schedule};
use serde_json::{Map, Value};

use super::builtin::builtins;
use super::document::Syntax;
use super::error::{Fault, Origin, RecipeError};
use super::layer::{self, Layer};
use super::native;
use super::reader::Reader;
use super::tables::Recipe;
use crate::hub::{self, Needs};
use crate::model::{Family, Native};
use crate::step::Process;

/// Where a recipe is.
#[derive(Clone, Debug)]
pub enum RecipeSource {
    /// Inside the program.
    Builtin(String),
    /// A `.toml`, `.yaml` or `.json` file.
    File(PathBuf),
    /// A text, called `name` in errors; relative paths in it are relative to the working folder.
    Text {
        /// Its name.
        name: String,
        /// The recipe.
        text: String,
        /// Its syntax.
        syntax: Syntax,
    },
}

impl RecipeSource {
    /// What a user wrote: the name of a built-in recipe, or else a file.
    pub fn named(name: &str) -> Self {
        match builtins().iter().any(|b| b.name == name) {
            true => Self::Builtin(name.to_owned()),
            false => Self::File(name.into()),
        }
    }
}

/// A recipe with everything decided.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The tables, every default filled in and every path absolute.
    pub recipe: Recipe,
    /// What the checkpoint says about itself.
    pub native: Native,
    /// The checkpoint's family.
    pub family: Choice<dyn Family>,
    /// The model's folder, unpacked where it is embedded.
    pub model_dir: PathBuf,
    /// The recipe's name: that of its file, without the ending.
    pub name: String,
    /// What relative paths in it were relative to.
    pub base_dir: PathBuf,
    /// Where each field comes from, by dotted path. A field that is not here has its table's own default.
    pub origins: BTreeMap<String, Origin>,
}

impl Recipe {
    /// Its decisions about noise, with its schedule in the form for the pictures at hand.
    pub fn process<'a>(&'a self, schedule: &'a dyn Schedule) -> Process<'a> {
        let Self { objective, weighting, timesteps, .. } = self;
        Process { schedule, objective: &**objective, weighting: &**weighting, timesteps: &**timesteps }
    }
}

impl Resolved {
    /// The side of a square picture of the data, in pixels.
    pub fn side_px(&self) -> u32 {
        self.recipe.data.source.first().and_then(|s| s.resolution_px).unwrap_or(self.native.resolution_px)
    }

    /// The recipe's schedule for square pictures of this side, in pixels.
    pub fn schedule(&self, side_px: u32) -> Choice<dyn Schedule> {
        let side = (side_px / self.native.latent_px.max(1)).max(1) as usize;
        self.recipe.schedule.sized(side, side)
    }
}

/// Resolves a recipe with the process's environment and `--set` arguments (`a.b=c`, the last one winning).
pub fn resolve(source: &RecipeSource, overrides: &[String]) -> Result<Resolved, RecipeError> {
    let environment = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    resolve_in(source, overrides, environment)
}

/// [`resolve`] with given environment variables.
pub fn resolve_in(
    source: &RecipeSource,
    overrides: &[String],
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Resolved, RecipeError> {
    let mut layers = vec![native::defaults()];
    let (name, base_dir) = chain(source, &mut layers)?;
    let file = layers.last().map(|l| l.origin.clone()).expect("the recipe itself is a layer");
    layers.extend(layer::environment(environment)?);
    for argument in overrides {
        let origin = Origin::Set(argument.clone());
        let Some((path, value)) = argument.split_once('=') else {
            let error = ParamError::new("has no `=`").help("write --set table.field=value");
            return Err(Fault::new(origin, "", error).into());
        };
        layers.push(Layer::assignment(origin, path.trim(), value.trim())?);
    }
    let outer = &mut layers[1..];
    outer.iter_mut().for_each(|l| absolute(&mut l.value, Path::new("")));
    let merged = layer::merge(&mut layers)?;
    let mut reader = Reader { layers, merged, faults: Vec::new(), file };
    match reader.read(name, base_dir) {
        Some(resolved) if reader.faults.is_empty() => Ok(resolved),
        _ => Err(RecipeError { faults: reader.faults }),
    }
}

/// Pushes the recipe and, below it, what it extends. Gives the recipe's name and folder.
fn chain(source: &RecipeSource, layers: &mut Vec<Layer>) -> Result<(String, PathBuf), RecipeError> {
    let (mut read, mut names) = (Vec::new(), Vec::new());
    let (mut layer, identity) = open(source, None)?;
    let (name, base_dir) = (identity.name.clone(), identity.base.clone());
    let mut base = identity.base;
    names.push(identity.key);
    loop {
        let Some(extends) = layer.value.remove("extends") else { break };
        let origin = layer.origin_of("extends", |m| m.value);
        let fault = |message: String| Fault::new(origin.clone(), "extends", ParamError::new(message));
        let Value::String(parent) = extends else {
            return Err(fault("must be the name of a built-in recipe, or a file".into()).into());
        };
        let next = match RecipeSource::named(&parent) {
            RecipeSource::File(file) if !hub::leads(&parent) => RecipeSource::File(base.join(file)),
            named => named,
        };
        let (below, identity) = open(&next, Some((&parent, &origin)))?;
        if let Some(start) = names.iter().position(|n| *n == identity.key) {
            names.push(identity.key);
            let circle = names[start..].join(" -> ");
            return Err(fault(format!("the recipes extend each other in a circle: {circle}")).into());
        }
        names.push(identity.key);
        base = identity.base;
        read.push(std::mem::replace(&mut layer, below));
    }
    read.push(layer);
    layers.extend(read.into_iter().rev());
    Ok((name, base_dir))
}

struct Identity {
    key: String,
    name: String,
    base: PathBuf,
}

fn open(source: &RecipeSource, extended: Option<(&str, &Origin)>) -> Result<(Layer, Identity), RecipeError> {
    match source {
        RecipeSource::Builtin(name) => {
            let all = builtins();
            let Some(builtin) = all.iter().find(|b| b.name == name) else {
                let origin = Origin::File { file: name.clone(), at: None };
                let error = ParamError::new("there is no built-in recipe of this name");
                return Err(Fault::new(origin, "", advise(error, name)).into());
            };
            let label = format!("built-in recipe {name}");
            let mut layer = Layer::text(&label, builtin.text, Syntax::Toml)?;
            absolute(&mut layer.value, Path::new(""));
            Ok((layer, Identity { key: name.clone(), name: name.clone(), base: PathBuf::new() }))
        }
        RecipeSource::Text { name, text, syntax } => {
            let layer = Layer::text(name, text, *syntax)?;
            Ok((layer, Identity { key: name.clone(), name: name.clone(), base: PathBuf::new() }))
        }
        RecipeSource::File(path) => {
            let label = path.display().to_string();
            let fetched = match hub::leads(&label).then(|| hub::fetched(&label, Needs::All)) {
                Some(Err(e)) => {
                    let (origin, field) = match extended {
                        Some((_, origin)) => (origin.clone(), "extends"),
                        None => (Origin::File { file: label.clone(), at: None }, ""),
                    };
                    return Err(Fault::new(origin, field, ParamError::new(crate::message(&e))).into());
                }
                Some(Ok(fetched)) => Some(fetched),
                None => None,
            };
            let path = fetched.as_ref().unwrap_or(path);
            let text = std::fs::read_to_string(path).map_err(|e| {
                let (origin, field) = match extended {
                    Some((_, origin)) => (origin.clone(), "extends"),
                    None => (Origin::File { file: label.clone(), at: None }, ""),
                };
                let message = match (e.kind(), extended) {
                    (std::io::ErrorKind::NotFound, None) => {
                        "there is no such file and no such built-in recipe".to_owned()
                    }
                    (std::io::ErrorKind::NotFound, _) => {
                        format!("there is no file `{label}` and no such built-in recipe")
                    }
                    _ => format!("cannot read `{label}`: {e}"),
                };
                let written = extended.map_or(label.as_str(), |(written, _)| written);
                Fault::new(origin, field, advise(ParamError::new(message), written))
            })?;
            let mut layer = Layer::text(&label, &text, Syntax::of(&label))?;
            let base = path.parent().unwrap_or(Path::new("")).to_owned();
            absolute(&mut layer.value, &base);
            let key = std::fs::canonicalize(path).unwrap_or_else(|_| path.clone()).display().to_string();
            let name = path.file_stem().map_or_else(|| label.clone(), |s| s.to_string_lossy().into_owned());
            Ok((layer, Identity { key, name, base }))
        }
    }
}

fn advise(error: ParamError, name: &str) -> ParamError {
    let all = builtins();
    let names = || all.iter().map(|b| b.name);
    match nearest(name, names()) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None if all.is_empty() => error,
        None => error.help(format!("the built-in recipes are: {}", names().collect::<Vec<_>>().join(", "))),
    }
}

/// Makes the paths in a layer absolute: relative ones are relative to the file that they stand in.
fn absolute(layer: &mut Map<String, Value>, base: &Path) {
    let anchor = |value: Option<&mut Value>| {
        if let Some(Value::String(path)) = value
            && !path.is_empty()
            && !scheme(path)
            && let Ok(absolute) = std::path::absolute(base.join(&*path))
        {
            // `a/./b` is `a/b`; `..` stays, it may lead through a link.
            *path = absolute.display().to_string();
        }
    };
    anchor(layer.get_mut("model").and_then(|m| m.get_mut("path")));
    if let Some(Value::Object(files)) = layer.get_mut("model").and_then(|m| m.get_mut("files")) {
        files.values_mut().for_each(|file| anchor(Some(file)));
    }
    let mut schedule = layer.get_mut("schedule");
    while let Some(table) = schedule {
        anchor(table.get_mut("file"));
        schedule = table.get_mut("of");
    }
    anchor(layer.get_mut("data").and_then(|d| d.get_mut("cache")));
    anchor(layer.get_mut("output").and_then(|o| o.get_mut("dir")));
    anchor(layer.get_mut("preview").and_then(|p| p.get_mut("autoencoder")));
    anchor(layer.get_mut("train").and_then(|t| t.get_mut("adapter_from")));
    // `--set data.source.0.path=x` is a table with the key `0`.
    for (table, list, field) in [("data", "source", "path"), ("train", "token", "from")] {
        match layer.get_mut(table).and_then(|t| t.get_mut(list)) {
            Some(Value::Array(items)) => items.iter_mut().for_each(|item| anchor(item.get_mut(field))),
            Some(Value::Object(items)) => items.values_mut().for_each(|item| anchor(item.get_mut(field))),
            _ => {}
        }
    }
}

/// True for `embedded:…` and the like (a letter alone is a drive).
fn scheme(path: &str) -> bool {
    path.split_once(':').is_some_and(|(s, _)| s.len() > 1 && s.chars().all(|c| c.is_ascii_alphanumeric()))
}
