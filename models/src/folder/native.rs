//! What a diffusers folder says about how its model was trained and is to be sampled: `scheduler/scheduler_config.json`
//! and the pictures' size, as recipe tables, each with the place it was read from. A field left out of the file has
//! diffusers' default, which differs from class to class, and the evidence says so.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Error, Result, bail};
use sconce_core::model::Native;
use serde_json::{Map, Value, json};

use super::{Clips, Rule};
use crate::diffusers::{self, read_json};

/// The scheduler's file in a model folder.
pub const SCHEDULER: &str = "scheduler/scheduler_config.json";

/// In a folder that was made of a single file: where the scheduler's facts are from.
pub const EVIDENCE: &str = "evidence.json";

/// A scheduler class of diffusers: what it does where its config leaves a field out, and which solver it is.
pub struct Class {
    /// Its name in `_class_name`.
    pub name: &'static str,
    /// The solvers that are it, or the one that stands for it; first what it is by default.
    pub solvers: &'static [&'static str],
    /// Whether the solvers are this class, or only stand for it.
    pub same: bool,
    /// Whether it has `rescale_betas_zero_snr`.
    pub zero_terminal: bool,
    beta_schedule: &'static str,
    betas: [f64; 2],
    spacing: &'static str,
    /// Default of `set_alpha_to_one`, where it has the field.
    to_one: Option<bool>,
    /// Default of `clip_sample`, where it has the field.
    clips: Option<bool>,
}

impl Class {
    /// Whether the class is this solver.
    fn is(&self, solver: &str) -> bool {
        self.same && self.solvers.iter().any(|&own| own == solver)
    }
}

const fn ddim(name: &'static str) -> Class {
    Class {
        name,
        solvers: &["ddim"],
        same: false,
        zero_terminal: true,
        beta_schedule: "linear",
        betas: [0.0001, 0.02],
        spacing: "leading",
        to_one: None,
        clips: None,
    }
}

const fn sigmas(name: &'static str, solvers: &'static [&'static str]) -> Class {
    Class { solvers, spacing: "linspace", ..ddim(name) }
}

/// Those with Stable Diffusion's betas by default.
const fn from_sd(name: &'static str, solvers: &'static [&'static str]) -> Class {
    Class { zero_terminal: false, betas: [0.00085, 0.012], ..sigmas(name, solvers) }
}

/// The classes whose defaults are known; of those with one solver, the first is how that solver is saved.
pub const CLASSES: [Class; 17] = [
    Class { same: true, to_one: Some(true), clips: Some(true), ..ddim("DDIMScheduler") },
    Class { zero_terminal: false, to_one: Some(false), ..ddim("PNDMScheduler") },
    Class { clips: Some(true), ..ddim("DDPMScheduler") },
    Class { same: true, ..sigmas("EulerDiscreteScheduler", &["euler"]) },
    Class { same: true, ..sigmas("EulerAncestralDiscreteScheduler", &["euler-ancestral"]) },
    Class { same: true, ..from_sd("HeunDiscreteScheduler", &["heun"]) },
    Class { same: true, ..sigmas("DPMSolverMultistepScheduler", &["dpmpp-2m", "dpmpp-2m-sde"]) },
    Class { same: true, ..sigmas("UniPCMultistepScheduler", &["unipc", "unipc-bh1"]) },
    Class { same: true, ..from_sd("DPMSolverSDEScheduler", &["dpmpp-sde"]) },
    Class { zero_terminal: false, ..sigmas("DPMSolverSinglestepScheduler", &["dpmpp-2m"]) },
    Class { zero_terminal: false, ..sigmas("DEISMultistepScheduler", &["dpmpp-2m"]) },
    Class { zero_terminal: false, ..sigmas("LMSDiscreteScheduler", &["euler"]) },
    from_sd("KDPM2DiscreteScheduler", &["heun"]),
    from_sd("KDPM2AncestralDiscreteScheduler", &["euler-ancestral"]),
    Class { beta_schedule: "scaled_linear", betas: [0.00085, 0.012], to_one: Some(true), ..ddim("LCMScheduler") },
    Class { beta_schedule: "scaled_linear", betas: [0.00085, 0.012], to_one: Some(true), ..ddim("TCDScheduler") },
    Class { same: true, zero_terminal: false, ..sigmas(FLOW, &["euler"]) },
];

/// The scheduler of rectified flow.
pub const FLOW: &str = "FlowMatchEulerDiscreteScheduler";

/// Fields of the file as they are asked for, with a note of each.
struct Facts<'a> {
    class: &'static Class,
    fields: &'a Map<String, Value>,
    notes: Vec<String>,
}

impl Facts<'_> {
    fn get(&mut self, field: &str, default: impl Into<Value>) -> Value {
        let (value, whence) = match self.fields.get(field).filter(|value| !value.is_null()) {
            Some(value) => (value.clone(), String::new()),
            None => (default.into(), format!(" (left out: the default of {})", self.class.name)),
        };
        let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        self.notes.push(format!("{field} = {shown}{whence}"));
        value
    }

    fn word(&mut self, field: &str, default: &str) -> Result<String> {
        match self.get(field, default) {
            Value::String(word) => Ok(word),
            other => bail!("{SCHEDULER}: `{field}` is {other}, expected a word"),
        }
    }

    /// An option, of which silence is not worth a note.
    fn option(&mut self, field: &str, default: impl Into<Value>) -> Value {
        if self.fields.get(field).is_some_and(|value| !value.is_null()) {
            self.get(field, default)
        } else {
            default.into()
        }
    }

    fn flag(&mut self, field: &str) -> bool {
        // Silence means no; what is noted is what differs.
        let on = self.fields.get(field).and_then(Value::as_bool).unwrap_or(false);
        if on {
            self.notes.push(format!("{field} = true"));
        }
        on
    }

    fn evidence(&mut self) -> String {
        format!("{SCHEDULER}: {}", std::mem::take(&mut self.notes).join(", "))
    }
}

