//! `[model]`, `[adapter]` and `[optimizer]`.

use serde_json::{Value, json};

use crate::case::Takes::{Any, Flag, List, Number, Text};
use crate::case::{
    Case,
    Does::{By, No, Not, To},
    Field, Learns, Rule,
};
use crate::family::Family;
use crate::flow::{Shift, levels, logit_normal, uniform};
use crate::optim;
use crate::place::place;
use crate::report::Verdict;

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
                    "model.v_pred also changes the schedule to zero terminal SNR, which diffusion-pipe does not say",
                );
                c.draft.ask("model.convert", "{ over_images = 0 } if the checkpoint predicts epsilon on its old schedule and is to be trained to v at \
                once; no line if it predicts v on such a schedule already. `sconce check` tells which it is");
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
                c.warn("min_snr_gamma with v_pred, and so on a zero-terminal schedule, takes nearly all weight off the noisiest levels (0.03 % is left on \
                    the noisiest tenth), for which the schedule was changed. diffusion-pipe hides a part of it, since it takes the SNR from before \
                    the change. Consider weighting = \"native\"");
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
                "diffusion-pipe multiplies it with min_snr_gamma; a recipe has one weighting, and takes that one",
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
            trained(c);
            Verdict::went("optimizer.lr")
        }),
    ),
    Rule::new(
        "model.text_encoder_1_lr",
        Number,
        By(|c, _| {
            trained(c);
            Verdict::went("train.components")
        }),
    ),
    Rule::new(
        "model.text_encoder_2_lr",
        Number,
        By(|c, _| {
            trained(c);
            Verdict::went("train.components")
        }),
    ),
    Rule::new(
        "model.cache_text_embeddings",
        Flag,
        Not("encodings of captions that do not train are always kept on disk"),
    ),
    Rule::new("adapter.type", Text, By(adapter)),
    Rule::new("adapter.rank", Number, By(adapter)),
    Rule::new("adapter.alpha", Number, By(|_, _| Verdict::no_need("diffusion-pipe takes the rank, and refuses this"))),
    Rule::new("adapter.dtype", Text, Not("weights that train are f32")),
    Rule::new("adapter.dropout", Number, No("adapters have no dropout")).usual("0.0"),
    Rule::new("adapter.rank_dropout", Number, No("adapters have no dropout")).usual("0.0"),
    Rule::new("adapter.decompose_factor", Number, By(adapter)).usual("-1"),
    Rule::new("adapter.exclude_modules", Any, No("adapter.targets names the layers that are adapted: leave those out")),
    Rule::new(
        "adapter.init_from_existing",
        Text,
        By(|c, f| {
            c.set("train.adapter_from", place(f.text()));
            Verdict::went("train.adapter_from")
        }),
    ),
    Rule::new(
        "adapter.fuse_adapters",
        List,
        No("merge them into the model first: sconce merge MODEL OUT --lora FILE:STRENGTH"),
    ),
    Rule::new(
        "optimizer.type",
        Text,
        By(|c, f| {
            let verdict = optim::set(c, f.text());
            trained(c);
            verdict
        }),
    ),
    Rule::new(
        "optimizer.lr",
        Number,
        By(|c, _| {
            trained(c);
            Verdict::went("optimizer.lr")
        }),
    ),
    Rule::new(
        "optimizer.gradient_release",
        Flag,
        By(|c, f| match f.flag() {
            true => {
                c.set("train.gradients", "released");
                c.set_as("train.clip_norm", 0.0, "released gradients cannot be cut");
                if c.accumulate != 1.0 {
                    c.warn("gradients that are released cannot be added up: diffusion-pipe updates after every micro-batch instead; train.accumulate must \
                        be 1 with train.gradients = \"released\"");
                }
                Verdict::went("train.gradients")
            }
            false => Verdict::Default,
        }),
    ),
    Rule::new(
        "optimizer.beta2_half_life",
        Number,
        By(|c, f| {
            let beta2 = 0.5f64.powf(c.batch * c.accumulate / f.number().unwrap_or(1.0).max(1e-9));
            c.set_as("optimizer.beta2", (beta2 * 1e9).round() / 1e9, "beta2_half_life, in pictures");
            Verdict::went("optimizer.beta2")
        }),
    ),
    Rule::new("optimizer.stabilize", Flag, No("an update is cut by train.clip_norm alone")),
    Rule::new(
        "optimizer.kahan_sum",
        Flag,
        Not("weights that train are f32, or bf16 with stochastic rounding (train.weights)"),
    ),
    Rule::new(
        "optimizer.*",
        Any,
        By(|c, f| {
            let (name, argument) = (c.text("optimizer.type"), f.key.trim_start_matches("optimizer.").to_owned());
            optim::argument(c, &name, &argument, &f.value)
        }),
    ),
    Rule::new(
        "lr_scheduler",
        Text,
        By(|c, f| match f.text() {
            kind @ ("constant" | "linear" | "cosine") => {
                c.set("lr.type", kind);
                Verdict::went("lr.type")
            }
            other => Verdict::no_place(format!("there is no course of the rate called {other}: `sconce list lr`")),
        }),
    )
    .usual("\"constant\""),
    Rule::new(
        "warmup_steps",
        Number,
        By(|c, f| {
            let (images, why) = (c.images(f.number().unwrap_or_default()), c.product(f.number().unwrap_or_default()));
            if images > 0 {
                if !c.draft.has("lr.type") {
                    let kind = c.text("lr_scheduler");
                    c.set_as("lr.type", kind, "lr_scheduler");
                }
                c.set_as("lr.warmup_images", images, &why);
            }
            Verdict::went("lr.warmup_images")
        }),
    )
    .usual("0"),
    Rule::new(
        "force_constant_lr",
        Number,
        By(|c, f| {
            c.set("optimizer.lr", f.value.clone());
            c.set("lr.type", "constant");
            Verdict::went("optimizer.lr, lr.type")
        }),
    ),
    Rule::new("gradient_clipping", Number, To("train.clip_norm")).usual("1.0"),
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

