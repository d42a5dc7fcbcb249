//! Noise, distances and masks.

use serde_json::{Value, json};

use crate::case::Case;
use crate::family::Family;
use crate::report::Verdict;
use crate::rule::Does::{By, No};
use crate::rule::Takes::{Flag, Number, Text};
use crate::rule::{Field, Rule};

pub(super) static RULES: &[Rule] = &[
    Rule::new("noise_offset", Number, By(noise)),
    Rule::new(
        "noise_offset_random_strength",
        Flag,
        No("an offset's strength is itself that of a random number: it needs no second one"),
    ),
    Rule::new("adaptive_noise_scale", Number, No("the offset's strength does not depend on the picture")),
    Rule::new("multires_noise_iterations", Number, By(noise)),
    Rule::new(
        "multires_noise_discount",
        Number,
        By(|c, f| match active(c, "multires_noise_iterations") {
            true => noise(c, f),
            false => Verdict::no_need("without multires_noise_iterations sd-scripts ignores it"),
        }),
    )
    .usual("0.3"),
    Rule::new("ip_noise_gamma", Number, By(noise)),
    Rule::new("ip_noise_gamma_random_strength", Flag, No("the perturbation has one strength, as in the paper")),
    Rule::new("loss_type", Text, By(distance)).usual("\"l2\""),
    Rule::new("huber_c", Number, By(distance_part)).usual("0.1"),
    Rule::new("huber_schedule", Text, By(distance_part)).usual("\"snr\""),
    Rule::new(
        "huber_scale",
        Number,
        By(|c, f| match (pseudo(c), c.text("huber_schedule").as_str()) {
            (Some(_), "constant") => distance_part(c, f),
            (Some(_), "exponential") => {
                Verdict::no_place("the scheduled width is 1 without noise: there is no factor on it")
            }
            _ => Verdict::no_need("sd-scripts ignores it here"),
        }),
    )
    .usual("1.0"),
    Rule::new(
        "masked_loss",
        Flag,
        By(|c, f| match f.flag() {
            true if c.given("alpha_mask").is_some_and(Field::flag) => Verdict::went("data.source.mask"),
            true => {
                c.source(f, "mask", "file");
                Verdict::near("data.source.mask", "a mask is the file `name.mask.png` beside `name`")
            }
            false => Verdict::Default,
        }),
    ),
    Rule::new(
        "conditioning_data_dir",
        Text,
        No("masks are files `name.mask.png` beside the pictures: copy them there"),
    ),
];

/// True for a number above zero.
fn active(case: &Case, key: &str) -> bool {
    case.number(key).is_some_and(|x| x > 0.0)
}

/// The noise, made of all that is added to it: offset, then pyramid, then perturbation, as sd-scripts does.
fn noise(case: &mut Case, field: &Field) -> Verdict {
    if field.number().is_none_or(|x| x <= 0.0) {
        return Verdict::Default;
    }
    if case.family.flows() && field.key != "ip_noise_gamma" {
        return Verdict::no_need("sd-scripts ignores it for rectified flows");
    }
    let mut noise: Option<Value> = None;
    let mut around = |mut outer: Value| {
        if let (Some(inner), Some(fields)) = (noise.take(), outer.as_object_mut()) {
            fields.insert("of".into(), inner);
        }
        noise = Some(outer);
    };
    if let Some(strength) = case.number("noise_offset").filter(|x| *x > 0.0 && !case.family.flows()) {
        around(json!({ "type": "offset", "strength": strength }));
    }
    if let Some(levels) = case.number("multires_noise_iterations").filter(|x| *x > 0.0 && !case.family.flows()) {
        let discount = case.number("multires_noise_discount").unwrap_or(0.3);
        around(json!({ "type": "pyramid", "discount": discount, "levels": (levels - 1.0).max(1.0) as u64 }));
    }
    if let Some(gamma) = case.number("ip_noise_gamma").filter(|x| *x > 0.0) {
        around(json!({ "type": "input-perturbation", "gamma": gamma }));
    }
    if let Some(noise) = noise {
        let from = ["noise_offset", "multires_noise_iterations", "ip_noise_gamma"];
        let from: Vec<&str> = from.into_iter().filter(|k| active(case, k)).collect();
        case.table("noise", &noise, &from.join(", "));
    }
    match field.key.as_str() {
        "multires_noise_iterations" => Verdict::near(
            "noise.levels",
            "sd-scripts' first level is white noise once more, so that its coarse levels weigh 0.7 of \
                 what they do here; lower noise.discount a little to have the same",
        ),
        _ => Verdict::went("noise"),
    }
}

/// The plugin of a pseudo-Huber distance, if that is the loss.
fn pseudo(case: &Case) -> Option<&'static str> {
    match case.text("loss_type").as_str() {
        "huber" => Some("huber"),
        "smooth_l1" => Some("smooth-l1"),
        _ => None,
    }
}

fn distance(case: &mut Case, field: &Field) -> Verdict {
    match (pseudo(case), field.text()) {
        (Some(kind), _) => {
            let schedule = case.text("huber_schedule");
            let factor = if schedule == "constant" { case.number("huber_scale").unwrap_or(1.0) } else { 1.0 };
            let c = case.number("huber_c").unwrap_or(0.1) * factor;
            case.table("distance", &json!({ "type": kind, "c": c, "schedule": schedule }), &field.shown);
            Verdict::went("distance")
        }
        (None, "l2") => Verdict::Default,
        (None, _) => Verdict::no_place(
            "there is no plain L1; distance = { type = \"smooth-l1\", c = 0.001, schedule = \"constant\" \
                 } is twice it, but for the smallest differences",
        ),
    }
}

fn distance_part(case: &mut Case, field: &Field) -> Verdict {
    match (pseudo(case), field.key.as_str()) {
        (None, _) => Verdict::no_need("only loss_type = huber and smooth_l1 read it"),
        (Some(_), "huber_schedule") if case.family == Family::Flux && field.text() == "snr" => {
            Verdict::near("distance.schedule", "sd-scripts has no such schedule for rectified flows")
        }
        (Some(_), key) => Verdict::went(if key == "huber_schedule" { "distance.schedule" } else { "distance.c" }),
    }
}
