//! From a recipe's name to plugins: collects the layers, merges them, looks every plugin up, and reports all that is
//! wrong at once, each with its place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use sconce_sdk::names::nearest;
use sconce_sdk::{Choice, Kind, ParamError, Schedule, registry};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::builtin::builtins;
use super::document::Syntax;
use super::error::{Blame, Fault, Origin, RecipeError};
use super::layer::{self, Layer, OPTIONAL};
use super::tables::{ModelTable, Recipe, Task};
use super::{limits, native};
use crate::embedded;
use crate::model::{Family, Native};

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
            RecipeSource::File(file) => RecipeSource::File(base.join(file)),
            builtin => builtin,
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
    let mut schedule = layer.get_mut("schedule");
    while let Some(table) = schedule {
        anchor(table.get_mut("file"));
        schedule = table.get_mut("of");
    }
    anchor(layer.get_mut("data").and_then(|d| d.get_mut("cache")));
    anchor(layer.get_mut("output").and_then(|o| o.get_mut("dir")));
    // `--set data.source.0.path=x` is a table with the key `0`.
    match layer.get_mut("data").and_then(|d| d.get_mut("source")) {
        Some(Value::Array(sources)) => sources.iter_mut().for_each(|s| anchor(s.get_mut("path"))),
        Some(Value::Object(sources)) => sources.values_mut().for_each(|s| anchor(s.get_mut("path"))),
        _ => {}
    }
}

/// True for `embedded:…` and the like (a letter alone is a drive).
fn scheme(path: &str) -> bool {
    path.split_once(':').is_some_and(|(s, _)| s.len() > 1 && s.chars().all(|c| c.is_ascii_alphanumeric()))
}

/// Reads the merged tables into plugins, gathering faults.
pub(super) struct Reader {
    layers: Vec<Layer>,
    merged: Map<String, Value>,
    faults: Vec<Fault>,
    file: Origin,
}

impl Reader {
    fn read(&mut self, name: String, base_dir: PathBuf) -> Option<Resolved> {
        const TABLES: [&str; 17] = [
            "model",
            "schedule",
            "objective",
            "weighting",
            "timesteps",
            "distance",
            "noise",
            "ema",
            "adapter",
            "optimizer",
            "lr",
            "data",
            "train",
            "validation",
            "preview",
            "sampling",
            "output",
        ];
        let unknown: Vec<String> = self.merged.keys().filter(|k| !TABLES.contains(&k.as_str())).cloned().collect();
        for key in unknown {
            let error = ParamError::new(format!("unknown field `{key}`"));
            let error = match nearest(&key, TABLES.into_iter().chain(["extends"])) {
                Some(near) => error.help(format!("did you mean `{near}`?")),
                None => error.help(format!("a recipe has: extends, {}", TABLES.join(", "))),
            };
            self.fault(&key, error);
        }

        let model: Option<ModelTable> = self.table("model");
        let found = model.as_ref().and_then(|m| self.native(m));
        let weighting = self.choice("weighting");
        let timesteps = self.choice("timesteps");
        let distance = self.choice("distance");
        let noise = self.choice("noise");
        let ema = self.choice("ema");
        let optimizer = self.choice("optimizer");
        let lr = self.choice("lr");
        let adapter = self.merged.contains_key("adapter").then(|| self.choice("adapter"));
        let data = self.table("data");
        let train = self.table("train");
        let validation = self.optional("validation");
        let preview = self.optional("preview");
        self.merged.entry("output").or_insert_with(|| Value::Object(Map::new()));
        let output = self.table("output");
        // What the checkpoint decides is not missing where the checkpoint itself could not be read.
        let known = found.is_some();
        let native_choice = |path: &str| known || self.merged.contains_key(path);
        let (schedule, objective) = (native_choice("schedule"), native_choice("objective"));
        let schedule = if schedule { self.choice("schedule") } else { None };
        let objective = if objective { self.choice("objective") } else { None };
        let sampling = if known { self.table("sampling") } else { None };

        let (native, family, model_dir) = found?;
        let mut recipe = Recipe {
            model: model?,
            schedule: schedule?,
            objective: objective?,
            weighting: weighting?,
            timesteps: timesteps?,
            distance: distance?,
            noise: noise?,
            ema: ema?,
            adapter: match adapter {
                Some(adapter) => Some(adapter?),
                None => None,
            },
            optimizer: optimizer?,
            lr: lr?,
            data: data?,
            train: train?,
            validation: validation?,
            preview: preview?,
            sampling: sampling?,
            output: output?,
        };
        let mut origins = self.origins();
        complete(&mut recipe, &native, &mut origins);
        for (field, message) in limits::broken(&recipe) {
            self.fault(&field, ParamError::new(message));
        }
        Some(Resolved { recipe, native, family, model_dir, name, base_dir, origins })
    }

