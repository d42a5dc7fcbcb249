//! What is trained: adapters and their layers, components and their rates, and learned words.

use serde_json::{Value, json};

use crate::case::Takes::{Any, Flag, List, Number, Text};
use crate::case::{
    Case,
    Does::{By, No, Not},
    Field, Learns, Rule,
};
use crate::family::Family;
use crate::place::place;
use crate::report::Verdict;

const DROPOUT: &str = "adapters have no dropout: fewer images, or a lower rank, keep one from learning by heart";
const RATES: &str = "rates of blocks are groups: [[train.group]] targets = [\"unet.down_blocks.0.*\"], lr_factor = 0.5";

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
    Rule::new(
        "network_args.block_dims",
        Any,
        No("ranks of some layers are adapter.layers = [{ targets = [\"…\"], rank = 8 }]"),
    ),
    Rule::new(
        "network_args.block_alphas",
        Any,
        No("ranks of some layers are adapter.layers = [{ targets = [\"…\"], rank = 8, alpha = 4.0 }]"),
    ),
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

fn lycoris(case: &Case) -> bool {
    case.text("network_module").starts_with("lycoris")
}

/// The kind of adapter, where there is such.
fn algorithm(case: &Case) -> Option<&'static str> {
    let module = case.text("network_module");
    if !lycoris(case) {
        return Some(if module.contains("oft") { "oft" } else { "lora" });
    }
    Some(match case.text("network_args.algo").to_ascii_lowercase().as_str() {
        "lora" | "locon" => "lora",
        "loha" => "loha",
        "lokr" => "lokr",
        "ia3" => "ia3",
        "full" => "full-difference",
        "diag-oft" | "oft" => "oft",
        "boft" => "boft",
        _ => return None,
    })
}

fn adapter(case: &mut Case) {
    let kind = algorithm(case).unwrap_or("lora");
    let rank = case.number("network_dim").unwrap_or(4.0);
    let alpha = case.number("network_alpha").unwrap_or(1.0);
    let mut table = json!({ "type": kind, "targets": targets(case) });
    let fields = table.as_object_mut().expect("an object was written");
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    match kind {
        "lora" | "loha" | "lokr" => {
            let full = kind == "lokr" && case.flag("network_args.full_matrix");
            put("rank", json!(if full { 100_000 } else { rank as u64 }));
            put("alpha", json!(alpha));
            if case.flag("network_args.rs_lora") {
                put("scaling", json!("root-rank"));
            }
            if let Some(factor) = case.number("network_args.factor").filter(|f| *f > 0.0 && kind == "lokr") {
                put("factor", json!(factor as u64));
            }
            let ratio =
                ["", "_unet"].iter().find_map(|part| case.number(&format!("network_args.loraplus{part}_lr_ratio")));
            if let Some(ratio) = ratio.filter(|_| kind == "lora") {
                put("lora_plus_ratio", json!(ratio));
            }
            if let Some(layers) = convolutions(case) {
                put("layers", layers);
            }
        }
        "oft" | "boft" => {
            if lycoris(case) {
                put("block", json!(rank as u64));
                put("constraint", json!(case.number("network_args.constraint").unwrap_or(0.0)));
                put("rescale", json!(case.flag("network_args.rescaled")));
            } else {
                put("constraint", json!(alpha));
                case.warn("networks.oft's network_dim is how many blocks a layer has; adapter.block is how large each of them is: \
                           divide a layer's outputs by network_dim");
            }
        }
        _ => {}
    }
    match kind {
        "ia3" => case.set_as("output.adapter_layouts", json!(["peft"]), "kohya's layout has no name for IA3"),
        "oft" | "boft" | "full-difference" => {
            case.set_as("output.adapter_layouts", json!(["kohya"]), "PEFT's layout has no name for it")
        }
        _ => {}
    }
    match lycoris(case) && case.flag("network_args.dora_wd") && ["lora", "loha", "lokr"].contains(&kind) {
        true => {
            case.table("adapter", &json!({ "type": "dora" }), "network_args: dora_wd");
            case.table("adapter.of", &table, "network_module");
        }
        false => case.table("adapter", &table, "network_module"),
    }
}

