//! Optimizers and their arguments. The programs call them by many names, and mostly take them from the same libraries, so
//! names, arguments and what they are here stand in one place.

use serde_json::{Map, Value, json};

use crate::case::Case;
use crate::report::Verdict;

/// Names elsewhere (lower case, without `_`, `-` and a module's path), the plugin, and what is different.
const NAMES: &[(&str, &str, &str)] = &[
    ("adamw", "adamw", ""),
    ("adam", "adamw", "Adam's weight decay, where there was any, went into the gradient; AdamW's does not"),
    (
        "adamwoptimi",
        "adamw",
        "weights that train are f32, or bf16 with stochastic rounding (train.weights): no Kahan sum",
    ),
    ("stableadamw", "adamw", "its clipping of each update is missing; train.clip_norm cuts the gradient"),
    ("adamw8bit", "adamw-8bit", ""),
    ("adam8bit", "adamw-8bit", "Adam's weight decay, where there was any, went into the gradient; AdamW's does not"),
    ("pagedadamw8bit", "adamw-8bit", "its state stays on the device"),
    ("pagedadamw", "adamw", "its state stays on the device: adamw-8bit needs a quarter of it"),
    ("pagedadamw32bit", "adamw", "its state stays on the device: adamw-8bit needs a quarter of it"),
    ("adamw8bitkahan", "adamw-8bit", "weights that train are f32, or bf16 with stochastic rounding (train.weights)"),
    ("adamwadv", "adamw", "what its variants add is missing"),
    ("adafactor", "adafactor", ""),
    ("came", "came", ""),
    ("came8bit", "came", "its state is f32"),
    ("lion", "lion", ""),
    ("lion8bit", "lion", "its state is f32"),
    ("pagedlion8bit", "lion", "its state is f32, on the device"),
    ("lionadv", "lion", "what its variants add is missing"),
    ("prodigy", "prodigy", ""),
    ("prodigyadv", "prodigy", "what its variants add is missing"),
    ("prodigyplusschedulefree", "prodigy", "without its averaging: add [ema] type = \"power\""),
    ("dadaptation", "prodigy", "Prodigy is D-Adaptation's successor by the same author"),
    ("dadaptadam", "prodigy", "Prodigy is D-Adaptation's successor by the same author"),
    ("dadaptadampreprint", "prodigy", "Prodigy is D-Adaptation's successor by the same author"),
    ("dadaptadan", "prodigy", "Prodigy is D-Adaptation's successor by the same author"),
    ("schedulefreeadamw", "schedule-free-adamw", ""),
    ("adamwschedulefree", "schedule-free-adamw", ""),
    ("radamschedulefree", "schedule-free-adamw", "without RAdam's warm-up of its own: set lr.warmup_images"),
    ("muon", "muon", "which matrices follow AdamW may be others: see adamw_targets"),
];

/// The parameters of each plugin, beside `lr`.
const FIELDS: &[(&str, &[&str])] = &[
    ("adamw", &["beta1", "beta2", "eps", "weight_decay"]),
    ("adamw-8bit", &["beta1", "beta2", "eps", "weight_decay", "smallest"]),
    ("adafactor", &["scale", "beta1", "decay_power", "clip_threshold", "eps", "eps_weight", "weight_decay"]),
    ("came", &["beta1", "beta2", "beta3", "eps", "eps_confidence", "clip_threshold", "weight_decay"]),
    ("lion", &["beta1", "beta2", "weight_decay"]),
    ("prodigy", &["beta1", "beta2", "beta3", "eps", "weight_decay", "d0", "d_coef", "growth_rate", "slice"]),
    ("schedule-free-adamw", &["beta1", "beta2", "eps", "weight_decay", "average_power", "rate_power"]),
    ("muon", &["momentum", "iterations", "weight_decay"]),
];

/// Names of arguments that are others here.
const RENAMED: &[(&str, &str)] = &[
    ("decay_rate", "decay_power"),
    ("slice_p", "slice"),
    ("r", "average_power"),
    ("weight_lr_power", "rate_power"),
    ("ns_steps", "iterations"),
    ("min_8bit_size", "smallest"),
];

/// Arguments about how the update is computed, whose result is the same.
const SPEED: &[&str] =
    &["fused", "foreach", "capturable", "differentiable", "fsdp_in_use", "use_triton", "is_paged", "compile"];

/// An optimizer by a name elsewhere: the plugin, and what is different.
pub(crate) fn find(name: &str) -> Option<(&'static str, &'static str)> {
    let last = name.rsplit('.').next().unwrap_or(name);
    let plain: String = last.chars().filter(|c| c.is_ascii_alphanumeric()).collect::<String>().to_ascii_lowercase();
    NAMES.iter().find(|(there, ..)| *there == plain).map(|(_, here, note)| (*here, *note))
}

/// True if it finds its own rate, which is one for all that trains.
pub(crate) fn one_rate(name: &str) -> bool {
    find(name).is_some_and(|(plugin, _)| plugin == "prodigy")
}

/// Sets the optimizer. Without one that is known the recipe asks for it.
pub(crate) fn set(case: &mut Case, name: &str) -> Verdict {
    match find(name) {
        Some((here, note)) => {
            case.set("optimizer.type", here);
            if note.is_empty() { Verdict::went("optimizer.type") } else { Verdict::near("optimizer.type", note) }
        }
        None => Verdict::no_place(format!(
            "there is no such optimizer; `sconce list optimizer` says which there are ({name})"
        )),
    }
}