/// What the folder says.
pub fn read(dir: &Path, rule: &Rule) -> Result<Native> {
    let path = dir.join(SCHEDULER);
    let fields = read_json(&path)?;
    let name = fields.get("_class_name").and_then(Value::as_str).unwrap_or_default();
    let Some(class) = CLASSES.iter().find(|class| class.name == name) else {
        let known: Vec<&str> = CLASSES.iter().map(|class| class.name).collect();
        bail!("{}: `_class_name` = {name:?} is not supported; there are: {}", path.display(), known.join(", "));
    };
    let mut facts = Facts { class, fields: &fields, notes: Vec::new() };
    let mut evidence = BTreeMap::new();
    let mut say = |field: &str, why: String| _ = evidence.insert(field.to_owned(), why);

    let schedule = schedule(&mut facts).map_err(|e| Error::Msg(format!("{}: {e}", dir.display())))?;
    say("schedule", facts.evidence());
    let objective = objective(&mut facts)?;
    say("objective", facts.evidence());
    let (spacing, why) = match rule.spacing {
        Some(own) => (json!({ "type": own }), format!("the pipeline of {} spaces its steps so", rule.name)),
        None => (spacing(&mut facts)?, facts.evidence()),
    };
    say("spacing", why);
    let solver = solver(&mut facts, rule)?;
    say("solver", facts.evidence());
    if dir.join(EVIDENCE).is_file() {
        let whence = read_json(&dir.join(EVIDENCE))?;
        let whence = whence.get("scheduler").and_then(Value::as_str).unwrap_or_default();
        for field in ["schedule", "objective", "spacing", "solver"] {
            say(field, whence.to_owned());
        }
    }
    let latent_px = latent_px(dir)?;
    let Rule { steps, cfg, denoiser, .. } = *rule;
    let (resolution_px, why) = resolution(dir, rule, latent_px)?;
    say("resolution_px", why);
    say("family", rule.evidence.to_owned());
    let (family, architecture) = (rule.name.to_owned(), rule.architecture.to_owned());
    Ok(Native {
        family,
        architecture,
        base_version: rule.base_version.to_owned(),
        schedule,
        objective,
        spacing,
        solver,
        steps,
        cfg,
        guidance: None,
        denoiser: denoiser.to_owned(),
        replaced: None,
        resolution_px,
        latent_px,
        untrained: false,
        evidence,
    })
}