fn adapter(case: &mut Case, field: &Field) -> Verdict {
    let rank = case.number("adapter.rank").unwrap_or(16.0).max(1.0) as u64;
    let mut targets = case.family.transformers();
    if case.family == Family::Sdxl {
        // All linear layers, which in a UNet are those of its transformers and of its times; and the text encoders'.
        targets.push("unet.*.time_emb_proj".to_owned());
        case.family.encoders().into_iter().for_each(|e| targets.extend(case.family.encoder_layers(e)));
    }
    let table = match case.text("adapter.type").as_str() {
        "lora" => json!({ "type": "lora", "rank": rank, "alpha": rank as f64, "targets": targets }),
        "lokr" => {
            let mut table = json!({ "type": "lokr", "rank": rank, "alpha": rank as f64, "targets": targets });
            if let Some(factor) = case.number("adapter.decompose_factor").filter(|f| *f > 0.0) {
                table["factor"] = json!(factor as u64);
            }
            table
        }
        other => return Verdict::no_place(format!("there is no adapter like {other}: `sconce list adapter`")),
    };
    case.table("adapter", &table, "adapter.type, whose alpha is always the rank");
    Verdict::went(if field.key == "adapter.decompose_factor" { "adapter.factor" } else { field.key.as_str() })
}

/// The rate, and what trains: SDXL's text encoders always do.
pub(super) fn trained(case: &mut Case) {
    let base = case.number("optimizer.lr");
    let unet = case.number("model.unet_lr").filter(|_| case.family == Family::Sdxl).or(base);
    if let Some(rate) = unet {
        case.set_as("optimizer.lr", rate, if unet == base { "optimizer.lr" } else { "model.unet_lr" });
    }
    let mut table = serde_json::Map::new();
    table.insert(case.family.denoiser().into(), json!(1.0));
    if case.family == Family::Sdxl {
        for (i, encoder) in case.family.encoders().into_iter().enumerate() {
            let rate = case.number(&format!("model.text_encoder_{}_lr", i + 1)).or(base);
            let factor = match (rate, unet) {
                (Some(rate), Some(unet)) if unet > 0.0 => (rate / unet * 1e6).round() / 1e6,
                _ => 1.0,
            };
            if factor > 0.0 {
                table.insert(encoder.into(), Value::from(factor));
            }
        }
    }
    case.set_as("train.components", table, "what diffusion-pipe trains, with rates over optimizer.lr");
}
