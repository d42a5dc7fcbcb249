//! The diffusers folder as a model: what it says of itself, its parts, and how it is written back, with a scheduler that
//! says what the model was trained as, so that every program that reads it samples it right. Each file is written under
//! another name and renamed when it is whole. The families differ in what a [`Rule`] says and in their networks.

pub mod copy;
pub mod native;
pub mod scheduler;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Error, Result, bail};
use sconce_core::model::{Autoencoder, Backbone, Conditioner, Family, LoadOptions, Model, Native, SaveModel};
use sconce_nn::store::Source;
use sconce_nn::weights::write_atomic;
use sconce_nn::{Param, Store};
use sconce_sdk::Choice;
use serde_json::{Map, Value, json};

use self::native::SCHEDULER;
use crate::diffusers::{config, file_names, read_json, save_weights, write_json};
use crate::{original, vae};

/// The folders of tokenizers.
pub const TOKENIZERS: [&str; 3] = ["tokenizer", "tokenizer_2", "tokenizer_3"];

/// What tells a family from the others, beside its networks.
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// Its name in weight files' headers (ModelSpec 1.0.1).
    pub architecture: &'static str,
    /// What kohya's scripts call it in LoRA files (`ss_base_model_version`), by which web interfaces sort them.
    pub base_version: &'static str,
    /// How it is known.
    pub evidence: &'static str,
    /// The denoiser's folder.
    pub denoiser: &'static str,
    /// Side of the training pictures, where the config does not say.
    pub resolution_px: u32,
    /// What its pipeline in diffusers does with the scheduler's `clip_sample`.
    pub clips: Clips,
    /// The spacing that its pipeline hands to the scheduler, whatever the scheduler's file says.
    pub spacing: Option<&'static str>,
    /// Steps of its pipeline, where they are not the usual thirty.
    pub steps: Option<usize>,
    /// Guidance of its pipeline by two passes, where it is not the usual five.
    pub cfg: Option<f64>,
}

/// What a pipeline does with the scheduler's `clip_sample`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clips {
    /// It follows the file.
    AsSaid,
    /// It sets it to false.
    Never,
}

/// True if `dir` is a diffusers folder whose denoiser is of this class.
pub fn holds(dir: &Path, denoiser: &str, class: &str) -> Result<bool> {
    let config = dir.join(denoiser).join("config.json");
    if !dir.join("model_index.json").is_file() || !config.is_file() {
        return Ok(false);
    }
    Ok(read_json(&config)?.get("_class_name").is_some_and(|found| found == class))
}

/// An error unless the folder `is` one of the family.
pub fn demand(dir: &Path, rule: &Rule, is: bool) -> Result<()> {
    match is {
        true => Ok(()),
        false => bail!("{}: this is no folder of the family {}", dir.display(), rule.name),
    }
}

/// A component's parameters without their values, to be told their shapes.
pub fn empty(component: &str) -> Arc<Store> {
    Store::new(component, Source::Shapes, DType::F32, &Device::Cpu)
}

/// The denoiser, the autoencoder of the folder, and the text encoders, in the order of [`Model::stores`].
pub fn shapes(dir: &Path, denoiser: Arc<Store>, encoders: Vec<Arc<Store>>) -> Result<Vec<Arc<Store>>> {
    Ok([denoiser, vae::shapes(&dir.join("vae"))?].into_iter().chain(encoders).collect())
}

/// A model in a folder.
pub struct FolderModel {
    dir: PathBuf,
    native: Native,
    backbone: Arc<dyn Backbone>,
    conditioner: Arc<dyn Conditioner>,
    autoencoder: Arc<dyn Autoencoder>,
}

impl Model for FolderModel {
    fn native(&self) -> &Native {
        &self.native
    }

    fn backbone(&self) -> &Arc<dyn Backbone> {
        &self.backbone
    }

    fn conditioner(&self) -> &Arc<dyn Conditioner> {
        &self.conditioner
    }

    fn autoencoder(&self) -> &Arc<dyn Autoencoder> {
        &self.autoencoder
    }

    fn autoencoder_in(&self, dir: &Path, options: &LoadOptions) -> Result<Arc<dyn Autoencoder>> {
        let (own, other) = (&self.autoencoder, vae::load(dir, options)?);
        let form = |a: &Arc<dyn Autoencoder>| [a.channels(), a.factor()];
        if form(own) != form(&other) {
            let ([channels, factor], [found, by]) = (form(own), form(&other));
            bail!(
                "{}: this autoencoder has latents of {found} channels, one for {by} pixels a side; the model's have {channels} \
                 and one for {factor}",
                dir.display()
            );
        }
        Ok(other)
    }

    fn save(&self, to: &Path, what: &SaveModel) -> Result<Vec<PathBuf>> {
        let stores = self.stores();
        let known = |name: &String| stores.iter().any(|store| store.component() == name);
        if let Some(stray) = what.weights.keys().chain(what.configs.keys()).find(|name| !known(name)) {
            bail!("{}: there is no component `{stray}` to save", self.dir.display());
        }
        let mut written = Vec::new();
        for store in &stores {
            written.extend(self.save_component(to, store, what)?);
        }
        written.extend(copy_tokenizers(&self.dir, to)?);
        let scheduler = scheduler::written(&read_json(&self.dir.join(SCHEDULER))?, &self.native, what.trained_as)?;
        let index = index(&self.dir, &scheduler, &|name| TOKENIZERS.contains(&name) || self.has(name))?;
        written.push(write_json(&to.join(SCHEDULER), &scheduler)?);
        // Last, since it is what makes the folder a model.
        written.push(write_json(&to.join("model_index.json"), &index)?);
        Ok(written)
    }

