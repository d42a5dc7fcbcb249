//! A model whose denoiser is that of a [backbone] table: the text encoders and the autoencoder are those of a model of another
//! family, in whose folder the denoiser's weights and the table that makes it stand beside them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Error, Result, bail};
use schemars::JsonSchema;
use sconce_core::architecture::{Architecture, Start};
use sconce_core::model::{Autoencoder, Backbone, Conditioner, Family, LoadOptions, Model, Native, SaveModel};
use sconce_nn::Store;
use sconce_nn::store::{Keep, Source};
use sconce_sdk::network::Condition;
use sconce_sdk::{Choice, ParamError, register};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::diffusers::{config, has_weights, read_json, weights, write_json};

/// The component's name: the folder of its weights.
const COMPONENT: &str = "backbone";

/// What `config.json` of the denoiser's folder says of itself.
const CLASS: &str = "SconceBackbone";

/// A denoiser of another making in the place of that of a model of another family. What a recipe with a [backbone] table trains,
/// and a folder that such a run wrote.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OwnBackbone {
    /// The family of what stands around the denoiser, where the folder does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub around: Option<String>,
    /// The denoiser, where the folder has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backbone: Option<Choice<dyn Architecture>>,
}

/// What a folder and a recipe say together.
struct Parts {
    around: Choice<dyn Family>,
    backbone: Choice<dyn Architecture>,
    /// The folder of the denoiser's weights, where it has some.
    weights: Option<PathBuf>,
}

impl OwnBackbone {
    fn parts(&self, path: &Path) -> Result<Parts> {
        let own = path.join(COMPONENT);
        let saved = if is(path)? { Some(config(&own)?) } else { None };
        let said = |field: &str| match saved.as_ref().and_then(|saved| saved.get(field)) {
            Some(value) => Ok(value.clone()),
            None => bail!("{}: `{field}` is missing", own.join("config.json").display()),
        };
        let around = match (&saved, &self.around) {
            (None, Some(name)) => Value::String(name.clone()),
            _ => said("around")?,
        };
        let around = Choice::<dyn Family>::from_table(&around).map_err(fault)?;
        let theirs = saved.as_ref().map(|_| Choice::<dyn Architecture>::from_table(&said("backbone")?).map_err(fault));
        let backbone = match (theirs.transpose()?, &self.backbone) {
            (Some(theirs), Some(ours)) if theirs.table() != ours.table() => bail!(
                "{}: the model has a backbone of its own, {}, and the recipe asks for {}: leave out [backbone]",
                path.display(),
                theirs.table(),
                ours.table()
            ),
            (Some(theirs), _) => theirs,
            (None, Some(ours)) => ours.clone(),
            (None, None) => bail!("{}: no backbone is named: write a [backbone] table", path.display()),
        };
        let weights = (saved.is_some() && has_weights(&own)?).then_some(own);
        Ok(Parts { around, backbone, weights })
    }

    fn described(&self, path: &Path, around: impl FnOnce(&dyn Family) -> Result<Native>) -> Result<Native> {
        let parts = self.parts(path)?;
        let name = parts.backbone.name();
        let mut native = around(&*parts.around)?;
        native.family = "own-backbone".to_owned();
        native.replaced = Some(std::mem::replace(&mut native.denoiser, COMPONENT.to_owned()));
        (native.architecture, native.base_version) = (name.to_owned(), name.to_owned());
        (native.steps, native.cfg, native.guidance) = (None, None, None);
        if parts.weights.is_none() {
            let told = parts.backbone.about().native;
            native.untrained = !told.contains_key("objective");
            let tables = [
                ("schedule", &mut native.schedule),
                ("objective", &mut native.objective),
                ("spacing", &mut native.spacing),
                ("solver", &mut native.solver),
            ];
            for (field, table) in tables {
                if let Some(value) = told.get(field) {
                    *table = value.clone();
                    native.evidence.insert(field.to_owned(), format!("the backbone {name}"));
                }
            }
        }
        Ok(native)
    }
}

fn fault(e: ParamError) -> Error {
    Error::Msg(e.to_string())
}

/// True if a model's folder has a denoiser of a [backbone] table.
pub fn is(path: &Path) -> Result<bool> {
    let file = path.join(COMPONENT).join("config.json");
    Ok(file.is_file() && read_json(&file)?.get("_class_name").is_some_and(|class| class == CLASS))
}

impl Family for OwnBackbone {
    fn detect(&self, path: &Path) -> Result<bool> {
        is(path)
    }

    fn native(&self, path: &Path) -> Result<Native> {
        self.described(path, |around| around.native(path))
    }

    fn native_with(&self, path: &Path, solver: Option<&str>, spacing: Option<&str>) -> Result<Native> {
        self.described(path, |around| around.native_with(path, solver, spacing))
    }

