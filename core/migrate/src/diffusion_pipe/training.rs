//! `[adapter]` and `[optimizer]`: what is trained, and how.

use serde_json::json;

use crate::case::Case;
use crate::family::Family;
use crate::optim;
use crate::place::place;
use crate::report::Verdict;
use crate::rule::Does::{By, No, Not, To};
use crate::rule::Takes::{Any, Flag, List, Number, Text};
use crate::rule::{Field, Rule};

pub(super) static RULES: &[Rule] = &[
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
                    c.warn(
                        "gradients that are released cannot be added up: diffusion-pipe updates after every \
                         micro-batch instead; train.accumulate must be 1 with train.gradients = \"released\"",
                    );
                }
                Verdict::went("train.gradients")
            }
            false => Verdict::Default,
        }),
    ),
    Rule::new(
        "optimizer.beta2_half_life",
        Number,
        By(|c, _| {
            half_life(c);
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
            let verdict = optim::argument(c, &name, &argument, &f.value);
            half_life(c);
            verdict
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

/// A half-life in pictures, which stands in the place of the second of `betas`.
fn half_life(case: &mut Case) {
    if let Some(images) = case.number("optimizer.beta2_half_life").filter(|n| *n > 0.0) {
        let beta2 = 0.5f64.powf(case.batch * case.accumulate / images);
        case.set_as("optimizer.beta2", (beta2 * 1e9).round() / 1e9, "beta2_half_life, in pictures");
    }
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
    let base = unet.unwrap_or_default();
    let mut rates = vec![(case.family.denoiser(), base)];
    if case.family == Family::Sdxl {
        let own = |i: usize| case.number(&format!("model.text_encoder_{}_lr", i + 1)).or(case.number("optimizer.lr"));
        let encoders = case.family.encoders().into_iter().enumerate();
        rates.extend(encoders.map(|(i, e)| (e, own(i).unwrap_or(base))).filter(|(_, rate)| *rate > 0.0 || base == 0.0));
    }
    let name = case.text("optimizer.type");
    optim::components(case, &name, base, &rates, "what diffusion-pipe trains, with rates over optimizer.lr");
}
