//! What a recipe means, told before anything is loaded: the noise, what the loss weighs, the pictures, the memory, and
//! every reason why the run would not do what its author wants. Computed from the plugins' own numbers, never from
//! their names.

mod conversion;
mod data;
mod memory;
mod noise;
mod sampling;
mod step;

pub(crate) use noise::percent;

use std::fmt;
use std::path::Path;

use candle_core::Device;
use serde::Serialize;
use serde_json::{Value, json};

use crate::hub;
use crate::recipe::{Blame, Float, ModelLayout, Resolved, Task};

/// One line of the explanation.
#[derive(Clone, Debug, Serialize)]
pub struct Fact {
    /// What it is about.
    pub topic: &'static str,
    /// For people.
    pub text: String,
    /// For programs.
    pub value: Value,
}

/// A reason to think again, or to stop.
#[derive(Clone, Debug, Serialize)]
pub struct Note {
    /// A stable word for scripts.
    pub id: &'static str,
    /// What is wrong, and why it matters.
    pub message: String,
    /// What to do.
    pub help: String,
    /// Whether the recipe is at fault, or the files that it names.
    #[serde(skip)]
    pub blame: Blame,
}

/// The explanation of a recipe.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The recipe's name.
    pub name: String,
    /// What it means.
    pub facts: Vec<Fact>,
    /// What is probably not meant.
    pub warnings: Vec<Note>,
    /// What cannot work: such a run does not start.
    pub refusals: Vec<Note>,
}

impl Report {
    fn fact(&mut self, topic: &'static str, text: String, value: Value) {
        self.facts.push(Fact { topic, text, value });
    }

    fn warn(&mut self, id: &'static str, message: String, help: impl Into<String>) {
        self.warnings.push(Note { id, message, help: help.into(), blame: Blame::Recipe });
    }

    fn refuse(&mut self, id: &'static str, message: String, help: impl Into<String>) {
        self.refusals.push(Note { id, message, help: help.into(), blame: Blame::Recipe });
    }
}

/// Explains a resolved recipe: reads configs and the headers of pictures, no weights.
pub fn explain(resolved: &Resolved) -> Report {
    let mut report = without_pictures(resolved);
    data::explain(resolved, &mut report);
    report
}

/// [`explain`] without a look at the pictures: what a run asks before it starts.
pub fn without_pictures(resolved: &Resolved) -> Report {
    let mut report = Report { name: resolved.name.clone(), ..Report::default() };
    needs(resolved, &mut report);
    model(resolved, &mut report);
    if resolved.recipe.train.task == Task::Denoiser {
        noise::explain(resolved, &mut report);
    }
    run(resolved, &mut report);
    parts(resolved, &mut report);
    report
}

/// What the recipe's maker says that it needs.
fn needs(resolved: &Resolved, report: &mut Report) {
    let Some(needs) = &resolved.recipe.needs else { return };
    let mut said = Vec::new();
    said.extend(needs.data.clone());
    said.extend(needs.pictures.map(|n| format!("at least {n} pictures")));
    said.extend(needs.memory_gb.map(|gb| format!("{gb} GB of memory")));
    let device = needs.device.as_ref().map_or(String::new(), |device| format!(" on {device}"));
    said.extend(needs.hours.map(|hours| format!("{hours} hours{device}")));
    if !said.is_empty() {
        report.fact("needs", format!("by its maker: {}", said.join(", ")), json!(needs));
    }
}

/// Holds the recipe against the model's parameters and layers, and says what memory they take.
fn parts(resolved: &Resolved, report: &mut Report) {
    let (recipe, family) = (&resolved.recipe, &resolved.family);
    let mut stores = match family.shapes(&resolved.model_dir) {
        Ok(stores) => stores,
        Err(e) => {
            return report.warn(
                "no-sizes",
                format!("the model's sizes cannot be read, so memory is not estimated: {}", crate::message(&e)),
                "check its config.json files",
            );
        }
    };
    let encoders: Vec<&str> = stores.iter().skip(2).map(|store| store.component()).collect();
    if let Some(stray) = recipe.model.without.iter().find(|name| !encoders.contains(&name.as_str())) {
        let there = encoders.join(", ");
        return report.refuse(
            "no-such-encoder",
            format!("model.without: there is no encoder `{stray}` to leave out, the model has {there}"),
            "take it out",
        );
    }
    if recipe.output.model_layouts.contains(&ModelLayout::SingleFile) && !resolved.family.has_single_file() {
        report.refuse(
            "no-single-file",
            format!(
                "output.model_layouts: a model of the family {} has no layout in a single file",
                resolved.family.name()
            ),
            "write output.model_layouts = [\"diffusers\"]",
        );
    }
    if let Err(e) = family.fits(&resolved.model_dir) {
        report.refuse("does-not-fit", crate::message(&e), "`sconce show` on the backbone says what it takes");
    }
    preview(resolved, report);
    stores.retain(|store| !recipe.model.without.iter().any(|name| name == store.component()));
    let held = recipe.model.load_options(&Device::Cpu).held_by(&stores);
    match held.and_then(|()| crate::train::parts(recipe, &stores)) {
        Ok(parts) => memory::explain(resolved, &stores, &parts, report),
        Err(e) => report.refuse(
            "does-not-fit",
            crate::message(&e),
            "`sconce inspect` on the model's folder lists its components",
        ),
    }
}

