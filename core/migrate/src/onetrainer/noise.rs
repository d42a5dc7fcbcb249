//! Noise, noise levels, and what weighs them.

use serde_json::{Value, json};

use crate::case::Case;
use crate::flow::{Shift, levels, logit_normal, uniform};
use crate::report::Verdict;
use crate::rule::Does::{By, No};
use crate::rule::Takes::{Flag, Number, Text};
use crate::rule::{Field, Rule};

pub(super) static RULES: &[Rule] = &[
    Rule::new("offset_noise_weight", Number, By(noise)).usual("0.0"),
    Rule::new(
        "generalized_offset_noise",
        Flag,
        By(|_, f| match f.flag() {
            true => {
                Verdict::no_place("noise.fade = \"with-signal\" is the nearest: an offset that falls with the signal")
            }
            false => Verdict::Default,
        }),
    ),
    Rule::new("perturbation_noise_weight", Number, By(noise)).usual("0.0"),
    Rule::new("rescale_noise_scheduler_to_zero_terminal_snr", Flag, By(terminal)),
    Rule::new("force_v_prediction", Flag, By(|c, f| objective(c, f, "v"))),
    Rule::new("force_epsilon_prediction", Flag, By(|c, f| objective(c, f, "epsilon"))),
    Rule::new("timestep_distribution", Text, By(times)).said("\"UNIFORM\""),
    Rule::new("noising_weight", Number, By(times)).usual("0.0"),
    Rule::new("noising_bias", Number, By(times)).usual("0.0"),
    Rule::new("timestep_shift", Number, By(times)).usual("1.0"),
    Rule::new("dynamic_timestep_shifting", Flag, By(times)),
    Rule::new("min_noising_strength", Number, By(times)).usual("0.0"),
    Rule::new("max_noising_strength", Number, By(times)).usual("1.0"),
    Rule::new("loss_weight_fn", Text, By(weigh)).usual("\"CONSTANT\""),
    Rule::new(
        "loss_weight_strength",
        Number,
        By(|c, _| match c.text("loss_weight_fn").as_str() {
            "MIN_SNR_GAMMA" | "P2" => Verdict::went("weighting.gamma"),
            _ => Verdict::no_need("this loss_weight_fn does not read it"),
        }),
    )
    .usual("5.0"),
    Rule::new("vb_loss_strength", Number, No("only for models that learn their variance")).usual("1.0"),
    Rule::new("loss_scaler", Text, No("the loss is a mean over batch and accumulation: scale optimizer.lr, if at all"))
        .usual("\"NONE\""),
    Rule::new("custom_conditioning_image", Flag, No("sconce trains no inpainting models")),
];

fn noise(case: &mut Case, field: &Field) -> Verdict {
    if field.number().is_none_or(|x| x <= 0.0) {
        return Verdict::Default;
    }
    let [offset, perturbed] =
        ["offset_noise_weight", "perturbation_noise_weight"].map(|k| case.number(k).unwrap_or_default());
    let inner = (offset > 0.0).then(|| json!({ "type": "offset", "strength": offset }));
    let noise = match (inner, perturbed > 0.0) {
        (Some(inner), false) => inner,
        (None, _) => json!({ "type": "input-perturbation", "gamma": perturbed }),
        (Some(inner), true) => json!({ "type": "input-perturbation", "gamma": perturbed, "of": inner }),
    };
    case.table("noise", &noise, &field.shown);
    match field.key.as_str() {
        "perturbation_noise_weight" => {
            case.warn(
                "perturbation_noise_weight: OneTrainer adds the perturbation to what the network is to \
                 output as well, which only makes all noise stronger; the recipe has the paper's, in what \
                 the network is given alone",
            );
            Verdict::near("noise", "as in the paper: in the input alone")
        }
        _ => Verdict::went("noise"),
    }
}

fn terminal(case: &mut Case, field: &Field) -> Verdict {
    match (field.flag(), case.family.flows()) {
        (false, _) => Verdict::Default,
        (true, true) => Verdict::no_need("a rectified flow ends in pure noise"),
        (true, false) => {
            case.table(
                "schedule",
                &json!({ "type": "zero-terminal", "of": { "type": "scaled-linear" } }),
                &field.shown,
            );
            objective(case, field, "v");
            case.set_as(
                "sampling.spacing",
                "trailing",
                "on a zero-terminal schedule a sampler must start in pure noise",
            );
            Verdict::went("schedule, objective")
        }
    }
}

fn objective(case: &mut Case, field: &Field, kind: &str) -> Verdict {
    if !field.flag() {
        return Verdict::Default;
    }
    case.set("objective.type", kind);
    case.draft.ask(
        "model.convert",
        "{ over_images = 0 } if the checkpoint predicts something else, or on another schedule, and \
             is to be trained to this at once, as OneTrainer does it; no line if it is its own. `sconce \
             check` tells which it is",
    );
    Verdict::went("objective.type")
}

