//! Which times are trained on. For rectified flows six arguments say it together, two of which have defaults that are not what
//! most people mean; for the others it is a range.

use serde_json::{Value, json};

use crate::case::Case;
use crate::family::Family;
use crate::flow::{Shift, levels, logit_normal, uniform};
use crate::report::Verdict;
use crate::rule::Does::By;
use crate::rule::Takes::{Number, Text};
use crate::rule::{Field, Rule};

pub(super) static RULES: &[Rule] = &[
    Rule::new(
        "timestep_sampling",
        Text,
        By(|c, f| match c.family {
            Family::Flux => flux(c, f),
            _ => Verdict::no_need("only FLUX.1's scripts read it"),
        }),
    )
    .said("\"sigma\""),
    Rule::new("weighting_scheme", Text, By(scheme)).said("\"uniform\""),
    Rule::new("sigmoid_scale", Number, By(|c, f| part(c, f, &["sigmoid", "shift", "flux_shift"]))).usual("1.0"),
    Rule::new("discrete_flow_shift", Number, By(|c, f| part(c, f, &["sigma", "shift"]))).usual("3.0"),
    Rule::new("logit_mean", Number, By(density)).usual("0.0"),
    Rule::new("logit_std", Number, By(density)).usual("1.0"),
    Rule::new("mode_scale", Number, By(density)).usual("1.29"),
    Rule::new(
        "training_shift",
        Number,
        By(|c, f| match c.family {
            Family::Sd3 => sd3(c, f),
            _ => Verdict::no_need("only Stable Diffusion 3's scripts read it"),
        }),
    )
    .usual("1.0"),
    Rule::new("min_timestep", Number, By(range)),
    Rule::new("max_timestep", Number, By(range)),
];

/// FLUX.1: a density and a shift, both by `timestep_sampling`.
fn flux(case: &mut Case, field: &Field) -> Verdict {
    let scale = case.number("sigmoid_scale").unwrap_or(1.0);
    let shift = case.number("discrete_flow_shift").unwrap_or(3.0);
    let kind = case.text("timestep_sampling");
    let (base, shift) = match kind.as_str() {
        "uniform" => (uniform(), Shift::By(1.0)),
        "sigmoid" => (logit_normal(0.0, scale), Shift::By(1.0)),
        "shift" => (logit_normal(0.0, scale), Shift::By(shift)),
        "flux_shift" => (logit_normal(0.0, scale), Shift::BySize),
        // Here the density is one of places in a list that begins with pure noise.
        "sigma" => (scheme_density(case, -1.0), Shift::By(shift)),
        other => return Verdict::no_place(format!("`{other}` is no way to draw times that is known")),
    };
    levels(case, base, shift, &format!("timestep_sampling = {kind}"));
    if field.shown == field.key && case.given("timestep_sampling").is_none() {
        case.warn(
            "timestep_sampling is not said: sd-scripts then takes `sigma`, which is not what its \
             documentation recommends (`shift`, `flux_shift` or `sigmoid`)",
        );
    }
    Verdict::went("timesteps")
}

/// Stable Diffusion 3: a density, a shift and a range.
fn sd3(case: &mut Case, _: &Field) -> Verdict {
    let shift = case.number("training_shift").unwrap_or(1.0);
    let density = scheme_density(case, 1.0);
    levels(case, density, Shift::By(shift), &format!("weighting_scheme = {}", case.text("weighting_scheme")));
    Verdict::went("timesteps")
}

/// The density that `weighting_scheme` names.
fn scheme_density(case: &Case, mean_sign: f64) -> Value {
    let number = |key| case.number(key).unwrap_or_default();
    match case.text("weighting_scheme").as_str() {
        // Zero has no sign that anyone would write.
        "logit_normal" => logit_normal(mean_sign * number("logit_mean") + 0.0, number("logit_std")),
        "mode" => json!({ "type": "mode", "scale": number("mode_scale") }),
        _ => uniform(),
    }
}

fn scheme(case: &mut Case, field: &Field) -> Verdict {
    let weighting = match field.text() {
        "sigma_sqrt" => Some("sigma-sqrt"),
        "cosmap" => Some("cosmap"),
        _ => None,
    };
    match (case.family, weighting) {
        (Family::Sd3, Some(weighting)) => {
            sd3(case, field);
            case.set("weighting.type", weighting);
            Verdict::went("weighting.type")
        }
        (Family::Sd3, None) => sd3(case, field),
        (Family::Flux, _) if case.text("timestep_sampling") != "sigma" => {
            Verdict::no_need("sd-scripts reads it with timestep_sampling = sigma alone")
        }
        (Family::Flux, None) => flux(case, field),
        (Family::Flux, Some(weighting)) if case.text("model_prediction_type") == "sigma_scaled" => {
            flux(case, field);
            case.set("weighting.type", weighting);
            Verdict::went("weighting.type")
        }
        (Family::Flux, Some(_)) => {
            Verdict::no_need("sd-scripts ignores it unless model_prediction_type is sigma_scaled")
        }
        _ => Verdict::no_need("only the scripts of rectified flows read it"),
    }
}

/// A field that some ways to draw times read.
fn part(case: &mut Case, field: &Field, read_by: &[&str]) -> Verdict {
    match (case.family, read_by.contains(&case.text("timestep_sampling").as_str())) {
        (Family::Flux, true) => flux(case, field),
        (Family::Flux, false) => Verdict::no_need("with this timestep_sampling sd-scripts ignores it"),
        _ => Verdict::no_need("only FLUX.1's scripts read it"),
    }
}

/// A parameter of the density.
fn density(case: &mut Case, field: &Field) -> Verdict {
    let wanted = if field.key == "mode_scale" { "mode" } else { "logit_normal" };
    if !case.family.flows() || case.text("weighting_scheme") != wanted {
        return Verdict::no_need(format!("only weighting_scheme = {wanted} reads it"));
    }
    match case.family {
        Family::Sd3 => sd3(case, field),
        _ => part(case, field, &["sigma"]),
    }
}

fn range(case: &mut Case, field: &Field) -> Verdict {
    let (from, to) = (case.number("min_timestep").unwrap_or(0.0), case.number("max_timestep").unwrap_or(1000.0));
    if from <= 0.0 && to >= 1000.0 {
        return Verdict::Default;
    }
    match case.family {
        Family::Flux => Verdict::no_need("sd-scripts ignores it for FLUX.1"),
        Family::Sd3 => Verdict::no_place(
            "write it around [timesteps]: type = \"range\", from, to and of, in thousandths; sd-scripts \
                 squeezes its distribution into the range, where this cuts it",
        ),
        _ => {
            let range = json!({ "type": "range", "from": from / 1000.0, "to": to / 1000.0 });
            case.table("timesteps", &range, &field.shown);
            Verdict::went(if field.key == "min_timestep" { "timesteps.from" } else { "timesteps.to" })
        }
    }
}