/// Refuses previews of a size that is no whole number of latents or tokens, or by an autoencoder that is not there.
fn preview(resolved: &Resolved, report: &mut Report) {
    let (family, dir) = (&resolved.family, &resolved.model_dir);
    let in_tokens = family.tokens(dir, resolved.native.resolution_px).is_ok_and(|tokens| tokens.is_some());
    let step = match family.bucket_step_px(dir) {
        Ok(step) if in_tokens => step,
        _ => resolved.native.latent_px,
    };
    let Some(table) = &resolved.recipe.preview else { return };
    if let Some(dir) = table.autoencoder.as_ref().filter(|dir| !hub::leads(dir) && !Path::new(dir).is_dir()) {
        report.refuse(
            "no-preview-autoencoder",
            format!("preview.autoencoder: there is no folder `{dir}`"),
            "give the folder of an AutoencoderTiny (config.json and its weights), or leave it out",
        );
    }
    for (name, side) in [("height_px", table.height_px), ("width_px", table.width_px)] {
        if let Some(px) = side.filter(|px| px % step != 0 || *px == 0) {
            report.refuse(
                "preview-size",
                format!("preview.{name} = {px}: sides must be multiples of {step} for this model"),
                format!("the nearest is {}", (px + step / 2) / step * step),
            );
        }
    }
}

fn model(resolved: &Resolved, report: &mut Report) {
    let (native, model) = (&resolved.native, &resolved.recipe.model);
    let start = model.random_seed.map_or(String::new(), |seed| format!(", starting from nothing (seed {seed})"));
    let named = match &resolved.recipe.backbone {
        Some(backbone) => format!("backbone {}, the rest", backbone.name()),
        None => native.family.clone(),
    };
    report.fact(
        "model",
        format!("{named} in {}{start}, {} px, computed in {}", model.path, native.resolution_px, word(model.dtype)),
        json!({ "family": native.family, "path": model.path, "resolution_px": native.resolution_px, "dtype": model.dtype,
                "random_seed": model.random_seed }),
    );
    for (what, table) in [
        ("schedule", &native.schedule),
        ("objective", &native.objective),
        ("spacing", &native.spacing),
        ("solver", &native.solver),
    ] {
        let evidence = native.evidence.get(what).map_or("the family's rule", String::as_str);
        let text = format!("{what} {} ({evidence})", in_one_line(table));
        report.fact("checkpoint", text, json!({ "of": what, "table": table, "evidence": evidence }));
    }
}