/// What the folder says where another solver or spacing samples it: the scheduler's file is read as that solver's class
/// would read it, which is how programs swap schedulers. What the model was trained as stays.
pub fn read_with(dir: &Path, rule: &Rule, solver: Option<&str>, spacing: Option<&str>) -> Result<Native> {
    let mut native = read(dir, rule)?;
    let mut fields = read_json(&dir.join(SCHEDULER))?;
    let own = |class: &&Class| fields.get("_class_name").is_some_and(|name| name == class.name);
    let other = |name: &str| CLASSES.iter().find(|class| class.is(name) && class.name != FLOW);
    let Some(own) = CLASSES.iter().find(own) else { return Ok(native) };
    let class = if own.name == FLOW { own } else { solver.and_then(other).unwrap_or(own) };
    if let Some(name) = spacing {
        for (flag, _) in BY_AMOUNT.iter().filter(|(_, by)| *by != name) {
            fields.remove(*flag);
        }
        match (name, BY_AMOUNT.iter().find(|(_, by)| *by == name)) {
            ("leading" | "trailing" | "linspace", _) => _ = fields.insert("timestep_spacing".to_owned(), json!(name)),
            // Beta over sigmas, only where the file says so: by its name alone it is the paper's, over time.
            ("karras" | "exponential", Some((flag, _))) => _ = fields.insert((*flag).to_owned(), json!(true)),
            _ => {}
        }
    }
    let mut facts = Facts { class, fields: &fields, notes: Vec::new() };
    let mut table = self::spacing(&mut facts)?;
    if let Some(name) = spacing.filter(|&name| table["type"] != name) {
        // One that diffusers has no word for still ends where the file says.
        let last = table.get("last").cloned();
        table = json!({ "type": name });
        if let Some(last) = last {
            table["last"] = last;
        }
    }
    let evidence = facts.evidence();
    if spacing.is_some() || rule.spacing.is_none() {
        native.spacing = table;
        native.evidence.insert("spacing".to_owned(), evidence);
    }
    let mut table = self::solver(&mut facts, rule)?;
    if let Some(name) = solver.filter(|&name| table["type"] != name) {
        (table, facts.notes) = (json!({ "type": name }), vec![format!("_class_name = {}", class.name)]);
    }
    native.solver = table;
    let mut evidence = facts.evidence();
    if class.name != own.name {
        evidence = evidence.replace(&format!("_class_name = {}", class.name), &format!("read as by {}", class.name));
    }
    native.evidence.insert("solver".to_owned(), evidence);
    Ok(native)
}

fn schedule(facts: &mut Facts) -> Result<Value> {
    if facts.class.name == FLOW && facts.flag("use_dynamic_shifting") {
        let kind = facts.word("time_shift_type", "exponential")?;
        if kind != "exponential" {
            bail!("{SCHEDULER}: `time_shift_type` = {kind:?} is not supported, only \"exponential\"");
        }
        return Ok(json!({
            "type": "rectified-flow-flux",
            "base_shift": facts.get("base_shift", 0.5), "max_shift": facts.get("max_shift", 1.15),
            "base_tokens": facts.get("base_image_seq_len", 256), "max_tokens": facts.get("max_image_seq_len", 4096),
        }));
    }
    if facts.class.name == FLOW {
        return Ok(json!({ "type": "rectified-flow", "shift": facts.get("shift", 1.0) }));
    }
    if facts.flag("use_flow_sigmas") {
        return Ok(json!({ "type": "rectified-flow", "shift": facts.get("flow_shift", 1.0) }));
    }
    if facts.fields.get("timestep_type").is_some_and(|kind| kind == "continuous") {
        bail!("{SCHEDULER}: `timestep_type` = \"continuous\" is not supported, only \"discrete\"");
    }
    let table = match facts.fields.get("trained_betas").filter(|betas| !betas.is_null()) {
        Some(betas) => {
            facts.notes.push(format!("trained_betas, {} of them", betas.as_array().map_or(0, Vec::len)));
            json!({ "type": "table", "betas": betas })
        }
        None => named_schedule(facts)?,
    };
    Ok(match facts.class.zero_terminal && facts.flag("rescale_betas_zero_snr") {
        true => json!({ "type": "zero-terminal", "of": table }),
        false => table,
    })
}

