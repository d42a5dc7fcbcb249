//! The run: how long, in what portions, and what is kept.

use serde_json::Value;

use crate::case::Case;
use crate::report::Verdict;
use crate::rule::Does::{By, No, Not, Secret, To};
use crate::rule::Takes::{Any, Flag, Number, Text};
use crate::rule::{Field, Rule};

const DEVICES: &str = "a run is on one device: sconce train --device cuda:0";
const LOG: &str = "every run has log.jsonl and a TensorBoard log in its folder, by pictures seen";
const EVAL: &str = "validation has the run's own batch, on the run's own device";
const VIDEO: &str = "sconce trains pictures";

pub(super) static RULES: &[Rule] = &[
    Rule::new(
        "output_dir",
        Text,
        By(|c, f| {
            c.set("output.dir", f.text());
            Verdict::near("output.dir", "the run's own folder, where diffusion-pipe makes one in it for each run")
        }),
    ),
    Rule::new(
        "dataset",
        Text,
        By(|c, _| match c.given("directory[].path") {
            Some(_) => Verdict::went("data.source"),
            None => Verdict::near("data.source", "it could not be read, or names no folder"),
        }),
    ),
    Rule::new(
        "eval_datasets",
        Any,
        By(|c, f| match f.value.as_array().is_some_and(|a| !a.is_empty()) {
            true => {
                c.draft.ask(
                    "validation.share",
                    "the share of the pictures that is held out; put those of eval_datasets with the others",
                );
                c.draft.ask("validation.every_images", "pictures between two validations");
                Verdict::no_place("pictures are held out by share, the same in every run, and not by a folder")
            }
            false => Verdict::Default,
        }),
    ),
    Rule::new(
        "epochs",
        Number,
        By(|c, f| match c.given("max_steps") {
            Some(steps) => Verdict::Overruled(format!("{}, if it is reached first", steps.shown)),
            None => {
                c.draft.ask(
                    "train.images",
                    &format!("{} (epochs) times the pictures, each as often as its folder's `repeats`", f.value),
                );
                Verdict::near("train.images", "how many pictures there are is still to be said")
            }
        }),
    ),
    Rule::new("max_steps", Number, By(|c, f| steps(c, f, "train.images"))),
    Rule::new(
        "micro_batch_size_per_gpu",
        Any,
        By(|c, f| {
            c.set("data.batch", c.batch as u64);
            match f.value.is_array() {
                true => Verdict::near("data.batch", "the first of several: one batch for every resolution"),
                false => Verdict::went("data.batch"),
            }
        }),
    )
    .said("1"),
    Rule::new("image_micro_batch_size_per_gpu", Number, Not(VIDEO)),
    Rule::new("gradient_accumulation_steps", Number, To("train.accumulate")).usual("1"),
    Rule::new("pipeline_stages", Number, No(DEVICES)).usual("1"),
    Rule::new("partition_method", Text, Not(DEVICES)),
    Rule::new("partition_split", Any, Not(DEVICES)),
    Rule::new("reentrant_activation_checkpointing", Flag, Not("train.recompute is one way")),
    Rule::new(
        "activation_checkpointing",
        Any,
        By(|c, f| match &f.value {
            Value::Bool(false) => Verdict::Default,
            Value::Bool(true) => {
                c.set("train.recompute", "blocks");
                Verdict::went("train.recompute")
            }
            _ => {
                c.set("train.recompute", "blocks");
                Verdict::near("train.recompute", "blocks are computed again, none is moved to the host")
            }
        }),
    ),
    Rule::new("blocks_to_swap", Number, To("model.swap_blocks")).usual("0"),
    Rule::new("disable_block_swap_for_eval", Flag, Not("blocks are on the host throughout")),
    Rule::new("pseudo_huber_c", Number, By(huber)),
    Rule::new("huber_delta", Number, By(huber)),
    Rule::new("smooth_l1_beta", Number, By(huber)),
    Rule::new("uncond_fraction", Number, To("data.caption_dropout")).usual("0.0"),
    Rule::new("save_every_n_steps", Number, By(|c, f| steps(c, f, "train.save_every_images"))),
    Rule::new("save_every_n_examples", Number, To("train.save_every_images")),
    Rule::new("save_every_n_epochs", Number, By(|c, f| epochs(c, f, "train.save_every_images"))),
    Rule::new(
        "checkpoint_every_n_epochs",
        Number,
        By(|c, f| match c.given("save_every_n_epochs").is_some() || c.given("save_every_n_steps").is_some() {
            true => Verdict::no_need("every checkpoint has all that a run goes on from"),
            false => epochs(c, f, "train.save_every_images"),
        }),
    ),
    Rule::new(
        "checkpoint_every_n_minutes",
        Number,
        No("nothing is by the clock: train.save_every_images is by pictures seen; Ctrl-C saves too"),
    ),
    Rule::new("eval_every_n_steps", Number, By(|c, f| validated(c, f, steps))),
    Rule::new(
        "eval_every_n_examples",
        Number,
        By(|c, f| {
            validated(c, f, |c, f, path| {
                c.set(path, f.value.clone());
                Verdict::went(path)
            })
        }),
    ),
    Rule::new("eval_every_n_epochs", Number, By(|c, f| validated(c, f, epochs))),
    Rule::new("eval_before_first_step", Flag, Not("validation begins before the first update")),
    Rule::new("eval_micro_batch_size_per_gpu", Any, Not(EVAL)),
    Rule::new("eval_image_micro_batch_size_per_gpu", Any, Not(EVAL)),
    Rule::new("eval_gradient_accumulation_steps", Number, Not(EVAL)),
    Rule::new(
        "save_dtype",
        Text,
        By(|c, f| {
            let dtype = match f.text() {
                "float32" => "f32",
                "float16" => "f16",
                "bfloat16" => "bf16",
                _ => return Verdict::no_place("files are f32, f16 or bf16"),
            };
            c.set("output.dtype", dtype);
            Verdict::went("output.dtype")
        }),
    ),
    Rule::new("caching_batch_size", Number, Not("the encoder takes what fits")),
    Rule::new("map_num_proc", Number, Not("threads are as many as the machine has")),
    Rule::new("steps_per_print", Number, Not(LOG)),
    Rule::new("logging_steps", Number, Not(LOG)),
    Rule::new("x_axis_examples", Flag, Not(LOG)),
    Rule::new("compile", Flag, Not("there is nothing to compile at run time")),
    Rule::new("video_clip_mode", Text, Not(VIDEO)),
    Rule::new(
        "resume_from_checkpoint",
        Any,
        By(|_, f| match f.value == Value::Bool(false) {
            true => Verdict::Default,
            false => Verdict::no_place(
                "sconce train RECIPE --resume goes on with a run of sconce's own; another program's state \
                     cannot be read",
            ),
        }),
    ),
    Rule::new("regenerate_cache", Flag, Not("what is kept is checked against the files")),
    Rule::new("monitoring.wandb_api_key", Text, Secret("there is no log but TensorBoard's and log.jsonl")),
    Rule::new("monitoring.enable_wandb", Flag, No("there is no log but TensorBoard's and log.jsonl")),
    Rule::new("monitoring.*", Any, Not(LOG)),
];

