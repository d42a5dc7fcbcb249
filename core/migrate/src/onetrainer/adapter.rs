//! Adapters and their layers.

use serde_json::json;

use crate::case::{Case, Learns};
use crate::family::Family;
use crate::place::place;
use crate::report::Verdict;
use crate::rule::Does::{By, No, Not};
use crate::rule::Takes::{Flag, Number, Text};
use crate::rule::{Field, Rule};

pub(super) static RULES: &[Rule] = &[
    Rule::new("peft_type", Text, By(|c, f| with(c, f, &["LORA", "LOHA", "LOKR", "OFT_2"], "adapter.type")))
        .said("\"LORA\""),
    Rule::new(
        "lora_model_name",
        Text,
        By(|c, f| match f.text() {
            "" => Verdict::Default,
            file => {
                c.set("train.adapter_from", place(file));
                Verdict::went("train.adapter_from")
            }
        }),
    ),
    Rule::new("lora_rank", Number, By(|c, f| with(c, f, &["LORA", "LOHA"], "adapter.rank"))).usual("16"),
    Rule::new("lora_alpha", Number, By(|c, f| with(c, f, &["LORA", "LOHA", "LOKR"], "adapter.alpha"))).usual("1.0"),
    Rule::new("lora_decompose", Flag, By(|c, f| with(c, f, &["LORA"], "adapter.type"))),
    Rule::new("lora_decompose_norm_epsilon", Flag, Not("a norm of zero is guarded against")),
    Rule::new(
        "lora_decompose_output_axis",
        Flag,
        By(|_, f| match f.flag() {
            true => Verdict::no_need("a magnitude is one of an output"),
            false => Verdict::no_need("only DoRA reads it, and a magnitude is one of an output, as in the paper"),
        }),
    ),
    Rule::new("lora_weight_dtype", Text, Not("weights that train are f32")),
    Rule::new("lora_layers", Text, By(|c, f| with(c, f, &["LORA", "LOHA", "LOKR", "OFT_2"], "adapter.targets"))),
    Rule::new("lora_layer_preset", Text, Not("lora_layers says the layers")),
    Rule::new("bundle_additional_embeddings", Flag, No("a word has a file of its own, beside the adapter's"))
        .usual("true"),
    Rule::new("oft_block_size", Number, By(|c, f| with(c, f, &["OFT_2"], "adapter.block"))).usual("32"),
    Rule::new("oft_block_share", Flag, No("each block has its own rotation")),
    Rule::new("oft_scaled", Flag, By(|c, f| with(c, f, &["OFT_2"], "adapter.rescale"))),
    Rule::new("lokr_dim", Number, By(|c, f| with(c, f, &["LOKR"], "adapter.rank"))).usual("16"),
    Rule::new("lokr_decompose_both", Flag, No("LoKr's small factor is a full matrix")),
    Rule::new("lokr_decompose_factor", Number, By(|c, f| with(c, f, &["LOKR"], "adapter.factor"))).usual("-1"),
    Rule::new(
        "lokr_use_tucker",
        Flag,
        No("a convolution's addition keeps its kernel: there is no Tucker decomposition"),
    ),
    Rule::new("lokr_weight_decompose", Flag, By(|c, f| with(c, f, &["LOKR"], "adapter.type"))),
    Rule::new("lokr_dora_on_output", Flag, Not("a magnitude is one of an output")),
    Rule::new("lokr_full_matrix", Flag, By(|c, f| with(c, f, &["LOKR"], "adapter.rank"))),
    Rule::new("lokr_vec_trick", Flag, Not("both ways give the same numbers")),
    Rule::new("layer_filter", Text, By(layers)).usual("\"\""),
    Rule::new("layer_filter_preset", Text, By(layers)).usual("\"full\""),
    Rule::new(
        "layer_filter_regex",
        Flag,
        By(|_, f| match f.flag() {
            true => Verdict::no_place("adapter.targets are patterns with `*` for any text: write the layers so"),
            false => Verdict::Default,
        }),
    ),
    Rule::new("dropout_probability", Number, No("adapters have no dropout")).usual("0.0"),
];

