//! What is trained: adapters and their layers, components and their rates, and learned words.

use serde_json::json;

use super::adapter::{adapter, algorithm, convolutions};
use super::components::components;
use crate::case::{Case, Learns};
use crate::place::place;
use crate::report::Verdict;
use crate::rule::Does::{By, No, Not};
use crate::rule::Takes::{Any, Flag, List, Number, Text};
use crate::rule::{Field, Rule};

const DROPOUT: &str = "adapters have no dropout: fewer images, or a lower rank, keep one from learning by heart";
const RANKS: &str = "ranks of some layers are adapter.layers = [{ targets = [\"…\"], rank = 8, alpha = 4.0 }]";
const RATES: &str = "rates of blocks are groups: [[train.group]] targets = [\"unet.down_blocks.0.*\"], lr_factor \
     = 0.5";

pub(super) static RULES: &[Rule] = &[
    Rule::new("network_module", Text, By(|c, f| with(c, f, "adapter.type"))).said("\"networks.lora\""),
    Rule::new("network_dim", Number, By(|c, f| with(c, f, "adapter.rank"))).usual("4"),
    Rule::new("network_alpha", Number, By(|c, f| with(c, f, "adapter.alpha"))).usual("1"),
    Rule::new(
        "network_weights",
        Text,
        By(|c, f| {
            c.set("train.adapter_from", place(f.text()));
            Verdict::went("train.adapter_from")
        }),
    ),
    Rule::new("dim_from_weights", Flag, No("say adapter.rank: a file of another rank is brought to it")),
    Rule::new("network_dropout", Number, No(DROPOUT)).usual("0"),
    Rule::new(
        "scale_weight_norms",
        Number,
        No("norms of an adapter are not bounded: optimizer.weight_decay keeps them small"),
    ),
    Rule::new("network_train_unet_only", Flag, By(|c, f| with(c, f, "train.components"))),
    Rule::new("network_train_text_encoder_only", Flag, By(|c, f| with(c, f, "train.components"))),
    Rule::new(
        "network_args.algo",
        Text,
        By(|c, f| match algorithm(c) {
            Some(_) => with(c, f, "adapter.type"),
            None => Verdict::no_place(format!(
                "there is no adapter like {}: `sconce list adapter`; the recipe has a LoRA",
                f.text()
            )),
        }),
    )
    .usual("\"lora\""),
    Rule::new(
        "network_args.preset",
        Text,
        By(|c, f| match f.text() {
            "full" | "attn-mlp" | "attn-only" | "unet-transformer-only" | "unet-convblock-only" => {
                with(c, f, "adapter.targets")
            }
            _ => Verdict::no_place("this preset is not known: name the layers in adapter.targets"),
        }),
    )
    .usual("\"full\""),
    Rule::new("network_args.conv_dim", Number, By(conv)),
    Rule::new("network_args.conv_alpha", Number, By(conv)),
    Rule::new("network_args.factor", Number, By(|c, f| kinds(c, f, &["lokr"], "adapter.factor"))).usual("-1"),
    Rule::new("network_args.dora_wd", Flag, By(|c, f| kinds(c, f, &["lora", "loha", "lokr"], "adapter.type"))),
    Rule::new(
        "network_args.wd_on_output",
        Flag,
        By(|_, f| match f.flag() {
            true => Verdict::no_need("a magnitude is one of an output"),
            false => Verdict::no_place("a magnitude is one of an output, as in the paper and in LyCORIS's own default"),
        }),
    )
    .usual("true"),
    Rule::new("network_args.rs_lora", Flag, By(|c, f| kinds(c, f, &["lora", "loha", "lokr"], "adapter.scaling"))),
    Rule::new("network_args.constraint", Number, By(|c, f| kinds(c, f, &["oft", "boft"], "adapter.constraint")))
        .usual("0"),
    Rule::new("network_args.rescaled", Flag, By(|c, f| kinds(c, f, &["oft", "boft"], "adapter.rescale"))),
    Rule::new("network_args.block_size", Number, No("only for DyLoRA")).usual("4"),
    Rule::new(
        "network_args.use_tucker",
        Flag,
        No("a convolution's addition keeps its kernel: there is no Tucker decomposition"),
    ),
    Rule::new(
        "network_args.use_cp",
        Flag,
        No("a convolution's addition keeps its kernel: there is no Tucker decomposition"),
    ),
    Rule::new("network_args.decompose_both", Flag, No("LoKr's small factor is a full matrix")),
    Rule::new("network_args.full_matrix", Flag, By(|c, f| kinds(c, f, &["lokr"], "adapter.rank"))),
    Rule::new(
        "network_args.use_scalar",
        Flag,
        No("additions start from nothing by one factor that is zero, as in LyCORIS's default"),
    ),
    Rule::new("network_args.train_norm", Flag, No("norms do not train beside an adapter")),
    Rule::new("network_args.bypass_mode", Flag, Not("both ways give the same numbers")),
    Rule::new(
        "network_args.unbalanced_factorization",
        Flag,
        No("LoKr's factors are divided as LyCORIS does it by default"),
    ),
    Rule::new("network_args.dropout", Number, No(DROPOUT)).usual("0"),
    Rule::new("network_args.rank_dropout", Number, No(DROPOUT)).usual("0"),
    Rule::new("network_args.module_dropout", Number, No(DROPOUT)).usual("0"),
    Rule::new("network_args.loraplus_lr_ratio", Number, By(|c, f| kinds(c, f, &["lora"], "adapter.lora_plus_ratio"))),
    Rule::new(
        "network_args.loraplus_unet_lr_ratio",
        Number,
        By(|c, f| kinds(c, f, &["lora"], "adapter.lora_plus_ratio")),
    ),
    Rule::new(
        "network_args.loraplus_text_encoder_lr_ratio",
        Number,
        No("adapter.lora_plus_ratio is one for all layers"),
    ),
    Rule::new("network_args.train_t5xxl", Flag, By(|c, f| with(c, f, "train.components"))),
    Rule::new("network_args.split_qkv", Flag, Not("queries, keys and values are layers of their own")),
    Rule::new("network_args.train_blocks", Text, By(|c, f| with(c, f, "adapter.targets"))).usual("\"all\""),
    Rule::new(
        "network_args.train_double_block_indices",
        Text,
        No("name the blocks in adapter.targets: \"transformer.transformer_blocks.7.*\""),
    ),
    Rule::new(
        "network_args.train_single_block_indices",
        Text,
        No("name the blocks in adapter.targets: \"transformer.single_transformer_blocks.7.*\""),
    ),
    Rule::new("network_args.down_lr_weight", Any, No(RATES)),
    Rule::new("network_args.mid_lr_weight", Any, No(RATES)),
    Rule::new("network_args.up_lr_weight", Any, No(RATES)),
    Rule::new("network_args.block_lr_zero_threshold", Any, No(RATES)),
    Rule::new("network_args.block_dims", Any, No(RANKS)),
    Rule::new("network_args.block_alphas", Any, No(RANKS)),
    Rule::new("network_args.conv_block_dims", Any, No(RANKS)),
    Rule::new("network_args.conv_block_alphas", Any, No(RANKS)),
    Rule::new("network_args.img_*", Any, No(RANKS)),
    Rule::new("network_args.txt_*", Any, No(RANKS)),
    Rule::new("network_args.single_*", Any, No(RANKS)),
    Rule::new("network_args.context_*", Any, No(RANKS)),
    Rule::new("network_args.x_*", Any, No(RANKS)),
    Rule::new("network_args.in_dims", Any, No(RANKS)),
    Rule::new("network_args.emb_dims", Any, No(RANKS)),
    Rule::new("network_args.network_reg_dims", Any, No(RANKS)),
    Rule::new("network_args.network_reg_lrs", Any, No(RATES)),
    Rule::new(
        "network_args.train_block_indices",
        Text,
        No("name the blocks in adapter.targets: \"transformer.transformer_blocks.7.*\""),
    ),
    Rule::new("network_args.ggpo_*", Any, No("weights of an adapter are not disturbed as they train")),
    Rule::new("network_args.unit", Any, No("only for DyLoRA")),
    Rule::new("network_args.enable_conv", Any, No("name the layers in adapter.targets")),
    Rule::new("network_args.enable_all_linear", Any, No("name the layers in adapter.targets")),
    Rule::new(
        "network_args.use_conv_cp",
        Flag,
        No("a convolution's addition keeps its kernel: there is no Tucker decomposition"),
    ),
    Rule::new("network_args.disable_conv_cp", Flag, Not("there is no Tucker decomposition")),
    Rule::new("network_args", List, Not("it is empty")),
    Rule::new("network_args.verbose", Flag, Not("`sconce check` lists the layers")),
    Rule::new("unet_lr", Number, By(|c, f| with(c, f, "optimizer.lr"))),
    Rule::new("text_encoder_lr", List, By(|c, f| with(c, f, "train.components"))),
    Rule::new("learning_rate_te", Number, By(|c, f| with(c, f, "train.components"))),
    Rule::new("learning_rate_te1", Number, By(|c, f| with(c, f, "train.components"))),
    Rule::new("learning_rate_te2", Number, By(|c, f| with(c, f, "train.components"))),
    Rule::new("learning_rate_te3", Number, By(|c, f| with(c, f, "train.components"))),
    Rule::new("train_text_encoder", Flag, By(|c, f| with(c, f, "train.components"))),
    Rule::new("train_t5xxl", Flag, By(|c, f| with(c, f, "train.components"))),
    Rule::new(
        "stop_text_encoder_training",
        Number,
        By(|c, f| match f.number() {
            Some(n) if n < 0.0 => with(c, f, "train.components"),
            _ => {
                Verdict::no_place("a component trains throughout, or not at all: lower its factor in train.components")
            }
        }),
    ),
    Rule::new("block_lr", Text, No(RATES)),
    Rule::new("no_token_padding", Flag, No("prompts are padded as in the model's own pipeline")),
    Rule::new("token_string", Text, By(word)),
    Rule::new("init_word", Text, By(word)),
    Rule::new("num_vectors_per_token", Number, By(word)).usual("1"),
    Rule::new("weights", Text, By(word)),
    Rule::new("use_object_template", Flag, By(template)),
    Rule::new("use_style_template", Flag, By(template)),
];

