//! The run: how long, in what portions, and what is kept. sd-scripts counts in updates and passes, a recipe in pictures.

use serde_json::Value;

use crate::case::Case;
use crate::report::Verdict;
use crate::rule::Does::{By, No, Not, To};
use crate::rule::Takes::{Any, Flag, Number, Text};
use crate::rule::{Field, Rule};

const DEVICES: &str = "a run is on one device: sconce train --device cuda:0";

pub(super) static RULES: &[Rule] = &[
    Rule::new("max_train_steps", Number, By(steps)).said("1600"),
    Rule::new("max_train_epochs", Number, By(epochs)),
    Rule::new(
        "train_batch_size",
        Number,
        By(|c, f| match c.given("batch_size") {
            Some(dataset) => Verdict::Overruled(dataset.shown.clone()),
            None => {
                c.set("data.batch", f.value.clone());
                Verdict::went("data.batch")
            }
        }),
    )
    .said("1"),
    Rule::new(
        "batch_size",
        Number,
        By(|c, f| {
            if f.number() != Some(c.batch) {
                c.warn("batch_size differs between datasets; data.batch is one for all, and has the last of them");
            }
            c.set("data.batch", c.batch as u64);
            Verdict::went("data.batch")
        }),
    ),
    Rule::new("gradient_accumulation_steps", Number, To("train.accumulate")).usual("1"),
    Rule::new(
        "seed",
        Number,
        By(|c, f| match f.number() {
            Some(seed) if seed >= 0.0 => {
                c.set("train.seed", f.value.clone());
                Verdict::went("train.seed")
            }
            _ => {
                Verdict::no_place("a seed is 0 or more; without one it is 0, and two runs of a recipe are the same run")
            }
        }),
    ),
    Rule::new("save_every_n_steps", Number, By(every)),
    Rule::new("save_every_n_epochs", Number, By(every)),
    Rule::new(
        "save_n_epoch_ratio",
        Number,
        By(|c, f| {
            c.draft.ask(
                "train.save_every_images",
                &format!("train.images / {} (save_n_epoch_ratio)", f.number().unwrap_or(1.0)),
            );
            Verdict::near("train.save_every_images", "still to be said")
        }),
    ),
    Rule::new("save_last_n_epochs", Number, By(keep)),
    Rule::new("save_last_n_epochs_state", Number, By(keep)),
    Rule::new("save_last_n_steps", Number, By(keep_steps)),
    Rule::new("save_last_n_steps_state", Number, By(keep_steps)),
    Rule::new("save_state", Flag, Not("every checkpoint has all that a run goes on from")),
    Rule::new("save_state_on_train_end", Flag, Not("every checkpoint has all that a run goes on from")),
    Rule::new(
        "resume",
        Text,
        No("sconce train RECIPE --resume goes on with a run of sconce's own; another program's state \
             cannot be read"),
    ),
    Rule::new("initial_epoch", Number, No("a resumed run knows where it was")),
    Rule::new("initial_step", Number, No("a resumed run knows where it was")),
    Rule::new("skip_until_initial_step", Flag, No("a resumed run knows where it was")),
    Rule::new(
        "validation_split",
        Number,
        By(|c, f| match f.number() {
            Some(share) if share > 0.0 => {
                c.set("validation.share", share);
                c.draft.ask(
                    "validation.every_images",
                    "pictures between two validations: sd-scripts validates once a pass unless it is told",
                );
                Verdict::near("validation.share", "the pictures are held out by their content, the same in every run")
            }
            _ => Verdict::Default,
        }),
    )
    .usual("0.0"),
    Rule::new("validation_seed", Number, Not("what is held out depends on the pictures alone")),
    Rule::new("validate_every_n_steps", Number, By(every)),
    Rule::new("validate_every_n_epochs", Number, By(every)),
    Rule::new(
        "max_validation_steps",
        Number,
        No("validation.share says how much is held out, and all of that is used"),
    ),
    Rule::new("mem_eff_attn", Flag, Not("attention is always computed in blocks")),
    Rule::new("xformers", Flag, Not("attention is always computed in blocks")),
    Rule::new("sdpa", Flag, Not("attention is always computed in blocks")),
    Rule::new("diffusers_xformers", Flag, Not("attention is always computed in blocks")),
    Rule::new("torch_compile", Flag, Not("there is nothing to compile at run time")),
    Rule::new("dynamo_backend", Text, Not("there is nothing to compile at run time")),
    Rule::new("deepspeed", Flag, No(DEVICES)),
    Rule::new("zero_stage", Number, No(DEVICES)),
    Rule::new("zero3_*", Any, No(DEVICES)),
    Rule::new("offload_*", Any, No(DEVICES)),
    Rule::new("fp16_master_weights_and_gradients", Flag, No("train.weights says how weights that train are kept")),
    Rule::new("ddp_timeout", Number, No(DEVICES)),
    Rule::new("ddp_gradient_as_bucket_view", Flag, No(DEVICES)),
    Rule::new("ddp_static_graph", Flag, No(DEVICES)),
    Rule::new("launch.num_cpu_threads_per_process", Number, Not("threads are as many as the machine has")),
    Rule::new("launch.num_processes", Number, No(DEVICES)).usual("1"),
    Rule::new("launch.num_machines", Number, No(DEVICES)).usual("1"),
    Rule::new("launch.multi_gpu", Flag, No(DEVICES)),
    Rule::new("launch.*", Any, Not("it is about how accelerate starts the script")),
    Rule::new("config_file", Text, Not("what it says is read too")),
    Rule::new("output_config", Flag, Not("the resolved recipe is saved with every run")),
];