/// The layers that get an adapter: sd-scripts' own, or those of LyCORIS's preset.
fn targets(case: &Case) -> Vec<String> {
    let preset = if lycoris(case) { case.text("network_args.preset") } else { "transformers".to_owned() };
    let family = case.family;
    let mut targets = match (preset.as_str(), case.text("network_args.train_blocks").as_str()) {
        _ if case.flag("network_train_text_encoder_only") => Vec::new(),
        (_, "single") if family == Family::Flux => vec!["transformer.single_transformer_blocks.*".to_owned()],
        (_, "double") if family == Family::Flux => vec!["transformer.transformer_blocks.*".to_owned()],
        ("attn-only", _) => vec![format!("{}.*.attn*", family.denoiser())],
        ("full", _) if !family.flows() => {
            let own = ["unet.conv_in", "unet.conv_out", "unet.time_embedding.*"].map(str::to_owned);
            [family.transformers(), family.convolutions(), own.to_vec()].concat()
        }
        ("unet-convblock-only", _) => family.convolutions(),
        ("transformers", _) if convolutions(case).is_some() => [family.transformers(), family.convolutions()].concat(),
        _ => family.transformers(),
    };
    for (encoder, _) in encoders(case) {
        targets.extend(family.encoder_layers(encoder));
    }
    targets
}

/// Ranks of 3 x 3 convolutions, where they have their own.
fn convolutions(case: &Case) -> Option<Value> {
    let given = case.number("network_args.conv_dim").filter(|dim| *dim > 0.0 && !case.family.flows())?;
    let own = if lycoris(case) { case.number("network_alpha") } else { Some(1.0) };
    let alpha = case.number("network_args.conv_alpha").or(own).unwrap_or(1.0);
    let mut targets = vec!["unet.*.conv1", "unet.*.conv2", "unet.*samplers.*.conv"];
    if lycoris(case) {
        targets.extend(["unet.conv_in", "unet.conv_out"]);
    }
    Some(json!([{ "targets": targets, "rank": given as u64, "alpha": alpha }]))
}

fn conv(case: &mut Case, field: &Field) -> Verdict {
    match convolutions(case) {
        Some(_) => kinds(case, field, &["lora", "loha", "lokr"], "adapter.layers"),
        None if case.family.flows() => Verdict::no_need("rectified flows have no convolutions that are adapted"),
        None => Verdict::no_need("without conv_dim it is not read"),
    }
}

/// The text encoders that train, each with its rate.
fn encoders(case: &Case) -> Vec<(&'static str, f64)> {
    let base = case.number("learning_rate").unwrap_or(2e-6);
    let (clips, t5) = match case.learns {
        Learns::Word => (false, false),
        Learns::Adapter => {
            let train = !case.flag("network_train_unet_only");
            (train, train && case.flag("network_args.train_t5xxl"))
        }
        Learns::Whole => {
            let kept = case.number("stop_text_encoder_training").is_none_or(|n| n >= 0.0);
            let rate = case.given("learning_rate_te").is_some();
            let train = case.flag("train_text_encoder") || rate || case.given("stop_text_encoder_training").is_some();
            (train && kept && case.family != Family::Flux, case.flag("train_t5xxl"))
        }
    };
    let rates = case.value("text_encoder_lr");
    let rate = |i: usize| match (&rates, case.learns) {
        // Strings, where they come from a command line.
        (Value::Array(rates), Learns::Adapter) => {
            let rate = rates.get(i).or(rates.last()).map(|v| v.as_f64().or_else(|| v.as_str()?.parse().ok()));
            rate.flatten().unwrap_or(base)
        }
        (_, Learns::Whole) => {
            case.number(&format!("learning_rate_te{}", i + 1)).or(case.number("learning_rate_te")).unwrap_or(base)
        }
        _ => base,
    };
    let clips = case.family.clips().iter().copied().filter(|_| clips);
    let all = clips.chain(case.family.t5().filter(|_| t5)).enumerate();
    all.map(|(i, name)| (name, rate(i))).filter(|(_, rate)| *rate > 0.0).collect()
}

/// The rate of the recipe, and the components with their factors on it.
pub(super) fn components(case: &mut Case) {
    let given = if case.learns == Learns::Adapter { case.number("unet_lr") } else { None };
    let rate = given.or(case.number("learning_rate")).unwrap_or(2e-6);
    let only_text = case.flag("network_train_text_encoder_only");
    let encoders = encoders(case);
    let base = match (only_text, encoders.first()) {
        (true, Some((_, rate))) => *rate,
        _ => rate,
    };
    case.set_as("optimizer.lr", base, if given.is_some() { "unet_lr" } else { "learning_rate" });
    if case.learns == Learns::Word {
        return;
    }
    let mut table = serde_json::Map::new();
    if !only_text {
        table.insert(case.family.denoiser().into(), json!(1.0));
    }
    for (name, rate) in encoders {
        // Factors as people write them: 0.5, and not 0.49999999999999994.
        let factor = if base > 0.0 { (rate / base * 1e6).round() / 1e6 } else { 1.0 };
        table.insert(name.into(), json!(factor));
    }
    case.set_as("train.components", table, "rates of components over optimizer.lr");
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
