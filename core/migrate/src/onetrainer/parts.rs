//! The parts of a model (`unet`, `text_encoder_2`, …), each with the same fields.

use serde_json::{Value, json};

use crate::case::{Case, Learns};
use crate::optim;
use crate::place::place;
use crate::report::Verdict;
use crate::rule::Does::{By, No, Not};
use crate::rule::Takes::{Any, Flag, Number, Text};
use crate::rule::{Field, Rule};

const OFFLOAD: &str = "model.swap_blocks counts the blocks that are kept on the host";

pub(super) static RULES: &[Rule] = &[
    Rule::new("unet.gradient_checkpointing", Flag, By(recompute)).said("true"),
    Rule::new("transformer.gradient_checkpointing", Flag, By(recompute)).said("true"),
    Rule::new(
        "gradient_checkpointing",
        Text,
        By(|c, f| match f.text() {
            "OFF" => {
                c.set("train.recompute", "nothing");
                Verdict::went("train.recompute")
            }
            _ => {
                c.set("train.recompute", "blocks");
                Verdict::went("train.recompute")
            }
        }),
    ),
    Rule::new("unet.*", Any, By(part)),
    Rule::new("prior.*", Any, By(part)),
    Rule::new("transformer.*", Any, By(part)),
    Rule::new("unconditional_transformer.*", Any, By(part)),
    Rule::new("text_encoder.*", Any, By(part)),
    Rule::new("text_encoder_2.*", Any, By(part)),
    Rule::new("text_encoder_3.*", Any, By(part)),
    Rule::new("text_encoder_4.*", Any, By(part)),
    Rule::new("vae.*", Any, By(part)),
    Rule::new("effnet_encoder.*", Any, By(part)),
    Rule::new("decoder.*", Any, By(part)),
    Rule::new("decoder_text_encoder.*", Any, By(part)),
    Rule::new("decoder_vqgan.*", Any, By(part)),
    Rule::new("text_encoder_layer_skip", Number, By(skip)).usual("0"),
    Rule::new("text_encoder_2_layer_skip", Number, By(skip)).usual("0"),
    Rule::new("text_encoder_3_layer_skip", Number, By(skip)).usual("0"),
    Rule::new("text_encoder_4_layer_skip", Number, By(skip)).usual("0"),
    Rule::new("text_encoder_sequence_length", Number, By(length)).usual("512"),
    Rule::new("text_encoder_2_sequence_length", Number, By(length)).usual("77"),
    Rule::new("quantization.*", Any, By(quantization)),
    Rule::new("layer_offload_fraction", Number, No(OFFLOAD)).usual("0.0"),
    Rule::new("enable_activation_offloading", Flag, No("activations are computed again instead: train.recompute")),
    Rule::new("enable_async_offloading", Flag, Not("blocks on the host are fetched ahead by themselves")),
    Rule::new("async_offloading", Flag, Not("blocks on the host are fetched ahead by themselves")),
];

/// The parts that this model has, as the recipe names them.
fn own(case: &Case, part: &str) -> bool {
    part == case.family.denoiser() || case.family.encoders().contains(&part)
}

/// True if a part trains: OneTrainer's default is yes.
pub(super) fn trains(case: &Case, part: &str) -> bool {
    case.given(&format!("{part}.train")).is_none_or(Field::flag) && case.learns != Learns::Word
}

fn recompute(case: &mut Case, field: &Field) -> Verdict {
    if !field.key.starts_with(case.family.denoiser()) {
        return Verdict::no_need("the model has no such part");
    }
    if field.flag() && case.given("gradient_checkpointing").is_none() {
        case.set("train.recompute", "blocks");
    }
    Verdict::went("train.recompute")
}

/// A field of a part.
fn part(case: &mut Case, field: &Field) -> Verdict {
    let (part, name) = field.key.split_once('.').unwrap_or_default();
    let denoiser = part == case.family.denoiser();
    if part == "vae" {
        return match name {
            "model_name" if field.text().is_empty() => Verdict::Default,
            "model_name" => case.entry_of("model.files", "vae", place(field.text())),
            "weight_dtype" => Verdict::no_need("an autoencoder that overflows in f16 is run in a wider type by itself"),
            _ => Verdict::no_need("the autoencoder only encodes"),
        };
    }
    if !own(case, part) {
        return Verdict::no_need("the model has no such part");
    }
    match name {
        "model_name" if field.text().is_empty() => Verdict::Default,
        "model_name" => case.entry_of("model.files", part, place(field.text())),
        "include" if field.flag() => Verdict::Default,
        "include" => {
            case.set("model.without", json!([part]));
            Verdict::went("model.without")
        }
        "train" | "learning_rate" => {
            components(case);
            Verdict::went("train.components")
        }
        "stop_training_after" | "stop_training_after_unit" if !trains(case, part) => {
            Verdict::no_need("it does not train")
        }
        "stop_training_after" if denoiser => Verdict::Default,
        "stop_training_after" => {
            Verdict::no_place("a component trains throughout, or not at all: lower its factor in train.components")
        }
        "stop_training_after_unit" => Verdict::no_need("it belongs to stop_training_after"),
        "weight_dtype" => kept(case, field, part),
        "dropout_probability" if field.number() == Some(0.0) => Verdict::Default,
        "dropout_probability" => {
            case.set("data.caption_dropout", field.value.clone());
            Verdict::near("data.caption_dropout", "captions are dropped for all encoders together")
        }
        "guidance_scale" if field.number() == Some(1.0) => Verdict::Default,
        "guidance_scale" => {
            case.set("train.guidance", field.value.clone());
            Verdict::went("train.guidance")
        }
        "attention_mask" if field.flag() => {
            Verdict::no_place("padding is attended to, as in the models' own pipelines")
        }
        "offload_fraction" if field.number() > Some(0.0) => Verdict::no_place(OFFLOAD),
        "activation_offloading" if field.flag() => {
            Verdict::no_place("activations are computed again instead: train.recompute")
        }
        "gradient_checkpointing" => Verdict::no_need("train.recompute is for all that trains"),
        "attention_mask" | "offload_fraction" | "activation_offloading" | "train_embedding" => Verdict::Default,
        _ => Verdict::Unknown(None),
    }
}