fn steps(case: &mut Case, field: &Field) -> Verdict {
    if let Some(epochs) = case.given("max_train_epochs") {
        return Verdict::Overruled(epochs.shown.clone());
    }
    let updates = field.number().unwrap_or_default();
    let (images, why) = (case.images(updates), case.product(updates));
    case.set_as("train.images", images, &why);
    if case.given("max_train_steps").is_none() && case.given("pretrained_model_name_or_path").is_some() {
        case.warn("neither max_train_steps nor max_train_epochs is said: sd-scripts then makes 1600 updates");
    }
    Verdict::went("train.images")
}

fn epochs(case: &mut Case, field: &Field) -> Verdict {
    let epochs = field.number().unwrap_or_default();
    case.draft.ask(
        "train.images",
        &format!(
            "{epochs} (max_train_epochs) times the pictures, each as often as its folder's `repeats`. \
             sd-scripts counts batches that are not full as whole ones; here a pass is as many pictures \
             as there are"
        ),
    );
    Verdict::near("train.images", "how many pictures there are is still to be said")
}

/// Something every so many updates or passes.
pub(super) fn every(case: &mut Case, field: &Field) -> Verdict {
    let path = match field.key.split('_').next() {
        Some("save") => "train.save_every_images",
        Some("sample") => "preview.every_images",
        _ => "validation.every_images",
    };
    let n = field.number().unwrap_or_default();
    if n <= 0.0 {
        return Verdict::Default;
    }
    if field.key.ends_with("epochs") {
        case.draft
            .ask(path, &format!("{n} ({}) times the pictures, each as often as its folder's `repeats`", field.key));
        return Verdict::near(path, "how many pictures there are is still to be said");
    }
    let (images, why) = (case.images(n), case.product(n));
    case.set_as(path, images, &why);
    Verdict::went(path)
}

fn keep(case: &mut Case, field: &Field) -> Verdict {
    let keep = field.number().unwrap_or(1.0).max(1.0);
    let every = case.number("save_every_n_epochs").unwrap_or(1.0).max(1.0);
    case.set("train.keep", (keep / every).ceil().max(1.0) as u64);
    Verdict::went("train.keep")
}

fn keep_steps(case: &mut Case, field: &Field) -> Verdict {
    match case.number("save_every_n_steps").filter(|n| *n > 0.0) {
        Some(every) => {
            case.set("train.keep", (field.number().unwrap_or_default() / every).floor().max(0.0) as u64 + 1);
            Verdict::went("train.keep")
        }
        None => Verdict::no_need("without save_every_n_steps it is not read"),
    }
}

/// Asks for what a run needs that has no default, and says what is kept where sd-scripts keeps all.
pub(super) fn missing(case: &mut Case) {
    if case.draft.has("validation.every_images") && !case.draft.has("validation.share") {
        case.draft.clear("validation");
    }
    if case.draft.has("train.save_every_images") && !case.draft.has("train.keep") {
        case.draft.ask(
            "train.keep",
            "how many checkpoints are kept: sd-scripts keeps all, and here it is 2 unless it is said",
        );
    }
    if case.learns == crate::case::Learns::Word {
        case.draft.ask("train.token.0.text", "the word, as captions and prompts say it: <penguin>");
        if !case.draft.has("train.token.0.from") {
            case.draft.ask("train.token.0.start", "a text near to what the word is to mean, or `from`, a file of it");
        }
        let word = case.draft.get("train.token.0.text").and_then(Value::as_str).unwrap_or("the word").to_owned();
        case.warn(format!(
            "the word is learned from captions that say it: `{word}` must stand in them, or in \
                 data.source.caption"
        ));
    }
}