/// So many updates, as pictures.
fn steps(case: &mut Case, field: &Field, path: &str) -> Verdict {
    let n = field.number().unwrap_or_default();
    let (images, why) = (case.images(n), case.product(n));
    case.set_as(path, images, &why);
    Verdict::went(path)
}

/// So many passes, whose pictures only the user can count.
fn epochs(case: &mut Case, field: &Field, path: &str) -> Verdict {
    case.draft.ask(
        path,
        &format!("{} ({}) times the pictures, each as often as its folder's `repeats`", field.value, field.shown),
    );
    Verdict::near(path, "how many pictures there are is still to be said")
}

/// How often there is validation, if there is any.
fn validated(case: &mut Case, field: &Field, when: fn(&mut Case, &Field, &str) -> Verdict) -> Verdict {
    match case.value("eval_datasets").as_array().is_some_and(|a| !a.is_empty()) {
        true => when(case, field, "validation.every_images"),
        false => Verdict::no_need(
            "without eval_datasets there is no evaluation; validation = { share = 0.05, every_images = \
                 1_000 } holds pictures out",
        ),
    }
}

fn huber(case: &mut Case, field: &Field) -> Verdict {
    if case.family == crate::family::Family::Sdxl {
        return Verdict::no_need("diffusion-pipe ignores it for SDXL");
    }
    let kind = if field.key == "smooth_l1_beta" { "smooth-l1" } else { "huber" };
    case.table(
        "distance",
        &serde_json::json!({ "type": kind, "c": field.value, "schedule": "constant" }),
        &field.shown,
    );
    match field.key.as_str() {
        "pseudo_huber_c" => Verdict::went("distance"),
        _ => Verdict::near(
            "distance",
            "the pseudo-Huber form, which turns smoothly, and twice what PyTorch's function gives",
        ),
    }
}
