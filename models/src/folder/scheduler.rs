//! The scheduler's config of a model that is saved: what was trained, in diffusers' vocabulary, so that every program that
//! reads the folder samples it right.

use sconce_core::model::Native;
use sconce_sdk::{Choice, Schedule};
use serde_json::{Map, Value, json};

use candle_core::{Error, Result};

use super::native::{BY_AMOUNT, CLASSES, Class, FLOW};

/// The scheduler's config for a model that was loaded as `loaded` and trained as `trained`: the fields of the old one,
/// with each that the training decided written out, since what is left out has another meaning in another class.
pub fn written(old: &Map<String, Value>, loaded: &Native, trained: &Native) -> Result<Map<String, Value>> {
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
