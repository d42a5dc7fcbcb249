//! `[model]`: its files, what it predicts, and which times are trained on.

use serde_json::json;

use crate::case::{Case, Learns};
use crate::family::Family;
use crate::flow::{Shift, levels, logit_normal, uniform};
use crate::place::place;
use crate::report::Verdict;
use crate::rule::Does::{By, No, Not};
use crate::rule::Takes::{Flag, Number, Text};
use crate::rule::{Field, Rule};

pub(super) static RULES: &[Rule] = &[
    Rule::new(
        "model.type",
        Text,
        By(|c, _| {
            times(c);
            Verdict::no_need("sconce reads the family from the checkpoint")
        }),
    ),
    Rule::new("model.checkpoint_path", Text, By(path)),
    Rule::new("model.diffusers_path", Text, By(path)),
    Rule::new("model.transformer_path", Text, By(|c, f| c.entry_of("model.files", "transformer", place(f.text())))),
    Rule::new(
        "model.dtype",
        Text,
        By(|c, f| match dtype(f.text()) {
            Some(dtype) => {
                c.set("model.dtype", dtype);
                Verdict::went("model.dtype")
            }
            None => Verdict::no_place("a model computes in f32, f16 or bf16"),
        }),
    ),
    Rule::new("model.transformer_dtype", Text, By(packed)),
    Rule::new("model.diffusion_model_dtype", Text, By(packed)),
    Rule::new(
        "model.timestep_sample_method",
        Text,
        By(|c, f| match f.text() {
            "logit_normal" | "uniform" => flowing(c),
            other => Verdict::no_place(format!("there is no such way to draw times: {other}")),
        }),
    )
    .usual("\"logit_normal\""),
    Rule::new("model.sigmoid_scale", Number, By(|c, _| flowing(c))).usual("1.0"),
    Rule::new("model.shift", Number, By(|c, _| flowing(c))),
    Rule::new(
        "model.flux_shift",
        Flag,
        By(|c, _| match c.given("model.shift") {
            Some(shift) => Verdict::Overruled(shift.shown.clone()),
            None => flowing(c),
        }),
    ),
    Rule::new(
        "model.guidance",
        Number,
        By(|c, f| match c.family {
            Family::Flux if f.number() != Some(1.0) => {
                c.set("train.guidance", f.value.clone());
                Verdict::went("train.guidance")
            }
            Family::Flux => Verdict::Default,
            _ => Verdict::no_need("only FLUX.1-dev is told one"),
        }),
    )
    .usual("1.0"),
    Rule::new(
        "model.bypass_guidance_embedding",
        Flag,
        No("a model that is told its guidance is told one: train.guidance = 1.0"),
    ),
    Rule::new(
        "model.v_pred",
        Flag,
        By(|c, f| match f.flag() {
            true => {
                c.set("objective.type", "v");
                c.table(
                    "schedule",
                    &json!({ "type": "zero-terminal", "of": { "type": "scaled-linear" } }),
                    "model.v_pred brings zero terminal SNR with it",
                );
                c.set_as(
                    "sampling.spacing",
                    "trailing",
                    "on a zero-terminal schedule a sampler must start in pure noise",
                );
                c.warn(
                    "model.v_pred also changes the schedule to zero terminal SNR, which diffusion-pipe does not \
                         say",
                );
                c.draft.ask(
                    "model.convert",
                    "{ over_images = 0 } if the checkpoint predicts epsilon on its old schedule and is to be \
                     trained to v at once; no line if it predicts v on such a schedule already. `sconce check` \
                     tells which it is",
                );
                Verdict::went("objective, schedule")
            }
            false => Verdict::Default,
        }),
    ),
    Rule::new(
        "model.min_snr_gamma",
        Number,
        By(|c, f| {
            c.table("weighting", &json!({ "type": "min-snr", "gamma": f.value }), &f.shown);
            if c.flag("model.v_pred") {
                c.warn(
                    "min_snr_gamma with v_pred, and so on a zero-terminal schedule, takes nearly all weight off \
                     the noisiest levels (0.03 % is left on the noisiest tenth), for which the schedule was \
                     changed. diffusion-pipe hides a part of it, since it takes the SNR from before the change. \
                     Consider weighting = \"native\"",
                );
            }
            Verdict::went("weighting")
        }),
    ),
    Rule::new(
        "model.debiased_estimation_loss",
        Flag,
        By(|c, f| match (f.flag(), c.flag("model.v_pred"), c.given("model.min_snr_gamma").is_some()) {
            (false, ..) => Verdict::Default,
            (true, _, true) => Verdict::no_place(
                "diffusion-pipe multiplies it with min_snr_gamma; a recipe has one weighting, and takes that \
                     one",
            ),
            (true, true, false) => {
                c.table(
                    "weighting",
                    &json!({ "type": "p2", "gamma": 1.0, "k": 1e-6 }),
                    "1/(SNR + 1) on v, which is the plain error of x0",
                );
                Verdict::near(
                    "weighting",
                    "1/(SNR + 1) on v is the plain error of x0, and not the paper's factor, which is `debiased`",
                )
            }
            (true, false, false) => {
                c.set("weighting.type", "debiased");
                Verdict::went("weighting.type")
            }
        }),
    ),
    Rule::new(
        "model.unet_lr",
        Number,
        By(|c, _| {
            super::training::trained(c);
            Verdict::went("optimizer.lr")
        }),
    ),
    Rule::new(
        "model.text_encoder_1_lr",
        Number,
        By(|c, _| {
            super::training::trained(c);
            Verdict::went("train.components")
        }),
    ),
    Rule::new(
        "model.text_encoder_2_lr",
        Number,
        By(|c, _| {
            super::training::trained(c);
            Verdict::went("train.components")
        }),
    ),
    Rule::new(
        "model.cache_text_embeddings",
        Flag,
        Not("encodings of captions that do not train are always kept on disk"),
    ),
];

fn dtype(name: &str) -> Option<&'static str> {
    match name {
        "float32" => Some("f32"),
        "float16" => Some("f16"),
        "bfloat16" => Some("bf16"),
        _ => None,
    }
}

fn path(case: &mut Case, field: &Field) -> Verdict {
    case.set("model.path", place(field.text()));
    Verdict::went("model.path")
}

fn packed(case: &mut Case, field: &Field) -> Verdict {
    let packed = match field.text() {
        name if name.starts_with("float8") => "fp8",
        "nf4" => "nf4",
        _ => return Verdict::no_need("what does not train has model.dtype"),
    };
    match case.learns {
        Learns::Adapter => case.entry_of("model.quantise", case.family.denoiser(), packed),
        _ => Verdict::no_place("weights that train are not packed"),
    }
}

fn flowing(case: &mut Case) -> Verdict {
    match case.family.flows() {
        true => {
            times(case);
            Verdict::went("timesteps")
        }
        false => Verdict::no_need("diffusion-pipe draws SDXL's times evenly"),
    }
}

/// The times of a rectified flow.
fn times(case: &mut Case) {
    if !case.family.flows() {
        return;
    }
    let method = case.text("model.timestep_sample_method");
    let base = match method.as_str() {
        "uniform" => uniform(),
        _ => logit_normal(0.0, case.number("model.sigmoid_scale").unwrap_or(1.0)),
    };
    let shift = match case.number("model.shift").filter(|s| *s > 0.0) {
        Some(a) => Shift::By(a),
        None if case.flag("model.flux_shift") => Shift::BySize,
        None => Shift::By(1.0),
    };
    levels(case, base, shift, &format!("timestep_sample_method = {method}"));
}