/// A schedule that the format has a name for.
fn named_schedule(facts: &mut Facts) -> Result<Value> {
    let [start, end] = facts.class.betas;
    let kind = facts.word("beta_schedule", facts.class.beta_schedule)?;
    let name = match kind.as_str() {
        "scaled_linear" => "scaled-linear",
        "linear" => "linear",
        "sigmoid" => "sigmoid-betas",
        "squaredcos_cap_v2" => "cosine",
        other => bail!("{SCHEDULER}: `beta_schedule` = {other:?} is not supported"),
    };
    let mut table = json!({ "type": name });
    if name != "cosine" {
        table["beta_start"] = facts.get("beta_start", start);
        table["beta_end"] = facts.get("beta_end", end);
    }
    table["steps"] = facts.get("num_train_timesteps", 1000);
    Ok(table)
}

fn objective(facts: &mut Facts) -> Result<Value> {
    if facts.class.name == FLOW {
        facts.notes.push(format!("_class_name = {FLOW}"));
        return Ok(json!({ "type": "flow" }));
    }
    let name = match facts.word("prediction_type", "epsilon")?.as_str() {
        "epsilon" => "epsilon",
        "v_prediction" => "v",
        "sample" => "x0",
        "flow_prediction" => "flow",
        // Not diffusers' word: what a saved folder says where diffusers has none, so that it refuses the folder.
        "edm" => return Ok(json!({ "type": "edm", "sigma_data": facts.get("sigma_data", 0.5) })),
        other => bail!("{SCHEDULER}: `prediction_type` = {other:?} is not supported"),
    };
    Ok(json!({ "type": name }))
}

/// Spacings by the amount of noise, by their flags.
pub const BY_AMOUNT: [(&str, &str); 3] =
    [("use_karras_sigmas", "karras"), ("use_exponential_sigmas", "exponential"), ("use_beta_sigmas", "beta")];

fn spacing(facts: &mut Facts) -> Result<Value> {
    let by_amount = BY_AMOUNT.iter().find(|(flag, _)| facts.flag(flag));
    let mut table = match by_amount {
        Some((_, kind)) if facts.class.name == FLOW => json!({ "type": kind, "over": "sigma" }),
        Some((_, kind @ "beta")) => json!({ "type": kind, "over": "ratio" }),
        Some((_, kind)) => json!({ "type": kind }),
        None if facts.class.name == FLOW => {
            facts.notes.push(format!("_class_name = {FLOW}"));
            match facts.flag("use_dynamic_shifting") {
                true => json!({ "type": "normal" }),
                false => json!({ "type": "normal", "least": "amount" }),
            }
        }
        None => match facts.word("timestep_spacing", facts.class.spacing)?.as_str() {
            "leading" => json!({ "type": "leading", "steps_offset": facts.get("steps_offset", 0) }),
            kind @ ("trailing" | "linspace") => json!({ "type": kind }),
            other => bail!("{SCHEDULER}: `timestep_spacing` = {other:?} is not supported"),
        },
    };
    if facts.flag("use_lu_lambdas") {
        bail!("{SCHEDULER}: `use_lu_lambdas` = true is not supported");
    }
    if facts.fields.get("final_sigmas_type").is_some_and(|kind| kind == "sigma_min") {
        facts.notes.push("final_sigmas_type = sigma_min".to_owned());
        table["last"] = json!("first-point");
    }
    Ok(table)
}

