//! The second phase of resolution: the merged tables become plugins and typed tables. Everything that is wrong is gathered,
//! each with its place, and what follows from other decisions is filled in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use sconce_sdk::names::nearest;
use sconce_sdk::{Choice, Kind, ParamError, registry};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::{Blame, Fault, Origin};
use super::layer::{self, Layer, OPTIONAL};
use super::needs::NeedsTable;
use super::resolve::Resolved;
use super::tables::{ModelTable, Recipe, Task};
use super::{limits, native};
use crate::architecture::Architecture;
use crate::embedded;
use crate::hub::{self, Needs};
use crate::model::{Family, Native};

/// Reads the merged tables into plugins, gathering faults.
pub(super) struct Reader {
    pub layers: Vec<Layer>,
    pub merged: Map<String, Value>,
    pub faults: Vec<Fault>,
    pub file: Origin,
}

impl Reader {
    pub fn read(&mut self, name: String, base_dir: PathBuf) -> Option<Resolved> {
        const TABLES: [&str; 19] = [
            "needs",
            "model",
            "backbone",
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

        let needs: Option<NeedsTable> = self.optional("needs")?;
        let unmet: Vec<_> = needs.iter().flat_map(NeedsTable::unmet).collect();
        if !unmet.is_empty() {
            unmet.into_iter().for_each(|(field, error)| self.fault(&field, error));
            return None; // what follows would be about what is missing
        }
        let backbone = self.merged.contains_key("backbone").then(|| self.choice("backbone"));
        if let Some(None) = backbone {
            return None; // what follows would be about another model
        }
        let backbone: Option<Choice<dyn Architecture>> = backbone.flatten();
        let mut model: Option<ModelTable> = self.table("model");
        let found = model.as_mut().and_then(|m| self.native(m, backbone.as_ref()));
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
            needs,
            model: model?,
            backbone,
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
        let mut places: Vec<(String, &mut String)> = Vec::new();
        let sources = recipe.data.source.iter_mut().enumerate();
        places.extend(sources.map(|(i, source)| (format!("data.source.{i}.path"), &mut source.path)));
        places.extend(recipe.train.adapter_from.iter_mut().map(|path| ("train.adapter_from".to_owned(), path)));
        let previews = recipe.preview.as_mut().and_then(|preview| preview.autoencoder.as_mut());
        places.extend(previews.map(|path| ("preview.autoencoder".to_owned(), path)));
        let tokens = recipe.train.token.iter_mut().enumerate();
        places.extend(tokens.filter_map(|(i, token)| Some((format!("train.token.{i}.from"), token.from.as_mut()?))));
        for (field, path) in places.into_iter().filter(|(_, path)| hub::leads(path)) {
            match hub::pinned(path) {
                Ok(pinned) => *path = pinned,
                Err(e) => self.fault(&field, ParamError::new(crate::message(&e))),
            }
        }
        for (field, message) in limits::broken(&recipe) {
            self.fault(&field, ParamError::new(message));
        }
        Some(Resolved { recipe, native, family, model_dir, name, base_dir, origins })
    }

    /// Finds the checkpoint and slips its layer in. One of the Hub is named by its commit from here on.
    fn native(
        &mut self,
        model: &mut ModelTable,
        backbone: Option<&Choice<dyn Architecture>>,
    ) -> Option<(Native, Choice<dyn Family>, PathBuf)> {
        if hub::leads(&model.path) {
            match hub::pinned(&model.path) {
                Ok(pinned) => model.path = pinned,
                Err(e) => {
                    self.fault("model.path", ParamError::new(crate::message(&e)));
                    self.faults.last_mut().expect("just pushed").blame = Blame::Files;
                    return None;
                }
            }
        }
        let found = embedded::locate_model(&model.path, &model.files, Path::new(""), Needs::Configs)
            .map_err(|e| (Blame::Files, "model.path", ParamError::new(crate::message(&e))))
            .and_then(|dir| {
                let family = native::family(&dir, model.family.as_deref()).map_err(|e| match model.family {
                    Some(_) => (Blame::Recipe, "model.family", e),
                    None => (Blame::Files, "model.path", e),
                })?;
                let family = match backbone {
                    Some(backbone) => {
                        native::with_backbone(&family, backbone).map_err(|e| (Blame::Recipe, "backbone", e))?
                    }
                    None => family,
                };
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
        debug_assert!(path == "needs" || OPTIONAL.contains(&path));
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
    let given: Vec<String> = origins.keys().cloned().collect();
    let said = |path: &str| given.iter().any(|p| p == path);
    let mut note = |path: &str, why: &str| origins.insert(path.to_owned(), Origin::Default(why.to_owned()));
    // Words without an adapter are all that is learned.
    let words_alone = recipe.adapter.is_none() && !recipe.train.token.is_empty();
    if recipe.train.components.is_empty() && recipe.train.task == Task::Denoiser && !words_alone {
        recipe.train.components.insert(native.denoiser.clone(), 1.0);
        note(&format!("train.components.{}", native.denoiser), "the denoiser trains");
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
    let sampling = &mut recipe.sampling;
    if let Some(steps) = native.steps.filter(|_| !said("sampling.steps")) {
        sampling.steps = steps;
        note("sampling.steps", "as many as the model's own pipeline takes");
    }
    if let Some(cfg) = native.cfg.filter(|_| !said("sampling.cfg")) {
        sampling.cfg = cfg;
        note("sampling.cfg", "that of the model's own pipeline");
    }
    if sampling.guidance.is_none() && native.guidance.is_some() {
        sampling.guidance = native.guidance;
        note("sampling.guidance", "that of the model's own pipeline");
    }
    if recipe.train.guidance.is_none() && native.guidance.is_some() {
        recipe.train.guidance = Some(1.0);
        note("train.guidance", "at 1 the output of a guidance-distilled model is the data's own");
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
