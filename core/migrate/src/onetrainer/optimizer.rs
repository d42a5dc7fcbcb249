//! The optimizer and the course of the rate.

use serde_json::Value;

use crate::case::Case;
use crate::optim;
use crate::report::Verdict;
use crate::rule::Does::{By, No, Not};
use crate::rule::Takes::{Any, Number, Text};
use crate::rule::{Field, Rule};

pub(super) static RULES: &[Rule] = &[
    Rule::new(
        "optimizer.optimizer",
        Text,
        By(|c, f| {
            let verdict = optim::set(c, f.text());
            scale(c);
            verdict
        }),
    )
    .said("\"ADAMW\""),
    // Before its fields had a table of their own.
    Rule::new("optimizer", Text, By(|c, f| optim::set(c, f.text()))),
    Rule::new("optimizer_defaults", Any, Not("they are what the window remembers of other optimizers")),
    Rule::new("optimizer.*", Any, By(argument)),
    Rule::new(
        "learning_rate",
        Number,
        By(|c, _| {
            super::parts::components(c);
            scale(c);
            Verdict::went("optimizer.lr")
        }),
    )
    .said("3e-6"),
    Rule::new(
        "learning_rate_scaler",
        Text,
        By(|c, f| match f.text() {
            "NONE" => Verdict::Default,
            _ => {
                super::parts::components(c);
                Verdict::near("optimizer.lr", "the rate is written with its factor, the root of what it scales by")
            }
        }),
    )
    .usual("\"NONE\""),
    Rule::new(
        "clip_grad_norm",
        Number,
        By(|c, f| match c.draft.get("train.gradients").is_some() {
            true => Verdict::no_place("gradients that are released cannot be cut"),
            false => {
                c.set("train.clip_norm", f.value.clone());
                Verdict::went("train.clip_norm")
            }
        }),
    )
    .usual("1.0"),
    Rule::new("learning_rate_scheduler", Text, By(scheduler)).said("\"CONSTANT\""),
    Rule::new("custom_learning_rate_scheduler", Text, No("there are no courses but those of `sconce list lr`")),
    Rule::new(
        "scheduler_params",
        Any,
        By(|_, f| match f.value.as_array().is_some_and(|a| !a.is_empty()) {
            true => Verdict::no_place("there are no courses but those of `sconce list lr`"),
            false => Verdict::Default,
        }),
    ),
    Rule::new("learning_rate_warmup_steps", Number, By(warmup)).said("200.0"),
    Rule::new(
        "learning_rate_cycles",
        Number,
        By(|c, f| match c.text("learning_rate_scheduler").as_str() {
            "COSINE_WITH_HARD_RESTARTS" => {
                c.set("lr.cycles", f.number().unwrap_or(1.0).round().max(1.0) as u64);
                Verdict::went("lr.cycles")
            }
            "COSINE_WITH_RESTARTS" => Verdict::went("lr.cycles"),
            _ => Verdict::no_need("this course does not read it"),
        }),
    )
    .usual("1.0"),
    Rule::new(
        "learning_rate_min_factor",
        Number,
        By(|c, f| match c.text("learning_rate_scheduler").as_str() {
            "CONSTANT" | "ADAFACTOR" => Verdict::no_need("this course does not read it"),
            _ => {
                c.set("lr.final_factor", f.value.clone());
                Verdict::went("lr.final_factor")
            }
        }),
    )
    .usual("0.0"),
];

/// Fields of the optimizer that are true unless another optimizer has them.
const OTHERS: &[&str] = &[
    "split_groups",
    "split_groups_mean",
    "factored",
    "factored_fp32",
    "use_stableadamw",
    "d_limiter",
    "use_schedulefree",
    "rms_rescaling",
    "weight_decay_by_lr",
    "block_wise",
    "MuonWithAuxAdam",
];

fn argument(case: &mut Case, field: &Field) -> Verdict {
    let name = case.text("optimizer.optimizer");
    let argument = field.key.trim_start_matches("optimizer.").to_owned();
    match (argument.as_str(), &field.value) {
        (_, Value::Null | Value::Bool(false)) if argument != "decouple" => Verdict::Default,
        (other, Value::Bool(true)) if OTHERS.contains(&other) => Verdict::Default,
        ("stochastic_rounding", _) => Verdict::no_need("weights in bf16 are always rounded so (train.weights)"),
        ("fused_back_pass", Value::Bool(true)) => {
            case.set("train.gradients", "released");
            case.set_as("train.clip_norm", 0.0, "released gradients cannot be cut");
            if case.accumulate != 1.0 {
                case.warn(
                    "released gradients cannot be added up either: train.accumulate must be 1 with \
                     train.gradients = \"released\"",
                );
            }
            Verdict::went("train.gradients")
        }
        ("percentile_clipping", Value::Number(n)) if n.as_f64() == Some(100.0) => Verdict::Default,
        ("optim_bits", _) => Verdict::no_need("the optimizer's name says it"),
        (_, Value::Object(o)) if o.is_empty() => Verdict::Default,
        ("fsdp_in_use" | "log_every", _) => Verdict::no_need("it changes no update"),
        _ => optim::argument(case, &name, &argument, &field.value),
    }
}

/// Adafactor's rate.
fn scale(case: &mut Case) {
    if case.text("optimizer.optimizer") == "ADAFACTOR" {
        let flag = |key: &str| case.given(&format!("optimizer.{key}")).is_some_and(|f| f.flag());
        let (weight, relative) = (flag("scale_parameter"), flag("relative_step"));
        optim::adafactor(case, weight, relative);
    }
}

fn scheduler(case: &mut Case, field: &Field) -> Verdict {
    let cycles = case.number("learning_rate_cycles").unwrap_or(1.0);
    let (kind, note) = match field.text() {
        "CONSTANT" => ("constant", ""),
        "LINEAR" => ("linear", ""),
        "COSINE" => ("cosine", ""),
        "REX" => ("rex", "OneTrainer's falls later: its d is 0.9, the paper's 0.5"),
        "COSINE_WITH_HARD_RESTARTS" => ("cosine-restarts", ""),
        "COSINE_WITH_RESTARTS" => {
            ("cosine-restarts", "the rate begins anew at once, where OneTrainer's rises along the cosine again")
        }
        "ADAFACTOR" => ("constant", "optimizer.scale = \"relative\" has the paper's rate"),
        other => return Verdict::no_place(format!("there is no course of the rate like {other}: `sconce list lr`")),
    };
    case.set("lr.type", kind);
    if kind == "cosine-restarts" {
        case.set_as("lr.cycles", cycles.round().max(1.0) as u64, "learning_rate_cycles");
    }
    if note.is_empty() { Verdict::went("lr.type") } else { Verdict::near("lr.type", note) }
}

fn warmup(case: &mut Case, field: &Field) -> Verdict {
    let steps = field.number().unwrap_or_default();
    if steps <= 0.0 {
        return Verdict::Default;
    }
    if steps <= 1.0 {
        case.draft.ask("lr.warmup_images", &format!("{steps} of train.images"));
        return Verdict::near("lr.warmup_images", "it is a share of the run, which is still to be said");
    }
    // Its steps are batches, also where several make an update.
    let images = (steps * case.batch).round().clamp(0.0, 1e15) as u64;
    case.set_as("lr.warmup_images", images, &format!("learning_rate_warmup_steps: {steps} batches of {}", case.batch));
    Verdict::went("lr.warmup_images")
}