/// Writes the adapter, of which the field is a part if it is of one of these types.
fn with(case: &mut Case, field: &Field, types: &[&str], to: &str) -> Verdict {
    let _ = field;
    if case.learns != Learns::Adapter {
        return Verdict::no_need("the run's method is not LORA");
    }
    if !types.contains(&case.text("peft_type").as_str()) {
        return Verdict::no_need("this peft_type does not read it");
    }
    adapter(case);
    Verdict::went(to)
}

fn layers(case: &mut Case, field: &Field) -> Verdict {
    match case.learns {
        _ if field.text().is_empty() => Verdict::Default,
        Learns::Adapter => {
            adapter(case);
            Verdict::went("adapter.targets")
        }
        Learns::Word => Verdict::no_need("the run learns a word alone"),
        Learns::Whole if field.text().is_empty() || field.text() == "full" => Verdict::Default,
        Learns::Whole => Verdict::no_place(
            "a full fine-tune trains whole components; a [[train.group]] with lr_factor = 0.0 holds \
                 layers still",
        ),
    }
}

fn adapter(case: &mut Case) {
    let targets = json!(targets(case));
    let number = |key: &str| case.number(key).unwrap_or_default();
    let alpha = json!(number("lora_alpha"));
    let count = |key: &str| number(key).max(1.0) as u64;
    let mut table = match case.text("peft_type").as_str() {
        "LOHA" => json!({ "type": "loha", "rank": count("lora_rank"), "alpha": alpha, "targets": targets }),
        "LOKR" => {
            let rank = if case.flag("lokr_full_matrix") { 100_000 } else { count("lokr_dim") };
            json!({ "type": "lokr", "rank": rank, "alpha": alpha, "targets": targets })
        }
        "OFT_2" => {
            json!({ "type": "oft", "block": count("oft_block_size"), "rescale": case.flag("oft_scaled"), "targets": targets })
        }
        _ => json!({ "type": "lora", "rank": count("lora_rank"), "alpha": alpha, "targets": targets }),
    };
    if case.text("peft_type") == "LOKR" && number("lokr_decompose_factor") > 0.0 {
        table["factor"] = json!(count("lokr_decompose_factor"));
    }
    let dora = match case.text("peft_type").as_str() {
        "LORA" => "lora_decompose",
        "LOKR" => "lokr_weight_decompose",
        _ => "",
    };
    if case.text("peft_type") == "OFT_2" {
        case.set_as("output.adapter_layouts", json!(["kohya"]), "PEFT's layout has no name for it");
    }
    match case.flag(dora) {
        true => {
            case.table("adapter", &json!({ "type": "dora" }), dora);
            case.table("adapter.of", &table, "peft_type");
        }
        false => case.table("adapter", &table, "peft_type"),
    }
}

/// Layers as patterns: OneTrainer's filter are parts of names.
fn targets(case: &Case) -> Vec<String> {
    let denoiser = case.family.denoiser();
    let said = [case.text("layer_filter"), case.text("lora_layers")].into_iter().find(|s| !s.trim().is_empty());
    let preset: &[&str] = match (case.text("layer_filter_preset").as_str(), case.family) {
        ("attn-mlp", Family::Flux) => &["attn", "ff.net", "proj_mlp"],
        ("attn-mlp", _) => &["attentions"],
        ("attn-only", _) => &["attn"],
        ("blocks", _) => &["transformer_block"],
        _ => &[],
    };
    let parts: Vec<String> = match (said, case.flag("layer_filter_regex")) {
        (Some(said), false) => said.split(',').map(|p| p.trim().to_owned()).filter(|p| !p.is_empty()).collect(),
        _ => preset.iter().map(|&p| p.to_owned()).collect(),
    };
    let mut targets = Vec::new();
    if super::parts::trains(case, denoiser) {
        match parts.is_empty() {
            true => targets.push(format!("{denoiser}.*")),
            false => targets.extend(parts.iter().map(|p| format!("{denoiser}.*{p}*"))),
        }
    }
    let encoders = case.family.encoders().into_iter().filter(|e| super::parts::trains(case, e));
    targets.extend(encoders.map(|e| format!("{e}.*")));
    targets
}
