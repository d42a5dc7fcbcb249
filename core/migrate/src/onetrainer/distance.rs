//! How an error counts by its size, and by its place: distances and masks.

use serde_json::{Value, json};

use crate::case::Case;
use crate::report::Verdict;
use crate::rule::Does::{By, No};
use crate::rule::Takes::{Flag, Number};
use crate::rule::{Field, Rule};

pub(super) static RULES: &[Rule] = &[
    Rule::new("mse_strength", Number, By(distance)).usual("1.0"),
    Rule::new("mae_strength", Number, By(distance)).usual("0.0"),
    Rule::new("log_cosh_strength", Number, By(distance)).usual("0.0"),
    Rule::new("huber_strength", Number, By(distance)).usual("0.0"),
    Rule::new(
        "huber_delta",
        Number,
        By(|c, _| match c.number("huber_strength") {
            Some(x) if x > 0.0 => Verdict::went("distance.c"),
            _ => Verdict::no_need("without huber_strength it is not read"),
        }),
    )
    .usual("1.0"),
    Rule::new(
        "masked_training",
        Flag,
        By(|c, f| match f.flag() {
            true => {
                c.source(f, "mask", "file");
                Verdict::near(
                    "data.source.mask",
                    "a mask is `name.mask.png`, where OneTrainer's is `name-masklabel.png`: rename them",
                )
            }
            false => Verdict::Default,
        }),
    ),
    Rule::new("unmasked_weight", Number, By(|c, f| masked(c, "outside", f.value.clone()))).usual("0.1"),
    Rule::new(
        "unmasked_probability",
        Number,
        No("a mask counts each time; train.mask.outside keeps some of what it leaves out"),
    )
    .usual("0.1"),
    Rule::new(
        "normalize_masked_area_loss",
        Flag,
        By(|c, f| masked(c, "normalise", if f.flag() { "by-area" } else { "never" }.into())),
    ),
    Rule::new(
        "masked_prior_preservation_weight",
        Number,
        No("there is no prior prediction: train.mask.outside is the nearest"),
    )
    .usual("0.0"),
];

fn distance(case: &mut Case, field: &Field) -> Verdict {
    let all = ["mse_strength", "mae_strength", "log_cosh_strength", "huber_strength"];
    let used: Vec<&str> = all.into_iter().filter(|k| case.number(k).unwrap_or_default() > 0.0).collect();
    match (used.as_slice(), field.key.as_str()) {
        (["mse_strength"], _) | ([], _) => Verdict::Default,
        _ if field.number() == Some(0.0) => Verdict::Default,
        (["log_cosh_strength"], _) => {
            case.table("distance", &json!({ "type": "log-cosh", "c": 1.0 }), &field.shown);
            Verdict::near("distance", "twice what OneTrainer takes")
        }
        (["huber_strength"], _) => {
            let c = case.number("huber_delta").unwrap_or(1.0);
            case.table("distance", &json!({ "type": "huber", "c": c, "schedule": "constant" }), &field.shown);
            Verdict::near(
                "distance",
                "the pseudo-Huber distance, which turns smoothly, and twice what OneTrainer takes",
            )
        }
        (["mae_strength"], _) => Verdict::no_place(
            "there is no plain L1; distance = { type = \"smooth-l1\", c = 0.001, schedule = \"constant\" \
                 } is near to twice it",
        ),
        _ => Verdict::no_place(format!(
            "a recipe has one distance; the sum of {} is none: `huber` is between the two",
            used.join(", ")
        )),
    }
}

fn masked(case: &mut Case, key: &str, value: Value) -> Verdict {
    if !case.flag("masked_training") {
        return Verdict::no_need("without masked_training it is not read");
    }
    case.set(&format!("train.mask.{key}"), value);
    Verdict::went(format!("train.mask.{key}"))
}
