//! The model: its files, how they are kept in memory, and what it predicts.

use serde_json::json;

use crate::case::{Case, Learns};
use crate::family::Family;
use crate::place::place;
use crate::report::Verdict;
use crate::rule::Does::{By, No, Not};
use crate::rule::Takes::{Flag, List, Number, Text};
use crate::rule::{Field, Rule};

const FAMILY: &str = "sconce reads the family from the checkpoint";

pub(super) static RULES: &[Rule] = &[
    Rule::new(
        "pretrained_model_name_or_path",
        Text,
        By(|c, f| {
            c.set("model.path", place(f.text()));
            Verdict::went("model.path")
        }),
    ),
    Rule::new("v2", Flag, Not(FAMILY)),
    Rule::new("sdxl", Flag, Not(FAMILY)),
    Rule::new(
        "model_type",
        Text,
        By(|_, f| match f.text() {
            "flux" => Verdict::Default,
            other => Verdict::no_place(format!("sconce has no model of the family {other}")),
        }),
    )
    .usual("\"flux\""),
    Rule::new("vae", Text, By(|c, f| c.entry_of("model.files", "vae", place(f.text())))),
    Rule::new("ae", Text, By(|c, f| c.entry_of("model.files", "vae", place(f.text())))),
    Rule::new("clip_l", Text, By(|c, f| c.entry_of("model.files", "text_encoder", place(f.text())))),
    Rule::new("clip_g", Text, By(|c, f| c.entry_of("model.files", "text_encoder_2", place(f.text())))),
    Rule::new("t5xxl", Text, By(t5)),
    Rule::new(
        "t5xxl_max_token_length",
        Number,
        By(|c, f| {
            c.set("model.max_sequence_length", f.value.clone());
            Verdict::went("model.max_sequence_length")
        }),
    ),
    Rule::new("t5xxl_device", Text, No("text encoders leave the device by themselves once all is encoded")),
    Rule::new("t5xxl_dtype", Text, No("model.quantise says how a text encoder is kept: { text_encoder_3 = \"int8\" }")),
    Rule::new("apply_t5_attn_mask", Flag, No("T5's padding is attended to, as in the models' own pipelines")),
    Rule::new("apply_lg_attn_mask", Flag, No("padding is attended to, as in the models' own pipelines")),
    Rule::new("tokenizer_cache_dir", Text, Not("tokenizers are inside the program, or beside the model")),
    Rule::new("controlnet_model_name_or_path", Text, No("sconce trains no ControlNet")),
    Rule::new("mixed_precision", Text, By(precision)).said("\"no\""),
    Rule::new(
        "launch.mixed_precision",
        Text,
        By(|c, f| match c.given("mixed_precision") {
            Some(said) => Verdict::Overruled(said.shown.clone()),
            None => precision(c, f),
        }),
    ),
    Rule::new(
        "full_bf16",
        Flag,
        By(|c, f| match f.flag() {
            true => {
                c.set("train.weights", "bf16-stochastic");
                Verdict::near(
                    "train.weights",
                    "updates are rounded at random, where sd-scripts loses those that bf16 cannot hold",
                )
            }
            false => Verdict::Default,
        }),
    ),
    Rule::new(
        "full_fp16",
        Flag,
        No("weights that train are f32, or bf16 with stochastic rounding (train.weights): f16 loses \
         small gradients"),
    ),
    Rule::new("fp8_base", Flag, By(fp8)),
    Rule::new("fp8_base_unet", Flag, By(fp8)),
    Rule::new(
        "blocks_to_swap",
        Number,
        By(|c, f| {
            c.set("model.swap_blocks", f.value.clone());
            Verdict::went("model.swap_blocks")
        }),
    ),
    Rule::new("double_blocks_to_swap", Number, No("model.swap_blocks counts the blocks of both kinds")),
    Rule::new("single_blocks_to_swap", Number, No("model.swap_blocks counts the blocks of both kinds")),
    Rule::new("split_mode", Flag, No("model.swap_blocks keeps blocks on the host")),
    Rule::new(
        "gradient_checkpointing",
        Flag,
        By(|c, f| match f.flag() {
            true => {
                c.set("train.recompute", "blocks");
                Verdict::went("train.recompute")
            }
            false => Verdict::Default,
        }),
    ),
    Rule::new(
        "cpu_offload_checkpointing",
        Flag,
        No("activations stay on the device, or are computed again (train.recompute)"),
    ),
    Rule::new("no_half_vae", Flag, Not("an autoencoder that overflows in f16 is run in a wider type by itself")),
    Rule::new(
        "clip_skip",
        Number,
        By(|c, f| match (f.number(), c.family) {
            (Some(2.0), Family::Sdxl) => Verdict::no_need("SDXL always takes the last layer but one"),
            (Some(1.0), _) => Verdict::Default,
            _ => Verdict::no_place(
                "the text encoder's output is that of the model's own pipeline: pictures sampled with clip \
             skip elsewhere will differ a little",
            ),
        }),
    ),
    Rule::new("max_token_length", Number, No("a prompt has the 77 tokens of CLIP: what is longer is cut off")),
    Rule::new("base_weights", List, No("merge them into the model first: sconce merge MODEL OUT --lora FILE:STRENGTH")),
    Rule::new("base_weights_multiplier", List, No("it is the STRENGTH in sconce merge MODEL OUT --lora FILE:STRENGTH")),
    Rule::new("v_parameterization", Flag, By(objective)),
    Rule::new("zero_terminal_snr", Flag, By(terminal)),
    Rule::new(
        "guidance_scale",
        Number,
        By(|c, f| match c.family {
            Family::Flux => {
                c.set("train.guidance", f.value.clone());
                if f.number() != Some(1.0) {
                    c.warn(
                        "guidance_scale is 3.5 unless it is said: FLUX.1-dev is then told in training that its \
                     output is guided, and learns from pictures that are not; 1.0 is sconce's default, and \
                     sd-scripts' documentation recommends it",
                    );
                }
                Verdict::went("train.guidance")
            }
            _ => Verdict::no_need("only FLUX.1-dev is told one"),
        }),
    )
    .said("3.5"),
    Rule::new("model_prediction_type", Text, By(prediction)).said("\"sigma_scaled\""),
    Rule::new(
        "pos_emb_random_crop_rate",
        Number,
        No("positions are those of the picture's middle, as in the model's pipeline"),
    )
    .usual("0.0"),
    Rule::new("enable_scaled_pos_embed", Flag, No("positions are those of the model's pipeline at every size")),
    Rule::new(
        "num_last_block_to_freeze",
        Number,
        No("a group with the factor 0 freezes layers: [[train.group]] targets = [\"…\"], lr_factor = 0.0"),
    ),
    Rule::new("disable_mmap_load_safetensors", Flag, Not("weights are read where they are")),
    Rule::new("lowram", Flag, Not("what is not used is not in memory")),
    Rule::new("highvram", Flag, Not("what is not used is not in memory")),
];