/// The times: a density, squeezed into a range, and a shift.
fn times(case: &mut Case, field: &Field) -> Verdict {
    let number = |key: &str| case.number(key).unwrap_or_default();
    let (weight, bias) = (number("noising_weight"), number("noising_bias"));
    let kind = case.text("timestep_distribution");
    let (base, read) = match kind.as_str() {
        "UNIFORM" => (uniform(), false),
        "LOGIT_NORMAL" => (logit_normal(bias, weight + 1.0), true),
        "HEAVY_TAIL" => (json!({ "type": "mode", "scale": weight }), field.key != "noising_bias"),
        "COS_MAP" => (json!({ "type": "cosmap" }), false),
        "BETA" => (json!({ "type": "beta", "alpha": weight.max(1e-4), "beta": bias.max(1e-4) }), true),
        _ => {
            return Verdict::no_place(format!(
                "there is no distribution like {kind}: `logit-normal` or `beta` come near"
            ));
        }
    };
    let idle = match field.key.as_str() {
        "min_noising_strength" => field.number() == Some(0.0),
        "max_noising_strength" | "timestep_shift" => field.number() == Some(1.0),
        _ => false,
    };
    if idle {
        return Verdict::Default;
    }
    if matches!(field.key.as_str(), "noising_weight" | "noising_bias") && !read {
        return Verdict::no_need(format!("{kind} does not read it"));
    }
    let (from, to) = (number("min_noising_strength"), case.number("max_noising_strength").unwrap_or(1.0));
    let whole = from <= 0.0 && to >= 1.0;
    let base = if whole { base } else { json!({ "type": "range", "from": from, "to": to, "of": base }) };
    let why = format!("timestep_distribution = {kind}");
    let shift = case.number("timestep_shift").filter(|s| *s > 0.0).unwrap_or(1.0);
    match (case.family.flows(), case.flag("dynamic_timestep_shifting")) {
        (true, true) => levels(case, base, Shift::BySize, &why),
        (true, false) => levels(case, base, Shift::By(shift), &why),
        (false, _) if shift != 1.0 => {
            case.table("timesteps", &json!({ "type": "shift", "shift": shift, "of": base }), &why)
        }
        (false, _) if kind == "UNIFORM" && whole => {}
        (false, _) => case.table("timesteps", &base, &why),
    }
    match field.key.as_str() {
        "min_noising_strength" | "max_noising_strength" if kind != "UNIFORM" => {
            Verdict::near("timesteps", "the distribution is cut there, where OneTrainer squeezes it in")
        }
        "timestep_shift" if case.flag("dynamic_timestep_shifting") => {
            Verdict::no_need("the shift is by the picture's size")
        }
        _ => Verdict::went("timesteps"),
    }
}

fn weigh(case: &mut Case, field: &Field) -> Verdict {
    let strength = case.number("loss_weight_strength").unwrap_or(5.0);
    let v = case.flag("force_v_prediction") || case.flag("rescale_noise_scheduler_to_zero_terminal_snr");
    let mut put = |value: Value| {
        case.table("weighting", &value, "loss_weight_fn");
        Verdict::went("weighting")
    };
    match field.text() {
        "CONSTANT" => Verdict::Default,
        "MIN_SNR_GAMMA" => {
            let verdict = put(json!({ "type": "min-snr", "gamma": strength }));
            if case.flag("rescale_noise_scheduler_to_zero_terminal_snr") {
                case.warn(
                    "MIN_SNR_GAMMA on a zero-terminal schedule takes nearly all weight off the noisiest levels \
                     (0.03 % is left on the noisiest tenth), for which the schedule was changed. Consider \
                     weighting = \"native\"",
                );
            }
            verdict
        }
        "DEBIASED_ESTIMATION" if v => put(json!({ "type": "debiased", "snr_offset": 1.0 })),
        "DEBIASED_ESTIMATION" => {
            put(json!({ "type": "debiased" }));
            Verdict::near(
                "weighting",
                "for a checkpoint that predicts v OneTrainer takes 1/sqrt(SNR + 1): say snr_offset = 1.0 \
                     there",
            )
        }
        "P2" => {
            let verdict = put(json!({ "type": "p2", "gamma": strength }));
            if v {
                Verdict::near("weighting", "for v OneTrainer adds 1 to the SNR twice, which is no form of the paper's")
            } else {
                verdict
            }
        }
        "SIGMA" => Verdict::no_place(
            "a weight that grows with the noise: `cosmap`, or times that favour noise (logit-normal with \
                 mean above 0)",
        ),
        other => Verdict::no_place(format!("there is no weighting like {other}")),
    }
}