/// How a part is kept in memory.
fn kept(case: &mut Case, field: &Field, part: &str) -> Verdict {
    let packed = match field.text().trim_end_matches("_COMPRESSED") {
        "NFLOAT_4" => "nf4",
        "FLOAT_8" | "FLOAT_W8A8" => "fp8",
        "INT_8" | "INT_W8A8" => "int8",
        gguf if gguf.starts_with("GGUF") => {
            return Verdict::no_place("GGUF is not read: model.quantise packs what is read in full");
        }
        "BFLOAT_16" if case.learns == Learns::Whole && trains(case, part) => {
            case.set("train.weights", "bf16-stochastic");
            return Verdict::went("train.weights");
        }
        _ => return Verdict::no_need("what does not train has model.dtype, what trains is f32"),
    };
    if trains(case, part) && case.learns == Learns::Whole {
        return Verdict::no_place("weights that train are not packed");
    }
    case.entry_of("model.quantise", part, packed)
}

/// Which layers are quantised, and what is kept beside them.
fn quantization(_: &mut Case, field: &Field) -> Verdict {
    let name = field.key.trim_start_matches("quantization.");
    match (name, &field.value) {
        ("svd_rank", _) => Verdict::no_need("it belongs to svd_dtype"),
        (_, Value::Bool(false)) => Verdict::Default,
        (_, Value::String(text)) if ["", "full", "NONE"].contains(&text.as_str()) => Verdict::Default,
        _ => Verdict::no_place("model.quantise names components whole, and keeps nothing beside them"),
    }
}

fn skip(case: &mut Case, field: &Field) -> Verdict {
    let part = field.key.trim_end_matches("_layer_skip");
    match own(case, part) && field.number() != Some(0.0) {
        true => Verdict::no_place("the text encoder's output is that of the model's own pipeline"),
        false => Verdict::Default,
    }
}

fn length(case: &mut Case, field: &Field) -> Verdict {
    let part = field.key.trim_end_matches("_sequence_length");
    match case.family.t5() == Some(part) {
        true => {
            case.set("model.max_sequence_length", field.value.clone());
            Verdict::went("model.max_sequence_length")
        }
        false => Verdict::no_need("CLIP has 77 tokens"),
    }
}

/// The rate, times the root of what OneTrainer scales it by.
fn rate(case: &Case, rate: f64) -> f64 {
    let scale = match case.text("learning_rate_scaler").as_str() {
        "BATCH" | "GLOBAL_BATCH" => case.batch,
        "GRADIENT_ACCUMULATION" => case.accumulate,
        "BOTH" | "GLOBAL_BOTH" => case.batch * case.accumulate,
        _ => 1.0,
    };
    rate * scale.max(0.0).sqrt()
}

/// The rate of the recipe, and the components with their factors on it.
pub(super) fn components(case: &mut Case) {
    let all = case.number("learning_rate").unwrap_or(3e-6);
    if case.learns == Learns::Word {
        let (own, from) = match case.number("embedding_learning_rate") {
            Some(own) => (own, "embedding_learning_rate"),
            None => (all, "learning_rate"),
        };
        return case.set_as("optimizer.lr", rate(case, own), from);
    }
    let own = |part: &str| case.number(&format!("{part}.learning_rate")).unwrap_or(all);
    let denoiser = case.family.denoiser();
    let parts = [denoiser].into_iter().chain(case.family.encoders()).filter(|p| trains(case, p));
    let rates: Vec<(&str, f64)> = parts.map(|p| (p, own(p))).collect();
    let base = rates.first().map_or(all, |(_, rate)| *rate);
    case.set_as("optimizer.lr", rate(case, base), "learning_rate");
    let name = case.text("optimizer.optimizer");
    optim::components(case, &name, base, &rates, "what trains, with its rate over optimizer.lr");
}