fn t5(case: &mut Case, field: &Field) -> Verdict {
    let component = case.family.t5().unwrap_or("text_encoder_3");
    if case.family == Family::Flux {
        case.warn(
            "a single file of T5 has no tokenizer: name it too, model.files.tokenizer_2 = \
             \"t5/tokenizer.json\", or give a diffusers folder as model.path",
        );
    }
    case.entry_of("model.files", component, place(field.text()))
}

fn precision(case: &mut Case, field: &Field) -> Verdict {
    let dtype = match field.text() {
        "bf16" => "bf16",
        "fp16" => "f16",
        "no" => "f32",
        other => return Verdict::no_place(format!("`{other}` is no precision that sconce has: bf16, f16, f32")),
    };
    if field.key == "mixed_precision"
        && case.given("mixed_precision").is_none()
        && case.given("launch.mixed_precision").is_some()
    {
        return Verdict::Default;
    }
    case.set("model.dtype", dtype);
    match dtype {
        "f16" => Verdict::near("model.dtype", "there is no loss scaling: prefer bf16 where the device has it"),
        _ => Verdict::went("model.dtype"),
    }
}

fn fp8(case: &mut Case, field: &Field) -> Verdict {
    match (field.flag(), case.learns) {
        (false, _) => Verdict::Default,
        (true, Learns::Adapter) => case.entry_of("model.quantise", case.family.denoiser(), "fp8"),
        (true, _) => Verdict::no_place("only weights that do not train are kept in few bits"),
    }
}

fn objective(case: &mut Case, field: &Field) -> Verdict {
    if !field.flag() {
        return Verdict::Default;
    }
    if case.family.flows() {
        return Verdict::no_need("sd-scripts ignores it for rectified flows");
    }
    case.set("objective.type", "v");
    if !case.flag("zero_terminal_snr") && case.family == Family::Sdxl {
        case.warn(
            "v_parameterization without zero_terminal_snr: sd-scripts trains on the plain schedule, \
                 whatever the checkpoint was trained on; the recipe leaves the schedule to the checkpoint, \
                 which may be a zero-terminal one",
        );
    }
    if case.family != Family::Sd2 {
        case.draft.ask(
            "model.convert",
            "{ over_images = 0 } if the checkpoint predicts epsilon on its old schedule and is to be \
             trained to v as sd-scripts does it, at once; no line if it predicts v already. `sconce \
             check` tells which it is",
        );
    }
    Verdict::went("objective.type")
}

fn terminal(case: &mut Case, field: &Field) -> Verdict {
    match (field.flag(), case.flag("v_parameterization"), case.family.flows()) {
        (false, ..) => Verdict::Default,
        (true, _, true) => Verdict::no_need("a rectified flow ends in pure noise"),
        (true, false, _) => Verdict::no_place(
            "with epsilon there is nothing to learn where no signal is left, and nothing can be sampled \
                 from there: sconce refuses what sd-scripts only warns of. Say objective.type = \"v\" and \
                 the schedule `zero-terminal` to have both",
        ),
        (true, true, false) => {
            case.table(
                "schedule",
                &json!({ "type": "zero-terminal", "of": { "type": "scaled-linear" } }),
                "zero_terminal_snr",
            );
            case.set_as(
                "sampling.spacing",
                "trailing",
                "zero_terminal_snr: leading never starts in pure noise, and sd-scripts' own previews are \
                     sampled on the old schedule",
            );
            if ["noise_offset", "multires_noise_iterations"].iter().any(|k| case.number(k).is_some_and(|x| x > 0.0)) {
                case.warn(
                    "noise offset and pyramid noise are a makeshift for schedules that do not end in pure noise; \
                         on zero-terminal ones take them out, or say fade = \"with-signal\"",
                );
            }
            Verdict::went("schedule")
        }
    }
}

fn prediction(case: &mut Case, field: &Field) -> Verdict {
    match (case.family, field.text()) {
        (Family::Flux, "raw") => Verdict::no_need("the network's output is the velocity"),
        (Family::Flux, other) => {
            case.warn(format!(
                "model_prediction_type is `{other}` ({}): sd-scripts then compares something else than the \
                     network's output with the velocity. The recipe trains the velocity, as `raw` does and \
                     sd-scripts' documentation recommends",
                if case.given("model_prediction_type").is_some() { "as the configuration says" } else { "the default" }
            ));
            Verdict::no_place("the network's output is compared with the velocity, as with `raw`")
        }
        _ => Verdict::no_need("only FLUX.1's scripts read it"),
    }
}
