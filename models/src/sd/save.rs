//! A loaded Stable Diffusion model, and how it is written back: a whole diffusers folder whose scheduler says what the
//! model was trained as, so that every program that reads it samples it right. Each file is written under another name
//! and renamed when it is whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Error, Result, Tensor, bail};
use sconce_core::model::{Autoencoder, Backbone, Conditioner, Model, Native, SaveModel};
use sconce_nn::Store;
use sconce_nn::weights::{save, write_atomic};
use sconce_sdk::{Choice, Schedule};
use serde_json::{Map, Value, json};

use super::native::{BY_AMOUNT, CLASSES, Class, FLOW, SCHEDULER};
use crate::diffusers::{config, file_names, read_json};

/// A model of one of these families.
pub struct SdModel {
    pub(super) dir: PathBuf,
    pub(super) native: Native,
    pub(super) scheduler: Map<String, Value>,
    pub(super) backbone: Arc<dyn Backbone>,
    pub(super) conditioner: Arc<dyn Conditioner>,
    pub(super) autoencoder: Arc<dyn Autoencoder>,
}

impl Model for SdModel {
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

    fn save(&self, to: &Path, what: &SaveModel) -> Result<Vec<PathBuf>> {
        let mut stores = vec![self.backbone.store().clone(), self.autoencoder.store().clone()];
        stores.extend(self.conditioner.stores());
        let known = |name: &String| stores.iter().any(|store| store.component() == name);
        if let Some(stray) = what.weights.keys().chain(what.configs.keys()).find(|name| !known(name)) {
            bail!("{}: there is no component `{stray}` to save", self.dir.display());
        }
        let mut written = Vec::new();
        for store in &stores {
            written.extend(self.save_component(to, store, what)?);
        }
        for folder in ["tokenizer", "tokenizer_2"].iter().filter(|folder| self.dir.join(folder).is_dir()) {
            for name in file_names(&self.dir.join(folder))? {
                let (from, path) = (self.dir.join(folder).join(&name), to.join(folder).join(&name));
                let bytes = std::fs::read(&from).map_err(|e| Error::Msg(format!("{}: {e}", from.display())))?;
                write_atomic(&path, |out| out.write_all(&bytes))?;
                written.push(path);
            }
        }
        let scheduler = scheduler(&self.scheduler, &self.native, what.trained_as)?;
        let index = self.index(&scheduler)?;
        written.push(write_json(&to.join(SCHEDULER), &scheduler)?);
        // Last, since it is what makes the folder a model.
        written.push(write_json(&to.join("model_index.json"), &index)?);
        Ok(written)
    }
}

impl SdModel {
    fn save_component(&self, to: &Path, store: &Store, what: &SaveModel) -> Result<Vec<PathBuf>> {
        let name = store.component();
        let none = BTreeMap::new();
        let replaced = what.weights.get(name).unwrap_or(&none);
        let mut weights: BTreeMap<String, Tensor> = BTreeMap::new();
        for param in store.params() {
            let value = match replaced.get(param.name()) {
                Some(value) => value.detach(),
                None => store.exact(&param)?,
            };
            let shape = param.tensor().shape().clone();
            if value.shape() != &shape {
                bail!("{name}: `{}` has shape {shape:?}, not {:?}", param.name(), value.shape());
            }
            weights.insert(param.name().to_owned(), value.to_dtype(what.dtype)?);
        }
        if let Some(stray) = replaced.keys().find(|key| !weights.contains_key(*key)) {
            bail!("{name}: there is no parameter `{stray}` to save");
        }
        let mut settings = config(&self.dir.join(name))?;
        settings.extend(what.configs.get(name).cloned().unwrap_or_default());
        for field in ["torch_dtype", "dtype"] {
            if let Some(value) = settings.get_mut(field) {
                *value = json!(torch_name(what.dtype));
            }
        }
        let stem = if name.starts_with("text_encoder") { "model" } else { "diffusion_pytorch_model" };
        let file = to.join(name).join(format!("{stem}.safetensors"));
        save(&file, &weights, what.metadata)?;
        Ok(vec![file, write_json(&to.join(name).join("config.json"), &settings)?])
    }