    fn shapes(&self, path: &Path) -> Result<Vec<Arc<Store>>> {
        let parts = self.parts(path)?;
        let mut stores = parts.around.shapes(path)?;
        stores[0] = Store::new(COMPONENT, Source::Shapes, DType::F32, &Device::Cpu);
        parts.backbone.build(stores[0].clone())?;
        Ok(stores)
    }

    fn conditions(&self, path: &Path) -> Result<Vec<Condition>> {
        self.parts(path)?.around.conditions(path)
    }

    fn fits(&self, path: &Path) -> Result<()> {
        let parts = self.parts(path)?;
        let given = parts.around.conditions(path)?;
        for asked in parts.backbone.about().conditions.iter().filter(|_| !given.is_empty()) {
            let Some(found) = given.iter().find(|c| c.name == asked.name) else {
                let there: Vec<&str> = given.iter().map(|c| c.name.as_str()).collect();
                bail!("the backbone takes a `{}`, a {} gives {}", asked.name, parts.around.name(), there.join(", "))
            };
            asked.takes(&found.shape).map_err(Error::Msg)?;
        }
        Ok(())
    }

    fn bucket_step_px(&self, path: &Path) -> Result<u32> {
        let parts = self.parts(path)?;
        Ok(parts.around.native(path)?.latent_px * parts.backbone.about().side_multiple.max(1) as u32)
    }

    fn has_single_file(&self) -> bool {
        false
    }

    fn backbone(&self, path: &Path, options: &LoadOptions) -> Result<Arc<dyn Backbone>> {
        let parts = self.parts(path)?;
        // One of its own: an engine is told this model's weights, which are no other's business.
        let made = Choice::<dyn Architecture>::from_table(&parts.backbone.table()).map_err(fault)?;
        let source = match (&parts.weights, made.start(), options.random) {
            (Some(dir), ..) => Source::Files(weights(dir)?),
            (None, Start::Own(read), _) => Source::Own(read),
            (None, Start::Seeded, Some(seed)) => Source::Random(seed),
            (None, Start::Seeded, None) => {
                bail!("the backbone `{}` starts from nothing: set model.random_seed", made.name())
            }
        };
        let keep = Keep { hosted_blocks: options.swap_blocks, ..options.keep(COMPONENT) };
        let store = Store::keeping(COMPONENT, source, made.dtype(options.dtype), &options.device, keep, options.reads);
        let backbone = made.build(store.clone()).map_err(|e| e.context(format!("the backbone `{}`", made.name())))?;
        store.finish()?;
        Ok(backbone)
    }

    fn around(&self, path: &Path, backbone: Arc<dyn Backbone>, options: &LoadOptions) -> Result<Box<dyn Model>> {
        let parts = self.parts(path)?;
        let inner = parts.around.around(path, backbone, options)?;
        let table = json!({ "_class_name": CLASS, "around": parts.around.name(), "backbone": parts.backbone.table() });
        let Value::Object(config) = table else { unreachable!("an object was written") };
        Ok(Box::new(Whole { dir: path.to_owned(), native: self.native(path)?, inner, config }))
    }
}

/// The model around such a denoiser, which is saved with the table that makes it.
struct Whole {
    dir: PathBuf,
    native: Native,
    inner: Box<dyn Model>,
    config: Map<String, Value>,
}

impl Model for Whole {
    fn native(&self) -> &Native {
        &self.native
    }

    fn backbone(&self) -> &Arc<dyn Backbone> {
        self.inner.backbone()
    }

    fn conditioner(&self) -> &Arc<dyn Conditioner> {
        self.inner.conditioner()
    }

    fn autoencoder(&self) -> &Arc<dyn Autoencoder> {
        self.inner.autoencoder()
    }

    fn autoencoder_in(&self, dir: &Path, options: &LoadOptions) -> Result<Arc<dyn Autoencoder>> {
        self.inner.autoencoder_in(dir, options)
    }

    fn save(&self, to: &Path, what: &SaveModel) -> Result<Vec<PathBuf>> {
        let mut configs = what.configs.clone();
        configs.entry(COMPONENT.to_owned()).or_default().extend(self.config.clone());
        // By the config of the denoiser that was here first, the text encoders know what is asked of them.
        let first = &self.inner.native().denoiser;
        let theirs = write_json(&to.join(first).join("config.json"), &config(&self.dir.join(first))?)?;
        let mut written = self.inner.save(to, &SaveModel { configs: &configs, ..*what })?;
        written.insert(0, theirs);
        Ok(written)
    }

    fn single_file(&self, _: &Path, _: &Path, _: &BTreeMap<String, String>) -> Result<()> {
        bail!("{}: a model with a [backbone] of its own has no layout in a single file", self.dir.display())
    }
}

register!(Family, "own-backbone", OwnBackbone);
