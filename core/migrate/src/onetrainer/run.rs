//! The run: the model, how long, what is kept, and what only OneTrainer's windows and machines are about.

use serde_json::json;

use crate::case::{Case, Learns};
use crate::place::place;
use crate::report::Verdict;
use crate::rule::Does::{By, No, Not, To};
use crate::rule::Takes::{Flag, Number, Text};
use crate::rule::{Field, Rule};

const CHECKPOINTS: &str = "checkpoints are by pictures seen: train.save_every_images";

/// What is run.
pub(super) static RULES: &[Rule] = &[
    Rule::new(
        "training_method",
        Text,
        By(|c, f| match (c.learns, f.text()) {
            (Learns::Adapter, _) => Verdict::went("adapter"),
            (Learns::Word, _) => {
                super::word::missing(c);
                Verdict::went("train.token")
            }
            (Learns::Whole, "FINE_TUNE_VAE") => {
                c.set("train.task", "autoencoder");
                Verdict::went("train.task")
            }
            (Learns::Whole, _) => Verdict::no_need("without an [adapter] the components train whole"),
        }),
    )
    .usual("\"FINE_TUNE\""),
    Rule::new("model_type", Text, Not("sconce reads the family from the checkpoint")).usual("\"STABLE_DIFFUSION_15\""),
    Rule::new(
        "base_model_name",
        Text,
        By(|c, f| {
            c.set("model.path", place(f.text()));
            Verdict::went("model.path")
        }),
    )
    .said("\"stable-diffusion-v1-5/stable-diffusion-v1-5\""),
    Rule::new("train_dtype", Text, By(dtype)).said("\"FLOAT_16\""),
    Rule::new(
        "output_dtype",
        Text,
        By(|c, f| {
            let Some(dtype) = float(f.text()) else { return Verdict::no_place("files are f32, f16 or bf16") };
            c.set("output.dtype", dtype);
            Verdict::went("output.dtype")
        }),
    )
    .usual("\"FLOAT_32\""),
    Rule::new(
        "output_model_format",
        Text,
        By(|c, f| match f.text() {
            "DIFFUSERS" => Verdict::no_need("a diffusers folder is what is written"),
            "ORIGINAL_SINGLE_FILE" | "LEGACY_SAFETENSORS" => {
                c.set("output.model_layouts", json!(["single-file"]));
                Verdict::went("output.model_layouts")
            }
            "DIFFUSERS_LORA" => layout(c, "peft"),
            "KOHYA_LORA" | "LEGACY_LORA" => layout(c, "kohya"),
            "SAFETENSORS" => Verdict::no_need("files are in safetensors"),
            other => Verdict::no_place(format!(
                "there is no layout like {other}: output.model_layouts and output.adapter_layouts"
            )),
        }),
    )
    .usual("\"SAFETENSORS\""),
    Rule::new(
        "output_model_destination",
        Text,
        By(|c, f| {
            let name =
                f.text().rsplit(['/', '\\']).next().unwrap_or_default().trim_end_matches(".safetensors").to_owned();
            c.set("output.title", name);
            Verdict::near("output.title", "files are in the run's folder (output.dir)")
        }),
    ),
    Rule::new("workspace_dir", Text, To("output.dir")),
    Rule::new("batch_size", Number, To("data.batch")).said("1"),
    Rule::new("gradient_accumulation_steps", Number, To("train.accumulate")).usual("1"),
    Rule::new(
        "epochs",
        Number,
        By(|c, f| {
            c.draft.ask(
                "train.images",
                &format!("{} (epochs) times the pictures, each as often as its folder's `repeats`", f.value),
            );
            Verdict::near("train.images", "how many pictures there are is still to be said")
        }),
    )
    .said("100"),
    Rule::new(
        "resolution",
        Text,
        By(|c, f| match sides(f.text()).as_slice() {
            [] => Verdict::no_place("it is no size in pixels"),
            [side] => c.source(f, "resolution_px", side.round() as u64),
            [side, ..] => {
                let side = side.round() as u64;
                c.source(f, "resolution_px", side);
                Verdict::near(
                    "data.source.resolution_px",
                    "the first of several: write the folder again with each of the others",
                )
            }
        }),
    )
    .said("\"512\""),
    Rule::new("ema", Text, By(ema)).usual("\"OFF\""),
    Rule::new("ema_decay", Number, By(averaged)).usual("0.999"),
    Rule::new("ema_update_step_interval", Number, By(averaged)).usual("5"),
    Rule::new(
        "validation",
        Flag,
        By(|c, f| match f.flag() {
            true => {
                c.draft.ask(
                    "validation.share",
                    "the share of the pictures that is held out; put the validation concept's pictures with the \
                         others",
                );
                c.draft.ask("validation.every_images", "pictures between two validations");
                Verdict::near("validation", "pictures are held out by share, and not by a folder")
            }
            false => Verdict::Default,
        }),
    ),
    Rule::new(
        "validate_after",
        Number,
        By(|c, f| match c.flag("validation") {
            true => every(c, f, "validation.every_images"),
            false => Verdict::no_need("without validation it is not read"),
        }),
    )
    .usual("1"),
    Rule::new("validate_after_unit", Text, Not("it belongs to validate_after")),
    Rule::new("save_every", Number, By(|c, f| every(c, f, "train.save_every_images"))).usual("0"),
    Rule::new("save_every_unit", Text, Not("it belongs to save_every")),
    Rule::new("save_skip_first", Number, No(CHECKPOINTS)).usual("0"),
    Rule::new("save_filename_prefix", Text, No("checkpoints are folders in the run's, named by the pictures seen"))
        .usual("\"\""),
    Rule::new(
        "backup_after",
        Number,
        By(|c, f| match c.number("save_every") {
            Some(n) if n > 0.0 => {
                Verdict::no_need("every checkpoint has all that a run goes on from: save_every is it")
            }
            _ => every(c, f, "train.save_every_images"),
        }),
    )
    .usual("30"),
    Rule::new("backup_after_unit", Text, Not("it belongs to backup_after")),
    Rule::new("rolling_backup", Flag, Not("train.keep says how many are kept")),
    Rule::new(
        "rolling_backup_count",
        Number,
        By(|c, f| match c.flag("rolling_backup") {
            true => {
                c.set("train.keep", f.number().unwrap_or(1.0).max(1.0) as u64);
                Verdict::went("train.keep")
            }
            false => Verdict::no_need("without rolling_backup it is not read"),
        }),
    )
    .usual("3"),
    Rule::new("backup_before_save", Flag, Not("every checkpoint has all that a run goes on from")),
    Rule::new(
        "continue_last_backup",
        Flag,
        By(|_, f| match f.flag() {
            true => Verdict::no_place("sconce train RECIPE --resume goes on with a run of sconce's own"),
            false => Verdict::Default,
        }),
    ),
];