    /// `model_index.json` with the scheduler's class. Parts that are not of the model (the safety checker and its feature
    /// extractor) are left out, as the format allows.
    fn index(&self, scheduler: &Map<String, Value>) -> Result<Map<String, Value>> {
        let mut index = read_json(&self.dir.join("model_index.json"))?;
        for (name, part) in &mut index {
            match name.as_str() {
                "scheduler" => *part = json!(["diffusers", scheduler["_class_name"]]),
                "unet" | "vae" | "text_encoder" | "text_encoder_2" | "tokenizer" | "tokenizer_2" => {}
                "requires_safety_checker" => *part = json!(false),
                _ if part.is_array() => *part = json!([null, null]),
                _ => {}
            }
        }
        Ok(index)
    }
}

fn torch_name(dtype: DType) -> &'static str {
    match dtype {
        DType::BF16 => "bfloat16",
        DType::F16 => "float16",
        DType::F64 => "float64",
        _ => "float32",
    }
}

fn write_json(path: &Path, json: &Map<String, Value>) -> Result<PathBuf> {
    let text = serde_json::to_string_pretty(json).map_err(Error::wrap)? + "\n";
    write_atomic(path, |out| out.write_all(text.as_bytes()))?;
    Ok(path.to_owned())
}

/// The scheduler's config for a model that was loaded as `loaded` and trained as `trained`: the fields of the old one,
/// with each that the training decided written out, since what is left out has another meaning in another class.
pub fn scheduler(old: &Map<String, Value>, loaded: &Native, trained: &Native) -> Result<Map<String, Value>> {
    let (schedule, zero_terminal) = match kind(&trained.schedule) {
        "zero-terminal" => (&trained.schedule["of"], true),
        _ => (&trained.schedule, false),
    };
    let mut new = old.clone();
    let mut set = |field: &str, value: Value| _ = new.insert(field.to_owned(), value);
    let prediction = match kind(&trained.objective) {
        "epsilon" => "epsilon",
        "v" => "v_prediction",
        "x0" => "sample",
        "flow" => "flow_prediction",
        other => other, // of a plugin: diffusers refuses it by name, which is right
    };
    let class = class(old, loaded, trained, zero_terminal, kind(schedule).starts_with("rectified-flow"));
    set("_class_name", json!(class));
    set("prediction_type", json!(prediction));
    if let Some(deviation) = trained.objective.get("sigma_data") {
        set("sigma_data", deviation.clone());
    }
    set("rescale_betas_zero_snr", json!(zero_terminal));
    set("clip_sample", json!(trained.solver.get("clip").is_some()));
    if let Some(bound) = trained.solver.get("clip") {
        set("clip_sample_range", bound.clone());
    }
    for field in ["trained_betas", "use_flow_sigmas"] {
        set(field, Value::Null);
    }

    let full = Choice::<dyn Schedule>::from_table(schedule).map_err(Error::wrap)?;
    let table = full.table();
    // The format has one rule for sizes, Flux's; any other is written for the size that the model is for.
    let side = (trained.resolution_px / trained.latent_px.max(1)).max(1) as usize;
    let full = full.sized(side, side);
    let plain_cosine = || table["offset"] == json!(0.008) && table["largest_beta"] == json!(0.999);
    match kind(schedule) {
        "rectified-flow" => {
            set("shift", table["shift"].clone());
            set("use_dynamic_shifting", json!(false));
        }
        "rectified-flow-flux" => {
            set("use_dynamic_shifting", json!(true));
            set("time_shift_type", json!("exponential"));
            for (field, own) in [
                ("base_shift", "base_shift"),
                ("max_shift", "max_shift"),
                ("base_image_seq_len", "base_tokens"),
                ("max_image_seq_len", "max_tokens"),
            ] {
                set(field, table[own].clone());
            }
        }
        "rectified-flow-sd3" => {
            let middle = full.at(0.5);
            set("shift", json!(middle.sigma / middle.alpha));
            set("use_dynamic_shifting", json!(false));
        }
        name @ ("scaled-linear" | "linear") => {
            set("beta_schedule", json!(name.replace('-', "_")));
            set("beta_start", table["beta_start"].clone());
            set("beta_end", table["beta_end"].clone());
        }
        "cosine" if plain_cosine() => set("beta_schedule", json!("squaredcos_cap_v2")),
        _ => set("trained_betas", json!(betas(&*full))),
    }
    set("num_train_timesteps", json!(full.grid().unwrap_or(1000)));

    let spacing = &trained.spacing;
    let over = |default| spacing.get("over").and_then(Value::as_str).unwrap_or(default);
    match kind(spacing) {
        name @ ("leading" | "trailing" | "linspace") => set("timestep_spacing", json!(name)),
        "normal" => set("timestep_spacing", json!("linspace")),
        "ddim-uniform" => set("timestep_spacing", json!("leading")),
        "sgm-uniform" | "simple" => set("timestep_spacing", json!("trailing")), // the nearest there is
        "beta" if over("time") == "time" => set("timestep_spacing", json!("trailing")),
        _ => {}
    }
    for (flag, name) in BY_AMOUNT {
        let amount = if class == FLOW { "sigma" } else { "ratio" };
        let default = if name == "beta" { "time" } else { "ratio" };
        set(flag, json!(kind(spacing) == name && over(default) == amount));
    }
    let offset = if kind(spacing) == "ddim-uniform" { json!(1) } else { json!(0) };
    set("steps_offset", spacing.get("steps_offset").cloned().unwrap_or(offset));
    let first_point = |table: &Value| table.get("last").is_some_and(|last| last == "first-point");
    set("final_sigmas_type", json!(if first_point(&trained.spacing) { "sigma_min" } else { "zero" }));
    if kind(&trained.solver) == "ddim" {
        set("set_alpha_to_one", json!(!first_point(&trained.solver)));
    }
    // What stands for a class does not say how that class is to run.
    if trained.solver != loaded.solver || old.get("_class_name").is_none_or(|name| name != class) {
        let own = |field: &str, default: Value| trained.solver.get(field).cloned().unwrap_or(default);
        match kind(&trained.solver) {
            name @ ("dpmpp-2m" | "dpmpp-2m-sde") => {
                set("algorithm_type", json!(if name == "dpmpp-2m" { "dpmsolver++" } else { "sde-dpmsolver++" }));
                set("solver_type", own("solver_type", json!("midpoint")));
                set("solver_order", json!(2));
            }
            name @ ("unipc" | "unipc-bh1") => {
                set("solver_type", json!(if name == "unipc" { "bh2" } else { "bh1" }));
                set("solver_order", own("order", json!(2)));
            }
            _ => {}
        }
    }
    Ok(new)
}

