//! What is written, logged and uploaded.

use serde_json::json;

use crate::case::Learns;
use crate::report::Verdict;
use crate::rule::Does::{By, No, Not, Secret, To};
use crate::rule::Rule;
use crate::rule::Takes::{Any, Flag, Text};

const HUB: &str = "sconce push RUN hf://owner/name uploads what a run made";
const LOG: &str = "every run has log.jsonl and a TensorBoard log in its folder";

pub(super) static RULES: &[Rule] = &[
    Rule::new("output_dir", Text, To("output.dir")),
    Rule::new("output_name", Text, To("output.title")),
    Rule::new(
        "save_precision",
        Text,
        By(|c, f| {
            let dtype = match f.text() {
                "float" | "fp32" => "f32",
                "fp16" => "f16",
                "bf16" => "bf16",
                other => return Verdict::no_place(format!("`{other}` is no type that sconce writes: f32, f16, bf16")),
            };
            c.set("output.dtype", dtype);
            Verdict::went("output.dtype")
        }),
    ),
    Rule::new(
        "save_model_as",
        Text,
        By(|c, f| match (c.learns, f.text()) {
            (Learns::Whole, "diffusers" | "diffusers_safetensors") => {
                Verdict::no_need("a diffusers folder is what is written")
            }
            (Learns::Whole, kind) => {
                c.set("output.model_layouts", json!(["single-file"]));
                if kind == "ckpt" {
                    Verdict::near("output.model_layouts", "in safetensors")
                } else {
                    Verdict::went("output.model_layouts")
                }
            }
            (Learns::Adapter, "safetensors") => {
                Verdict::no_need("files are in safetensors, in PEFT's layout and in kohya's")
            }
            (_, "safetensors") => Verdict::no_need("files are in safetensors"),
            _ => Verdict::no_place("files are in safetensors alone, which every program reads"),
        }),
    ),
    Rule::new("use_safetensors", Flag, Not("files are in safetensors")),
    Rule::new("mem_eff_save", Flag, Not("files are written tensor by tensor")),
    Rule::new("save_clip", Flag, No("a component that trains is written")),
    Rule::new("save_t5xxl", Flag, No("a component that trains is written")),
    Rule::new("no_metadata", Flag, No("a file says by which recipe it was made")),
    Rule::new("training_comment", Text, No("a file's header has output.title, and the recipe")),
    Rule::new("metadata_title", Text, To("output.title")),
    Rule::new("metadata_*", Any, No("a file's header has output.title, and the recipe")),
    Rule::new("logging_dir", Text, Not(LOG)),
    Rule::new(
        "log_with",
        Text,
        By(|_, f| match f.text() {
            "tensorboard" => Verdict::no_need(LOG),
            _ => Verdict::no_place("there is no log but TensorBoard's and log.jsonl"),
        }),
    ),
    Rule::new("log_prefix", Text, Not(LOG)),
    Rule::new("log_tracker_name", Text, Not(LOG)),
    Rule::new("log_tracker_config", Any, Not(LOG)),
    Rule::new("log_config", Flag, Not(LOG)),
    Rule::new("wandb_run_name", Text, Not(LOG)),
    Rule::new("wandb_api_key", Text, Secret("there is no log but TensorBoard's and log.jsonl")),
    Rule::new("console_log_level", Text, Not(LOG)),
    Rule::new("console_log_file", Text, Not(LOG)),
    Rule::new("console_log_simple", Flag, Not(LOG)),
    Rule::new("huggingface_repo_id", Text, No(HUB)),
    Rule::new("huggingface_repo_type", Text, No(HUB)),
    Rule::new("huggingface_path_in_repo", Text, No(HUB)),
    Rule::new("huggingface_repo_visibility", Text, No(HUB)),
    Rule::new("huggingface_token", Text, Secret("the token is that of `hf auth login`, or HF_TOKEN")),
    Rule::new("save_state_to_huggingface", Flag, No(HUB)),
    Rule::new("resume_from_huggingface", Flag, No(HUB)),
    Rule::new("async_upload", Flag, No(HUB)),
];