/// The sides of squares of the areas in `512`, `1024x768` or `512,768`.
pub(super) fn sides(text: &str) -> Vec<f64> {
    let one = |part: &str| {
        let (w, h) = part.split_once('x').unwrap_or((part, part));
        let (w, h): (f64, f64) = (w.trim().parse().ok()?, h.trim().parse().ok()?);
        (w >= 1.0 && h >= 1.0 && w.max(h) <= 1e5).then(|| (w * h).sqrt())
    };
    text.split(',').map_while(one).collect()
}

fn float(name: &str) -> Option<&'static str> {
    match name {
        "FLOAT_32" | "TFLOAT_32" => Some("f32"),
        "FLOAT_16" => Some("f16"),
        "BFLOAT_16" => Some("bf16"),
        _ => None,
    }
}

fn dtype(case: &mut Case, field: &Field) -> Verdict {
    let Some(dtype) = float(field.text()) else { return Verdict::no_place("a model computes in f32, f16 or bf16") };
    case.set("model.dtype", dtype);
    match field.text() {
        "FLOAT_16" => Verdict::near("model.dtype", "there is no loss scaling: prefer bf16 where the device has it"),
        "TFLOAT_32" => Verdict::near("model.dtype", "in full: bf16 is the fast one"),
        _ => Verdict::went("model.dtype"),
    }
}

fn layout(case: &mut Case, name: &str) -> Verdict {
    if case.learns != Learns::Adapter {
        return Verdict::no_need("the run trains no adapter");
    }
    if !case.draft.has("output.adapter_layouts") {
        case.set("output.adapter_layouts", json!([name]));
    }
    Verdict::went("output.adapter_layouts")
}

fn ema(case: &mut Case, field: &Field) -> Verdict {
    if field.text() == "OFF" {
        return Verdict::Default;
    }
    let every = case.number("ema_update_step_interval").unwrap_or(5.0).max(1.0);
    let decay = case.number("ema_decay").unwrap_or(0.999).clamp(0.0, 1.0);
    let each = (decay.powf(1.0 / every) * 1e7).round() / 1e7;
    case.set("ema.type", "constant");
    case.set_as("ema.decay", each, &format!("ema_decay {decay} once in {every} updates (ema_update_step_interval)"));
    Verdict::went("ema.type")
}

fn averaged(case: &mut Case, _: &Field) -> Verdict {
    match case.text("ema") == "OFF" {
        true => Verdict::no_need("without ema it is not read"),
        false => Verdict::went("ema.decay"),
    }
}

/// Something every so many steps or passes.
pub(super) fn every(case: &mut Case, field: &Field, path: &str) -> Verdict {
    let n = field.number().unwrap_or_default();
    let unit_of = format!("{}_unit", field.key);
    let unit = match (case.text(&unit_of), field.key.as_str()) {
        (unit, _) if !unit.is_empty() => unit,
        (_, "save_every") => "NEVER".to_owned(),
        (_, "validate_after") => "EPOCH".to_owned(),
        _ => "MINUTE".to_owned(),
    };
    if n <= 0.0 || unit == "NEVER" {
        return Verdict::no_need("never");
    }
    match unit.as_str() {
        "STEP" => {
            // Its steps are batches, also where several make an update.
            let images = (n * case.batch).round().clamp(0.0, 1e15) as u64;
            case.set_as(path, images, &format!("{}: {n} batches of {}", field.shown, case.batch));
            Verdict::went(path)
        }
        "EPOCH" => {
            case.draft.ask(
                path,
                &format!("{n} ({}) times the pictures, each as often as its folder's `repeats`", field.shown),
            );
            Verdict::near(path, "how many pictures there are is still to be said")
        }
        _ => Verdict::no_place(format!(
            "nothing is by the clock: {path} is by pictures seen, and the log says how many there are in \
                 a minute"
        )),
    }
}
