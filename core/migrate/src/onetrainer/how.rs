//! How OneTrainer runs and shows what it does: its windows, its machines, its logs. Little of it is for a recipe.

use crate::rule::Does::{No, Not, Secret};
use crate::rule::Rule;
use crate::rule::Takes::{Any, Flag, List, Number, Text};

const LOG: &str = "every run has log.jsonl and a TensorBoard log in its folder";
const DEVICES: &str = "a run is on one device: sconce train --device cuda:0";

pub(super) static RULES: &[Rule] = &[
    Rule::new("__version", Any, Not("the layout of OneTrainer's own files")),
    Rule::new("debug_mode", Flag, No("`sconce check` and the log tell what a run does")),
    Rule::new("debug_dir", Text, Not("`sconce check` and the log tell what a run does")),
    Rule::new("huggingface_cache_dir", Text, Not("the Hub's cache is where HF_HOME says")).usual("\"\""),
    Rule::new("offline_mode", Flag, No("HF_HUB_OFFLINE=1 asks nobody")),
    Rule::new("tensorboard", Flag, Not(LOG)),
    Rule::new("tensorboard_expose", Flag, Not(LOG)),
    Rule::new("tensorboard_always_on", Flag, Not(LOG)),
    Rule::new("tensorboard_port", Any, Not(LOG)),
    Rule::new("samples_to_tensorboard", Flag, Not(LOG)),
    Rule::new("prevent_overwrites", Flag, Not("a run never writes over another's files")),
    Rule::new("include_train_config", Text, Not("the recipe is in every file's header")),
    Rule::new("multi_gpu", Flag, No(DEVICES)),
    Rule::new("device_indexes", Text, No(DEVICES)).usual("\"\""),
    Rule::new("gradient_reduce_precision", Text, Not(DEVICES)),
    Rule::new("fused_gradient_reduce", Flag, Not(DEVICES)),
    Rule::new("async_gradient_reduce", Flag, Not(DEVICES)),
    Rule::new("async_gradient_reduce_buffer", Number, Not(DEVICES)),
    Rule::new("train_device", Text, Not("the device is said when a run is started: --device cuda:0")),
    Rule::new("temp_device", Text, Not("what is not used is not on the device")),
    Rule::new("dataloader_threads", Number, Not("pictures are read ahead by themselves")),
    Rule::new(
        "fallback_train_dtype",
        Text,
        Not("an operation that overflows in f16 is computed in a wider type by itself"),
    ),
    Rule::new("enable_autocast_cache", Flag, Not("there is no such cache")),
    Rule::new("attention_mechanism", Text, Not("attention is always computed in blocks")),
    Rule::new("compile", Flag, Not("there is nothing to compile at run time")),
    Rule::new("force_circular_padding", Flag, No("convolutions are padded as the model's are: tiles are not trained")),
    Rule::new("frames", Text, Not("sconce trains pictures")),
    Rule::new("cloud", Any, Secret("sconce runs where it is started")),
    Rule::new("secrets", Any, Secret("the Hub's token is that of its login, or HF_TOKEN")),
    Rule::new("concepts_window", List, Not("it is about a window")),
];
