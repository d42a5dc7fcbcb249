//! The optimizer, its arguments and the course of the rate.

use crate::case::Case;
use crate::optim;
use crate::report::Verdict;
use crate::rule::Does::{By, No, Not};
use crate::rule::Takes::{Any, Flag, List, Number, Text};
use crate::rule::{Field, Rule};

pub(super) static RULES: &[Rule] = &[
    Rule::new(
        "optimizer_type",
        Text,
        By(|c, f| match name(c) {
            n if f.text().is_empty() || n == f.text() => {
                let verdict = optim::set(c, &n);
                scale(c);
                verdict
            }
            _ => Verdict::Overruled("the flag for another one".into()),
        }),
    )
    .said("\"\""),
    Rule::new("use_8bit_adam", Flag, By(flag)),
    Rule::new("use_lion_optimizer", Flag, By(flag)),
    Rule::new(
        "learning_rate",
        Number,
        By(|c, _| {
            super::components::components(c);
            scale(c);
            Verdict::went("optimizer.lr")
        }),
    )
    .said("2e-6"),
    Rule::new(
        "max_grad_norm",
        Number,
        By(|c, f| {
            c.set("train.clip_norm", f.value.clone());
            Verdict::went("train.clip_norm")
        }),
    )
    .usual("1.0"),
    Rule::new(
        "optimizer_args.*",
        Any,
        By(|c, f| {
            let argument = f.key.trim_start_matches("optimizer_args.").to_owned();
            scale(c);
            optim::argument(c, &name(c), &argument, &f.value)
        }),
    ),
    Rule::new("optimizer_args", List, Not("it is empty")),
    Rule::new("lr_scheduler_args", List, Not("it is empty")),
    Rule::new(
        "fused_backward_pass",
        Flag,
        By(|c, f| match f.flag() {
            true => {
                c.set("train.gradients", "released");
                c.set_as("train.clip_norm", 0.0, "released gradients cannot be cut");
                Verdict::went("train.gradients")
            }
            false => Verdict::Default,
        }),
    ),
    Rule::new(
        "blockwise_fused_optimizers",
        Flag,
        No("train.gradients = \"released\" lets go of each gradient inside the backward pass"),
    ),
    Rule::new(
        "fused_optimizer_groups",
        Number,
        No("train.gradients = \"released\" lets go of each gradient inside the backward pass"),
    ),
    Rule::new("lr_scheduler", Text, By(scheduler)).said("\"constant\""),
    Rule::new("lr_scheduler_type", Text, No("there are no schedulers but those of `sconce list lr`")).usual("\"\""),
    Rule::new("lr_scheduler_args.*", Any, No("there are no schedulers but those of `sconce list lr`")),
    Rule::new("lr_warmup_steps", Number, By(warmup)).usual("0"),
    Rule::new(
        "lr_decay_steps",
        Number,
        By(|c, f| match (c.text("lr_scheduler").as_str(), share(c, f)) {
            ("warmup_stable_decay", Some(share)) => {
                c.set("lr.decay_share", share);
                Verdict::went("lr.decay_share")
            }
            ("warmup_stable_decay", None) => {
                c.draft.ask("lr.decay_share", "lr_decay_steps over all updates of the run");
                Verdict::near("lr.decay_share", "it is a share of the run, which is still to be said")
            }
            _ => Verdict::no_need("only warmup_stable_decay reads it"),
        }),
    )
    .usual("0"),
    Rule::new(
        "lr_scheduler_num_cycles",
        Number,
        By(|c, f| match c.text("lr_scheduler").as_str() {
            "cosine_with_restarts" => {
                c.set("lr.cycles", f.number().unwrap_or(1.0).max(1.0) as u64);
                Verdict::went("lr.cycles")
            }
            _ => Verdict::no_need("only cosine_with_restarts reads it"),
        }),
    )
    .usual("1"),
    Rule::new(
        "lr_scheduler_power",
        Number,
        By(|c, f| match c.text("lr_scheduler").as_str() {
            "polynomial" => {
                c.set("lr.power", f.value.clone());
                Verdict::went("lr.power")
            }
            _ => Verdict::no_need("only polynomial reads it"),
        }),
    )
    .usual("1"),
    Rule::new(
        "lr_scheduler_min_lr_ratio",
        Number,
        By(|c, f| match c.text("lr_scheduler").as_str() {
            "cosine_with_min_lr" | "warmup_stable_decay" => {
                c.set("lr.final_factor", f.value.clone());
                Verdict::went("lr.final_factor")
            }
            _ => Verdict::no_need("this scheduler does not read it"),
        }),
    ),
    Rule::new(
        "lr_scheduler_timescale",
        Number,
        By(|c, f| match c.text("lr_scheduler").as_str() {
            "inverse_sqrt" => {
                let images = c.images(f.number().unwrap_or_default());
                c.set("lr.reference_images", images as f64);
                Verdict::near("lr.reference_images", "sd-scripts' rate falls from the end of the warm-up on")
            }
            _ => Verdict::no_need("only inverse_sqrt reads it"),
        }),
    ),
];