/// An argument of the optimizer that the program calls `name`.
pub(crate) fn argument(case: &mut Case, name: &str, argument: &str, value: &Value) -> Verdict {
    let Some((plugin, _)) = find(name) else { return Verdict::no_place("its optimizer has none") };
    let known = FIELDS.iter().find(|(p, _)| *p == plugin).map_or(&[][..], |(_, fields)| fields);
    let numbers = numbers(value);
    let mut put = |field: &str, value: Value| {
        case.set(&format!("optimizer.{field}"), value);
        Verdict::went(format!("optimizer.{field}"))
    };
    let yes = value.as_bool().unwrap_or_else(|| value.as_str().is_some_and(|s| s.eq_ignore_ascii_case("true")));
    match (argument, plugin) {
        (fast, _) if SPEED.contains(&fast) => Verdict::no_need("it is about speed, and changes no update"),
        ("betas", _) => {
            let named = ["beta1", "beta2", "beta3"].into_iter().zip(&numbers).filter(|(f, _)| known.contains(f));
            let to: Vec<String> = named
                .map(|(f, x)| {
                    put(f, json!(x));
                    format!("optimizer.{f}")
                })
                .collect();
            if to.is_empty() { Verdict::no_place("its optimizer has none") } else { Verdict::went(to.join(", ")) }
        }
        ("eps" | "eps2", "adafactor" | "came") => {
            let second = if plugin == "came" { "eps_confidence" } else { "eps_weight" };
            let fields = if argument == "eps2" { [second, ""] } else { ["eps", second] };
            let to = fields.into_iter().zip(&numbers).map(|(f, x)| {
                put(f, json!(x));
                format!("optimizer.{f}")
            });
            Verdict::went(to.collect::<Vec<_>>().join(", "))
        }
        ("decay_rate", "adafactor") => match numbers.first() {
            Some(x) => put("decay_power", json!(x.abs())),
            None => Verdict::Default,
        },
        ("scale_parameter" | "relative_step" | "warmup_init", "adafactor") => Verdict::went("optimizer.scale"),
        ("use_bias_correction", "prodigy") if yes => put("bias_correction", json!("adam")),
        ("safeguard_warmup", "prodigy") if yes => put("warmup", json!("safeguarded")),
        ("use_bias_correction" | "safeguard_warmup" | "decouple", "prodigy") => match (argument, yes) {
            ("decouple", false) => Verdict::no_place("weight decay is always decoupled"),
            _ => Verdict::no_need("so it is here"),
        },
        ("growth_rate", "prodigy") if numbers.is_empty() => Verdict::no_need("no limit is the default"),
        _ => {
            let field = RENAMED.iter().find(|(there, _)| *there == argument).map_or(argument, |(_, here)| here);
            match numbers.first() {
                Some(x) if known.contains(&field) => put(field, whole(*x, field)),
                _ if value.is_null() || value == &Value::Bool(false) => Verdict::Default,
                _ => Verdict::no_place(format!("`{plugin}` has no such parameter")),
            }
        }
    }
}

/// How Adafactor's rate is to be read: transformers' two flags are one word here.
pub(crate) fn adafactor(case: &mut Case, scale_parameter: bool, relative_step: bool) {
    let scale = match (relative_step, scale_parameter) {
        (true, _) => "relative",
        (false, true) => "weight",
        (false, false) => "absolute",
    };
    case.set_as(
        "optimizer.scale",
        scale,
        &format!("relative_step = {relative_step}, scale_parameter = {scale_parameter}"),
    );
    if relative_step {
        case.set_as("optimizer.lr", 1.0, "the paper's own rate: with relative_step the configuration's was not used");
    }
}

/// The numbers in a value: one, a list, or either in a text.
fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().filter_map(Value::as_f64).collect(),
        Value::String(text) => {
            let parts = text.split(',').map(|p| p.trim_matches(|c: char| "()[] ".contains(c)));
            parts.filter_map(|p| p.parse().ok()).filter(|x: &f64| x.is_finite()).collect()
        }
        other => other.as_f64().into_iter().collect(),
    }
}

/// Counts are whole numbers, all else is not.
fn whole(x: f64, field: &str) -> Value {
    match field {
        "slice" | "smallest" | "iterations" => json!(x.max(0.0) as u64),
        _ => json!(x),
    }
}

/// Components with their rates, as a recipe has them: factors on the rate of the run.
pub(crate) fn components(case: &mut Case, name: &str, base: f64, rates: &[(&str, f64)], why: &str) {
    let one = one_rate(name);
    if one && rates.iter().any(|(_, rate)| *rate != base) {
        case.warn(
            "Prodigy finds one rate for all that trains: rates of components that differ are not in the \
             recipe",
        );
    }
    // Factors as people write them: 0.5, and not 0.49999999999999994.
    let factor = |rate: f64| if base > 0.0 && !one { (rate / base * 1e6).round() / 1e6 } else { 1.0 };
    let table: Map<String, Value> =
        rates.iter().map(|(name, rate)| ((*name).to_owned(), json!(factor(*rate)))).collect();
    case.set_as("train.components", table, why);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_however_they_are_written() {
        let found =
            ["AdamW8bit", "ADAMW_8BIT", "adamw_optimi", "bitsandbytes.optim.PagedAdamW8bit", "SCHEDULE_FREE_ADAMW"];
        let found = found.map(|n| find(n).map(|(here, _)| here));
        assert_eq!(
            found,
            [Some("adamw-8bit"), Some("adamw-8bit"), Some("adamw"), Some("adamw-8bit"), Some("schedule-free-adamw")]
        );
        assert_eq!(find("SGDNesterov"), None);
    }

    #[test]
    fn numbers_are_read_from_texts_and_lists() {
        assert_eq!(numbers(&json!("(0.9, 0.99)")), [0.9, 0.99]);
        assert_eq!(numbers(&json!([1e-30, 1e-3])), [1e-30, 1e-3]);
        assert_eq!(numbers(&json!("inf")), Vec::<f64>::new());
    }
}
