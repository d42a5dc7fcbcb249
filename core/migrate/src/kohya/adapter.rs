//! Adapters: sd-scripts' own LoRA and OFT, and LyCORIS's, on the layers that each takes when it is told nothing.

use serde_json::{Value, json};

use super::components::encoders;
use crate::case::Case;
use crate::family::Family;

fn lycoris(case: &Case) -> bool {
    case.text("network_module").starts_with("lycoris")
}

/// The kind of adapter, where there is such.
pub(super) fn algorithm(case: &Case) -> Option<&'static str> {
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

pub(super) fn adapter(case: &mut Case) {
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
                case.warn(
                    "networks.oft's network_dim is how many blocks a layer has; adapter.block is how large each \
                     of them is: divide a layer's outputs by network_dim",
                );
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
pub(super) fn convolutions(case: &Case) -> Option<Value> {
    let preset = case.text("network_args.preset");
    let (whole, blocks) = (preset == "full", preset == "unet-convblock-only");
    if lycoris(case) && !whole && !blocks {
        return None;
    }
    let given = case.number("network_args.conv_dim").filter(|dim| *dim > 0.0 && !case.family.flows())?;
    let own = if lycoris(case) { case.number("network_alpha") } else { Some(1.0) };
    let alpha = case.number("network_args.conv_alpha").or(own).unwrap_or(1.0);
    let mut targets = vec!["unet.*.conv1", "unet.*.conv2", "unet.*samplers.*.conv"];
    if lycoris(case) && whole {
        targets.extend(["unet.conv_in", "unet.conv_out"]);
    }
    Some(json!([{ "targets": targets, "rank": given as u64, "alpha": alpha }]))
}