/// Writes what is trained, of which the field is a part.
fn with(case: &mut Case, field: &Field, to: &str) -> Verdict {
    if case.learns == Learns::Adapter {
        adapter(case);
    } else if field.key.starts_with("network") {
        return Verdict::no_need("the run trains no network");
    }
    components(case);
    Verdict::went(to)
}

/// [`with`], where these kinds of adapters have the field.
fn kinds(case: &mut Case, field: &Field, kinds: &[&str], to: &str) -> Verdict {
    match algorithm(case) {
        Some(kind) if kinds.contains(&kind) => with(case, field, to),
        _ => Verdict::no_need(format!("only {} has it", kinds.join(", "))),
    }
}

fn conv(case: &mut Case, field: &Field) -> Verdict {
    match convolutions(case) {
        Some(_) => kinds(case, field, &["lora", "loha", "lokr"], "adapter.layers"),
        None if case.family.flows() => Verdict::no_need("rectified flows have no convolutions that are adapted"),
        None => Verdict::no_need("without conv_dim it is not read"),
    }
}

/// A learned word.
fn word(case: &mut Case, field: &Field) -> Verdict {
    if case.learns != Learns::Word {
        return Verdict::no_need("the run learns no word");
    }
    let (key, value) = match field.key.as_str() {
        "token_string" => ("text", json!(field.text())),
        "init_word" if case.given("weights").is_some() => return Verdict::no_need("the word starts from its file"),
        "init_word" => ("start", json!(field.text())),
        "weights" => ("from", json!(place(field.text()))),
        _ if case.given("weights").is_some() => return Verdict::no_need("the word has as many as its file"),
        _ => ("vectors", field.value.clone()),
    };
    case.set(&format!("train.token.0.{key}"), value);
    Verdict::went(format!("train.token.{key}"))
}

fn template(case: &mut Case, field: &Field) -> Verdict {
    if !field.flag() {
        return Verdict::Default;
    }
    let text = case.text("token_string");
    let caption = match field.key.as_str() {
        "use_object_template" => format!("a photo of a {text}"),
        _ => format!("a painting in the style of {text}"),
    };
    case.source(field, "caption", caption);
    Verdict::near("data.source.caption", "one sentence for every picture, where sd-scripts draws one of some twenty")
}