fn run(resolved: &Resolved, report: &mut Report) {
    let recipe = &resolved.recipe;
    let (train, batch) = (&recipe.train, recipe.data.batch * recipe.train.accumulate);
    let updates = train.images.div_ceil(batch as u64);
    let parts: Vec<String> = match train.task {
        Task::Autoencoder => vec!["the autoencoder".into()],
        Task::Denoiser => train.components.iter().map(|(name, rate)| format!("{name} at {rate} of the rate")).collect(),
    };
    let how = recipe.adapter.as_ref().map_or("in full".to_owned(), |a| format!("by {}", in_one_line(&a.table())));
    report.fact(
        "trains",
        format!("{} {how}", parts.join(", ")),
        json!({ "task": train.task, "components": train.components, "adapter": recipe.adapter }),
    );
    for group in &train.group {
        let decay = group.weight_decay.map_or(String::new(), |d| format!(", weight decay {d}"));
        let text = format!("{}: {} times the rate{decay}", group.targets.join(", "), group.lr_factor);
        report.fact("group", text, json!(group));
    }
    report.fact(
        "run",
        format!("{} images: {updates} updates of {batch}, seed {}", train.images, train.seed),
        json!({ "images": train.images, "updates": updates, "images_per_update": batch, "seed": train.seed }),
    );
    let lr = recipe.optimizer.lr();
    let at = |share: f64| lr * recipe.lr.factor((share * train.images as f64) as u64, train.images);
    let top = (0..=100).map(|i| at(f64::from(i) / 100.0)).fold(0.0, f64::max);
    report.fact(
        "optimizer",
        format!(
            "{}; rate {} at the start, {} at most, {} at the end",
            in_one_line(&recipe.optimizer.table()),
            figure(at(0.0)),
            figure(top),
            figure(at(1.0))
        ),
        json!({ "optimizer": recipe.optimizer, "lr": recipe.lr, "first": at(0.0), "largest": top, "last": at(1.0) }),
    );
    let tracks = 0..recipe.ema.tracks().len();
    let decays: Vec<f64> = tracks.map(|track| recipe.ema.decay(track, train.images, batch as u64)).collect();
    if !decays.is_empty() {
        let listed: Vec<String> = decays.iter().map(|d| format!("{d:.6}")).collect();
        let text = format!("{}: decay {} an update at the end", in_one_line(&recipe.ema.table()), listed.join(" and "));
        report.fact("average", text, json!({ "ema": recipe.ema, "last_decays": decays }));
    }
    let words = train.token.iter().any(|token| token.lr_factor > 0.0);
    if train.components.values().all(|rate| *rate == 0.0) && train.task == Task::Denoiser && !words {
        report.refuse(
            "nothing-trains",
            "no component trains: every factor in train.components is 0".into(),
            "give one a factor above 0",
        );
    }
    for (field, scale) in [("sampling.guidance", recipe.sampling.guidance), ("train.guidance", train.guidance)] {
        if let (Some(scale), None) = (scale, resolved.native.guidance) {
            report.refuse(
                "no-guidance-embedding",
                format!("{field} = {scale}: this model was not distilled to know its guidance, so it cannot be told"),
                format!("remove {field}; sampling.cfg guides any model by two passes a step"),
            );
        }
    }
    if recipe.model.dtype == Float::F16 {
        report.refuse(
            "f16-gradients",
            "model.dtype = \"f16\": gradients of this size underflow in half precision, and the loss is not scaled"
                .into(),
            "take \"bf16\" or \"f32\"; the saved weights may still be f16 (output.dtype)",
        );
    }
}

/// Three digits, whatever the size.
pub(crate) fn figure(x: f64) -> String {
    match x.abs() {
        0.0 => "0".into(),
        a if a.is_infinite() => "infinite".into(),
        a if !(1e-3..1e5).contains(&a) => format!("{x:.2e}"),
        a => {
            let digits = (2 - a.log10().floor() as i32).clamp(0, 6) as usize;
            let text = format!("{x:.digits$}");
            if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
        }
    }
}

/// A plugin's table in one line: `min-snr { gamma = 5.0 }`.
pub fn in_one_line(table: &Value) -> String {
    let fields = |map: &serde_json::Map<String, Value>| -> Vec<String> {
        map.iter()
            .filter(|(k, v)| *k != "type" && !v.is_null())
            .map(|(k, v)| format!("{k} = {}", in_one_line(v)))
            .collect()
    };
    match table {
        Value::Object(map) => {
            let name = map.get("type").and_then(Value::as_str).unwrap_or_default();
            match fields(map).join(", ") {
                fields if fields.is_empty() => name.to_owned(),
                fields => format!("{name} {{ {fields} }}").trim_start().to_owned(),
            }
        }
        Value::Array(items) if items.len() > 8 => {
            let (first, last) = (in_one_line(&items[0]), in_one_line(&items[items.len() - 1]));
            format!("[{first} … {last}: {} values]", items.len())
        }
        Value::String(text) if text.contains(char::is_whitespace) => format!("\"{text}\""),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn word(value: impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "recipe      {}", self.name)?;
        for fact in &self.facts {
            writeln!(f, "{:<11} {}", fact.topic, fact.text.replace('\n', "\n            "))?;
        }
        for (word, notes) in [("warning", &self.warnings), ("refused", &self.refusals)] {
            for note in notes {
                writeln!(f, "\n{word}: {}\n  help: {}", note.message, note.help)?;
            }
        }
        Ok(())
    }
}