    fn single_file(&self, saved: &Path, to: &Path, metadata: &BTreeMap<String, String>) -> Result<()> {
        let family = Choice::<dyn Family>::named(&self.native.family).map_err(|e| Error::Msg(e.to_string()))?;
        original::write::write(saved, &family, to, &copy::Writing::as_it_is(metadata))
    }
}

impl FolderModel {
    /// The model of a folder: a denoiser, its text encoders, and the autoencoder, which is loaded here.
    ///
    /// # Errors
    /// If the autoencoder's latents have other channels than the denoiser's.
    pub fn assemble(
        dir: &Path,
        native: Native,
        backbone: Arc<dyn Backbone>,
        conditioner: Arc<dyn Conditioner>,
        options: &LoadOptions,
    ) -> Result<Box<dyn Model>> {
        let (autoencoder, channels) = (vae::load(&dir.join("vae"), options)?, backbone.channels());
        if channels != autoencoder.channels() {
            bail!(
                "{}: the denoiser takes {channels} channels and the autoencoder's latents have {}: inpainting, depth and \
                 picture-to-picture models are not supported",
                dir.display(),
                autoencoder.channels()
            );
        }
        Ok(Box::new(Self { dir: dir.to_owned(), native, backbone, conditioner, autoencoder }))
    }

    fn has(&self, component: &str) -> bool {
        self.stores().iter().any(|store| store.component() == component)
    }

    fn save_component(&self, to: &Path, store: &Store, what: &SaveModel) -> Result<Vec<PathBuf>> {
        let name = store.component();
        let none = BTreeMap::new();
        let replaced = what.weights.get(name).unwrap_or(&none);
        let params: BTreeMap<String, Param> = store.params().into_iter().map(|p| (p.name().to_owned(), p)).collect();
        let mut plan: BTreeMap<String, (DType, Vec<usize>)> = BTreeMap::new();
        for (name, param) in &params {
            plan.insert(name.clone(), (what.dtype, param.shape().dims().to_vec()));
        }
        for buffer in store.buffers() {
            plan.insert(buffer.clone(), (what.dtype, store.buffer(&buffer)?.dims().to_vec()));
        }
        if let Some(stray) = replaced.keys().find(|key| !plan.contains_key(*key)) {
            bail!("{name}: there is no parameter `{stray}` to save");
        }
        let given = what.configs.get(name).cloned().unwrap_or_default();
        let mut settings = match self.dir.join(name).join("config.json").is_file() || given.is_empty() {
            true => config(&self.dir.join(name))?,
            false => Map::new(), // a component that is new here
        };
        settings.extend(given);
        for field in ["torch_dtype", "dtype"] {
            if let Some(value) = settings.get_mut(field) {
                *value = json!(torch_name(what.dtype));
            }
        }
        let mut written = save_weights(to, name, &plan, what.metadata, what.shard_bytes, |key| {
            let value = match (replaced.get(key), params.get(key)) {
                (Some(value), _) => value.detach(),
                (None, Some(param)) => store.exact(param)?,
                (None, None) => store.buffer(key)?,
            };
            value.to_dtype(what.dtype)
        })?;
        written.push(write_json(&to.join(name).join("config.json"), &settings)?);
        Ok(written)
    }
}

/// A folder's `model_index.json` with the scheduler's class. Parts that the model has not (the safety checker and its feature
/// extractor) are left out, as the format allows.
fn index(dir: &Path, scheduler: &Map<String, Value>, has: &dyn Fn(&str) -> bool) -> Result<Map<String, Value>> {
    let mut index = read_json(&dir.join("model_index.json"))?;
    for (name, part) in &mut index {
        match name.as_str() {
            "scheduler" => *part = json!(["diffusers", scheduler["_class_name"]]),
            name if has(name) => {}
            "requires_safety_checker" => *part = json!(false),
            _ if part.is_array() => *part = json!([null, null]),
            _ => {}
        }
    }
    Ok(index)
}

/// Copies the tokenizers of a folder as they are.
fn copy_tokenizers(from: &Path, to: &Path) -> Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    for folder in TOKENIZERS.iter().filter(|folder| from.join(folder).is_dir()) {
        for name in file_names(&from.join(folder))? {
            let (from, path) = (from.join(folder).join(&name), to.join(folder).join(&name));
            let bytes = std::fs::read(&from).map_err(|e| Error::Msg(format!("{}: {e}", from.display())))?;
            write_atomic(&path, |out| out.write_all(&bytes))?;
            written.push(path);
        }
    }
    Ok(written)
}

fn torch_name(dtype: DType) -> &'static str {
    match dtype {
        DType::BF16 => "bfloat16",
        DType::F16 => "float16",
        DType::F64 => "float64",
        _ => "float32",
    }
}