/// The optimizer's name, by whichever argument.
pub(super) fn name(case: &Case) -> String {
    let said = case.text("optimizer_type");
    match said.as_str() {
        "" if case.flag("use_8bit_adam") => "AdamW8bit".to_owned(),
        "" if case.flag("use_lion_optimizer") => "Lion".to_owned(),
        "" => "AdamW".to_owned(),
        _ => said,
    }
}

fn flag(case: &mut Case, field: &Field) -> Verdict {
    if !field.flag() {
        return Verdict::Default;
    }
    let name = name(case);
    optim::set(case, &name)
}

/// Adafactor's rate, of which sd-scripts makes a relative one unless it is told.
fn scale(case: &mut Case) {
    if optim::find(&name(case)).is_some_and(|(plugin, _)| plugin == "adafactor") {
        let flag = |key: &str| {
            case.given(&format!("optimizer_args.{key}")).map(|f| f.value.to_string().to_lowercase().contains("true"))
        };
        let relative = flag("relative_step").unwrap_or(true) || flag("warmup_init").unwrap_or(false);
        let weight = flag("scale_parameter").unwrap_or(true);
        optim::adafactor(case, weight, relative);
    }
}

fn scheduler(case: &mut Case, field: &Field) -> Verdict {
    let name = field.text().split(':').next().unwrap_or_default();
    let kind = match name {
        "constant" | "constant_with_warmup" | "piecewise_constant" => "constant",
        "linear" => "linear",
        "cosine" | "cosine_with_min_lr" => "cosine",
        "cosine_with_restarts" => "cosine-restarts",
        "polynomial" => "polynomial",
        "inverse_sqrt" => "inverse-sqrt",
        "warmup_stable_decay" => "warmup-stable-decay",
        "adafactor" => "constant",
        other => return Verdict::no_place(format!("there is no course of the rate called {other}: `sconce list lr`")),
    };
    case.set("lr.type", kind);
    // Defaults of theirs that are not those of the plugin.
    match kind {
        "cosine-restarts" if case.given("lr_scheduler_num_cycles").is_none() => {
            case.set_as("lr.cycles", 1, "lr_scheduler_num_cycles, its default")
        }
        "polynomial" if case.given("lr_scheduler_power").is_none() => {
            case.set_as("lr.power", 1.0, "lr_scheduler_power, its default")
        }
        "warmup-stable-decay" => case.set_as("lr.decay", "cosine", "as transformers' scheduler falls"),
        _ => {}
    }
    match name {
        "piecewise_constant" => Verdict::near("lr.type", "its steps are missing: a rate has no steps here"),
        "adafactor" => Verdict::near("lr.type", "optimizer.scale = \"relative\" has the paper's rate"),
        "constant" if field.number().is_none() => Verdict::went("lr.type"),
        _ => Verdict::went("lr.type"),
    }
}

/// Steps as a share of the run, where that is known or said so.
fn share(case: &Case, field: &Field) -> Option<f64> {
    let steps = field.number()?;
    match case.number("max_train_steps") {
        _ if steps < 1.0 => Some(steps),
        Some(all) if case.given("max_train_epochs").is_none() && all > 0.0 => Some(((steps / all) * 1e6).round() / 1e6),
        _ => None,
    }
}

fn warmup(case: &mut Case, field: &Field) -> Verdict {
    let steps = field.number().unwrap_or_default();
    if steps <= 0.0 {
        return Verdict::Default;
    }
    if case.text("lr_scheduler") == "constant" {
        return Verdict::no_need("sd-scripts has no warm-up with `constant` (and refuses it)");
    }
    let updates = match (steps < 1.0, case.given("max_train_epochs").is_none()) {
        (false, _) => steps,
        (true, true) => steps * case.number("max_train_steps").unwrap_or(1600.0),
        (true, false) => {
            case.draft.ask("lr.warmup_images", &format!("{steps} of train.images"));
            return Verdict::near("lr.warmup_images", "it is a share of the run, which is still to be said");
        }
    };
    let (images, why) = (case.images(updates), case.product(updates));
    case.set_as("lr.warmup_images", images, &why);
    Verdict::went("lr.warmup_images")
}