fn solver(facts: &mut Facts, rule: &Rule) -> Result<Value> {
    let Class { name, solvers, same, to_one, clips, .. } = facts.class;
    let at = facts.notes.len();
    let (mut table, same) = match solvers {
        ["dpmpp-2m", "dpmpp-2m-sde"] => dpmpp_2m(facts)?,
        ["unipc", "unipc-bh1"] => unipc(facts)?,
        _ => (json!({ "type": solvers[0] }), *same),
    };
    let stands = table["type"].as_str().unwrap_or_default();
    let note =
        if same { format!("_class_name = {name}") } else { format!("_class_name = {name}, for which {stands} stands") };
    facts.notes.insert(at, note);
    if let Some(default) = to_one {
        if facts.get("set_alpha_to_one", *default) == json!(false) {
            table["last"] = json!("first-point");
        }
    }
    if let Some(default) = clips.filter(|_| rule.clips == Clips::AsSaid)
        && facts.get("clip_sample", default) == json!(true)
    {
        table["clip"] = facts.get("clip_sample_range", 1.0);
    }
    Ok(table)
}

/// DPMSolverMultistepScheduler's table, and whether it does what the class would do.
fn dpmpp_2m(facts: &mut Facts) -> Result<(Value, bool)> {
    let (kind, same) = match facts.option("algorithm_type", "dpmsolver++").as_str() {
        Some("dpmsolver++" | "deis") => ("dpmpp-2m", true), // the class takes the second for the first
        Some("dpmsolver") => ("dpmpp-2m", false),
        Some("sde-dpmsolver++") => ("dpmpp-2m-sde", true),
        Some("sde-dpmsolver") => ("dpmpp-2m-sde", false),
        other => bail!("{SCHEDULER}: `algorithm_type` = {other:?} is not supported"),
    };
    let mut table = json!({ "type": kind });
    // The class takes other classes' words for its default.
    if facts.option("solver_type", "midpoint") == json!("heun") {
        table["solver_type"] = json!("heun");
    }
    let lower = facts.option("lower_order_final", true) == json!(true);
    Ok((table, same && lower && facts.option("solver_order", 2) == json!(2)))
}

/// UniPCMultistepScheduler's table, and whether it does what the class would do.
fn unipc(facts: &mut Facts) -> Result<(Value, bool)> {
    let kind = if facts.option("solver_type", "bh2") == json!("bh1") { "unipc-bh1" } else { "unipc" };
    let order = facts.option("solver_order", 2).as_u64().unwrap_or(2);
    let on_data = facts.option("predict_x0", true) == json!(true);
    let corrected = facts.option("disable_corrector", json!([])) == json!([]);
    let lower = facts.option("lower_order_final", true) == json!(true);
    let table = json!({ "type": kind, "order": order.clamp(1, 3) });
    Ok((table, (1..=3).contains(&order) && on_data && corrected && lower))
}

/// Pixels that a latent's side stands for: the autoencoder halves between its levels.
pub fn latent_px(dir: &Path) -> Result<u32> {
    let vae = diffusers::config(&dir.join("vae"))?;
    let levels =
        ["block_out_channels", "encoder_block_out_channels"].iter().find_map(|field| vae.get(*field)?.as_array());
    Ok(1 << levels.map_or(1, Vec::len).saturating_sub(1).min(16))
}

/// The side of the training pictures, and how it is known.
fn resolution(dir: &Path, rule: &Rule, factor: u32) -> Result<(u32, String)> {
    let denoiser = diffusers::config(&dir.join(rule.denoiser))?;
    let size = match denoiser.get("sample_size") {
        Some(Value::Array(sides)) => sides.iter().filter_map(Value::as_u64).max(),
        Some(side) => side.as_u64(),
        None => None,
    };
    Ok(match size.and_then(|side| u32::try_from(side).ok()) {
        Some(side) => (
            side.saturating_mul(factor),
            format!("{}/config.json: sample_size = {side}, times {factor}", rule.denoiser),
        ),
        None => {
            (rule.resolution_px, format!("{}/config.json has no sample_size: the rule of {}", rule.denoiser, rule.name))
        }
    })
}