fn kind(table: &Value) -> &str {
    table.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// The scheduler class: the old one where it still fits, or that of the solver.
fn class<'a>(
    old: &'a Map<String, Value>,
    loaded: &Native,
    trained: &Native,
    zero_terminal: bool,
    flow: bool,
) -> &'a str {
    if flow {
        return FLOW;
    }
    let fits = |class: &&Class| {
        class.name != FLOW && (class.zero_terminal || !zero_terminal) && kind(&trained.objective) != "x0"
    };
    let old = old.get("_class_name").and_then(Value::as_str).unwrap_or_default();
    let same_solver = kind(&loaded.solver) == kind(&trained.solver);
    if same_solver && CLASSES.iter().find(|class| class.name == old).is_some_and(|class| fits(&class)) {
        return old;
    }
    let wanted =
        |class: &&Class| class.solvers.contains(&kind(&trained.solver)) && (class.zero_terminal || !zero_terminal);
    let of_solver = CLASSES.iter().filter(|class| class.name != FLOW).find(wanted);
    // Heun's and DPM++ SDE's have no zero-terminal table there; Euler's takes the same steps to first order.
    of_solver.map_or("EulerDiscreteScheduler", |class| class.name)
}

/// The betas of a schedule that has no name in the format: 1 - beta_i = s_i/s_(i-1), s the share of signal alpha² /
/// (alpha² + sigma²).
fn betas(schedule: &dyn Schedule) -> Vec<f64> {
    let points = schedule.grid().unwrap_or(1000);
    let share = |i: usize| {
        let noise = schedule.at(i as f64 / points as f64);
        noise.alpha.powi(2) / (noise.alpha.powi(2) + noise.sigma.powi(2))
    };
    (0..points).map(|i| 1.0 - share(i + 1) / if i == 0 { 1.0 } else { share(i) }).collect()
}
