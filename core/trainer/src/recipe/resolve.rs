//! From a recipe's name to plugins: collects the layers, merges them, looks every plugin up, and reports all that is
//! wrong at once, each with its place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sconce_sdk::{Choice, ParamError, Schedule};

use super::builtin::builtins;
use super::chain::{anchor, chain};
use super::document::Syntax;
use super::error::{Fault, Origin, RecipeError};
use super::layer::{self, Layer};
use super::native;
use super::reader::Reader;
use super::tables::Recipe;
use crate::data::Set;
use crate::hub;
use crate::model::{Family, Native};
use crate::step::Process;

/// Where a recipe is.
#[derive(Clone, Debug)]
pub enum RecipeSource {
    /// Inside the program.
    Builtin(String),
    /// A `.toml`, `.yaml` or `.json` file.
    File(PathBuf),
    /// Another's: `hf://owner/name/recipe.toml`, `https://…`.
    Elsewhere(String),
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
    /// What a user wrote: the name of a built-in recipe, an address, or else a file.
    pub fn named(name: &str) -> Self {
        match name {
            _ if builtins().iter().any(|b| b.name == name) => Self::Builtin(name.to_owned()),
            _ if hub::is_elsewhere(name) => Self::Elsewhere(name.to_owned()),
            _ => Self::File(name.into()),
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
    /// The model's components of which no weights are read.
    pub fn left_out(&self) -> Vec<String> {
        self.recipe.model.without.iter().chain(&self.native.replaced).cloned().collect()
    }

    /// Whether the denoiser starts from nothing, and so from no output that could be kept.
    pub fn from_nothing(&self) -> bool {
        self.recipe.model.random_seed.is_some() || self.native.untrained
    }

    /// The side of a square picture of the data, in pixels.
    pub fn side_px(&self) -> u32 {
        self.recipe.data.source.first().and_then(|s| s.resolution_px).unwrap_or(self.native.resolution_px)
    }

    /// The recipe's pictures, at the sizes that the model takes.
    ///
    /// # Errors
    /// If one of them cannot be read, or there are none.
    pub fn pictures(&self) -> candle_core::Result<Set> {
        let step = self.family.bucket_step_px(&self.model_dir)?;
        let share = self.recipe.validation.as_ref().map_or(0.0, |v| v.share);
        Set::open(&self.recipe.data, &self.base_dir, self.native.resolution_px, step, share)
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
        let path = match path.trim() {
            "data.path" => "data.source.0.path", // the short way to one's own pictures
            path => path,
        };
        layers.push(Layer::assignment(origin, path, value.trim())?);
    }
    let outer = &mut layers[1..];
    outer.iter_mut().for_each(|l| anchor(l, Path::new("")));
    let merged = layer::merge(&mut layers)?;
    let mut reader = Reader { layers, merged, faults: Vec::new(), file };
    match reader.read(name, base_dir) {
        Some(resolved) if reader.faults.is_empty() => Ok(resolved),
        _ => Err(RecipeError { faults: reader.faults }),
    }
}