    /// Finds the checkpoint and slips its layer in.
    fn native(&mut self, model: &ModelTable) -> Option<(Native, Choice<dyn Family>, PathBuf)> {
        let found = embedded::locate(&model.path, Path::new(""))
            .map_err(|e| (Blame::Files, "model.path", ParamError::new(crate::message(&e))))
            .and_then(|dir| {
                let family = native::family(&dir, model.family.as_deref()).map_err(|e| match model.family {
                    Some(_) => (Blame::Recipe, "model.family", e),
                    None => (Blame::Files, "model.path", e),
                })?;
                let asked = |what: &str| self.value(what)?.get("type")?.as_str();
                let (solver, spacing) = (asked("sampling.solver"), asked("sampling.spacing"));
                let natives = family.native(&dir).and_then(|own| Ok((own, family.native_with(&dir, solver, spacing)?)));
                let (native, sampled) = natives.map_err(|e| {
                    let message = format!("cannot read the model's configs: {}", crate::message(&e));
                    (Blame::Files, "model.path", ParamError::new(message))
                })?;
                Ok((sampled, (native, family, dir)))
            });
        match found {
            Ok((sampled, found)) => {
                self.layers.insert(1, native::layer(&sampled));
                match layer::merge(&mut self.layers) {
                    Ok(merged) => self.merged = merged,
                    Err(fault) => self.faults.push(fault),
                }
                Some(found)
            }
            Err((blame, field, error)) => {
                self.fault(field, error);
                self.faults.last_mut().expect("just pushed").blame = blame;
                None
            }
        }
    }

    fn value(&self, path: &str) -> Option<&Value> {
        let (first, rest) = path.split_once('.').map_or((path, None), |(a, b)| (a, Some(b)));
        rest.into_iter().try_fold(self.merged.get(first)?, |value, name| value.get(name))
    }

    fn choice<K: Kind + ?Sized>(&mut self, path: &str) -> Option<Choice<K>> {
        let Some(value) = self.value(path) else {
            let error = ParamError::new(format!("the recipe has no [{path}] table"));
            self.fault(path, error.help(format!("`sconce list {}` shows what there is", K::NAME)));
            return None;
        };
        Choice::from_table(value).map_err(|e| self.fault(path, e)).ok()
    }

    fn table<T: DeserializeOwned + Serialize + JsonSchema>(&mut self, path: &str) -> Option<T> {
        let Some(value) = self.value(path).cloned() else {
            self.fault(path, ParamError::new(format!("the recipe has no [{path}] table")));
            return None;
        };
        registry::parse(value).map_err(|e| self.fault(path, e)).ok().map(|(table, _)| table)
    }

    /// `Some(None)`: there is no such table. `None`: there is, and it is wrong.
    fn optional<T: DeserializeOwned + Serialize + JsonSchema>(&mut self, path: &str) -> Option<Option<T>> {
        debug_assert!(OPTIONAL.contains(&path));
        if self.merged.contains_key(path) { self.table(path).map(Some) } else { Some(None) }
    }

    fn fault(&mut self, path: &str, error: ParamError) {
        let field = error.path.iter().fold(path.to_owned(), |path, name| layer::join(&path, name));
        let unknown = error.message.starts_with("unknown field");
        let origin = layer::locate(&self.layers, &field, if unknown { |m| m.key } else { |m| m.value });
        self.faults.push(Fault::new(origin.unwrap_or_else(|| self.file.clone()), &field, error));
    }

    fn origins(&self) -> BTreeMap<String, Origin> {
        let mut origins = BTreeMap::new();
        layer::leaves("", &Value::Object(self.merged.clone()), &mut |path| {
            if let Some(origin) = layer::locate(&self.layers, path, |m| m.value) {
                origins.insert(path.to_owned(), origin);
            }
        });
        origins
    }
}

/// Defaults that follow from other decisions.
fn complete(recipe: &mut Recipe, native: &Native, origins: &mut BTreeMap<String, Origin>) {
    let mut note = |path: &str, why: &str| origins.insert(path.to_owned(), Origin::Default(why.to_owned()));
    if recipe.train.components.is_empty() && recipe.train.task == Task::Denoiser {
        recipe.train.components.insert("unet".into(), 1.0);
        note("train.components.unet", "the denoiser trains");
    }
    for (i, source) in recipe.data.source.iter_mut().enumerate() {
        if source.resolution_px.is_none() {
            source.resolution_px = Some(native.resolution_px);
            note(&format!("data.source.{i}.resolution_px"), "the side that the model was trained on");
        }
    }
    if let Some(preview) = &mut recipe.preview {
        for (side, name) in [(&mut preview.height_px, "height_px"), (&mut preview.width_px, "width_px")] {
            if side.is_none() {
                *side = Some(native.resolution_px);
                note(&format!("preview.{name}"), "the side that the model was trained on");
            }
        }
    }
    let sampling = &recipe.sampling;
    let levels = || sampling.solver.levels(&*sampling.spacing, &*recipe.schedule, sampling.steps.max(1));
    let starts_at_noise = || levels().first().is_some_and(|l| l.t >= 1.0 - 1e-9);
    let own =
        origins.iter().filter(|(p, _)| p.starts_with("sampling.spacing")).all(|(_, o)| matches!(o, Origin::Native(_)));
    if own
        && recipe.schedule.at(1.0).alpha == 0.0
        && !starts_at_noise()
        && let Ok(trailing) = Choice::named("trailing")
    {
        recipe.sampling.spacing = trailing;
        origins.retain(|path, _| !path.starts_with("sampling.spacing."));
        let why = "the schedule ends in pure noise, and the checkpoint's own spacing does not start there";
        origins.insert("sampling.spacing.type".into(), Origin::Default(why.into()));
    }
}
