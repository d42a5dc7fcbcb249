//! Pictures and captions: the arguments, and the same words in a dataset's TOML.

use serde_json::{Value, json};

use crate::case::Case;
use crate::report::Verdict;
use crate::rule::Does::{By, No, Not};
use crate::rule::Takes::{Any, Flag, List, Number, Text};
use crate::rule::{Field, Rule};

const SHUFFLE: &str = "captions are read as they are: each is encoded once, and kept. Write the tags in several \
     orders with a script of your own, as copies of the picture, if their order is to mean \
     nothing";
const CROP: &str = "pictures are resized and cropped from the middle alone";
const BUCKETS: &str = "buckets have the area of resolution_px, in steps that the model takes";
const CACHE: &str = "latents, and encodings of captions that do not train, are always kept on disk, and are \
         checked against the files";

pub(super) static RULES: &[Rule] = &[
    Rule::new(
        "dataset_config",
        Text,
        By(|c, _| match c.draft.has("data.source.0.path") || c.given("image_dir").is_some() {
            true => Verdict::went("data.source"),
            false => Verdict::near("data.source", "it could not be read, or names no folder"),
        }),
    ),
    Rule::new("train_data_dir", Text, By(folder)),
    Rule::new("image_dir", Text, By(|c, f| c.source(f, "path", f.text()))),
    Rule::new(
        "in_json",
        Text,
        No("captions in one file are metadata.jsonl in the folder: one line { \"file_name\": …, \
                 \"text\": … } a picture"),
    ),
    Rule::new(
        "metadata_file",
        Text,
        No("captions in one file are metadata.jsonl in the folder: one line { \"file_name\": …, \
                 \"text\": … } a picture"),
    ),
    Rule::new(
        "reg_data_dir",
        Text,
        No("add it as a [[data.source]], with repeats that make it count as much as the training \
             pictures; there is no weight of its own (prior_loss_weight)"),
    ),
    Rule::new(
        "is_reg",
        Flag,
        By(|c, f| match f.flag() {
            true => {
                c.warn(
                    "sd-scripts repeats regularisation pictures, or leaves some out, until they are as many as \
                     the others; here their `repeats` say how much they count",
                );
                Verdict::near("data.source", "as any other folder")
            }
            false => Verdict::Default,
        }),
    ),
    Rule::new("prior_loss_weight", Number, No("folders have no weights: repeats say how much each counts"))
        .usual("1.0"),
    Rule::new("num_repeats", Number, By(repeats)).usual("1"),
    Rule::new("dataset_repeats", Number, By(repeats)).usual("1"),
    Rule::new(
        "class_tokens",
        Text,
        No("it is the caption of pictures that have no file of one: write such files, or, where none \
             has one, data.source.caption = \"…\""),
    ),
    Rule::new("caption_extension", Text, By(extension)).said("\".caption\""),
    Rule::new("caption_extention", Text, By(extension)),
    Rule::new("caption_prefix", Text, By(affixes)).usual("\"\""),
    Rule::new("caption_suffix", Text, By(affixes)).usual("\"\""),
    Rule::new("caption_separator", Text, Not("captions are not taken apart")).usual("\",\""),
    Rule::new("caption_dropout_rate", Number, By(dropout)).usual("0.0"),
    Rule::new(
        "caption_dropout_every_n_epochs",
        Number,
        By(|_, f| {
            Verdict::no_place(format!(
                "captions are dropped at random: data.caption_dropout = {:.3} drops as many",
                1.0 / f.number().unwrap_or(1.0).max(1.0)
            ))
        }),
    )
    .usual("0"),
    Rule::new("caption_tag_dropout_rate", Number, No(SHUFFLE)).usual("0.0"),
    Rule::new("shuffle_caption", Flag, No(SHUFFLE)),
    Rule::new(
        "keep_tokens",
        Number,
        By(|c, _| match c.flag("shuffle_caption") {
            true => Verdict::no_place(SHUFFLE),
            false => Verdict::no_need("captions are not shuffled"),
        }),
    )
    .usual("0"),
    Rule::new("keep_tokens_separator", Text, No(SHUFFLE)).usual("\"\""),
    Rule::new("secondary_separator", Text, No(SHUFFLE)),
    Rule::new("enable_wildcard", Flag, No(SHUFFLE)),
    Rule::new("weighted_captions", Flag, No("captions have no weights: parentheses are words")),
    Rule::new("token_warmup_min", Number, No(SHUFFLE)).usual("1"),
    Rule::new("token_warmup_step", Number, No(SHUFFLE)).usual("0"),
    Rule::new(
        "flip_aug",
        Flag,
        By(|c, f| match f.flag() {
            true => c.source(f, "flip", "horizontal"),
            false => Verdict::Default,
        }),
    ),
    Rule::new("color_aug", Flag, No("colours are left as they are: a model learns what it is shown")),
    Rule::new("face_crop_aug_range", Any, No(CROP)),
    Rule::new("random_crop", Flag, No(CROP)),
    Rule::new(
        "alpha_mask",
        Flag,
        By(|c, f| match f.flag() {
            true => c.source(f, "mask", "alpha"),
            false => Verdict::Default,
        }),
    ),
    Rule::new(
        "resolution",
        Any,
        By(|c, f| match side(&f.value) {
            Some((side, square)) => {
                let verdict = c.source(f, "resolution_px", side.round() as u64);
                if square {
                    verdict
                } else {
                    Verdict::near("data.source.resolution_px", "the side of a square of its area")
                }
            }
            None => Verdict::no_place("it is no size in pixels"),
        }),
    ),
    Rule::new("enable_bucket", Flag, By(|c, f| c.source(f, "aspect", if f.flag() { "buckets" } else { "square" })))
        .said("false"),
    Rule::new("min_bucket_reso", Number, No(BUCKETS)).usual("256"),
    Rule::new("max_bucket_reso", Number, No(BUCKETS)).usual("1024"),
    Rule::new("bucket_reso_steps", Number, No(BUCKETS)).usual("64"),
    Rule::new(
        "bucket_no_upscale",
        Flag,
        No("small pictures are enlarged, and told; data.source.smallest_px leaves those out that are \
             too small"),
    ),
    Rule::new("resize_interpolation", Text, No("pictures are resized in one way, with a filter that keeps them sharp")),
    Rule::new("network_multiplier", Number, No("an adapter trains at full strength")).usual("1.0"),
    Rule::new("custom_attributes", Any, No("folders have no attributes of the user's")),
    Rule::new("cache_latents", Flag, Not(CACHE)),
    Rule::new("cache_latents_to_disk", Flag, Not(CACHE)),
    Rule::new("cache_text_encoder_outputs", Flag, Not(CACHE)),
    Rule::new("cache_text_encoder_outputs_to_disk", Flag, Not(CACHE)),
    Rule::new("use_t5xxl_cache_only", Flag, Not(CACHE)),
    Rule::new("skip_cache_check", Flag, Not(CACHE)),
    Rule::new("skip_latents_validity_check", Flag, Not(CACHE)),
    Rule::new("cache_info", Flag, Not(CACHE)),
    Rule::new("vae_batch_size", Number, Not("the encoder takes what fits")).usual("1"),
    Rule::new("text_encoder_batch_size", Number, Not("the encoder takes what fits")),
    Rule::new("max_data_loader_n_workers", Number, Not("pictures are read ahead by themselves")).usual("8"),
    Rule::new("persistent_data_loader_workers", Flag, Not("pictures are read ahead by themselves")),
    Rule::new("debug_dataset", Flag, Not("`sconce check` tells what becomes of every picture")),
    Rule::new("dataset_class", Text, No("pictures are in a folder, a metadata.jsonl or Parquet files")),
    Rule::new("clip_l_dropout_rate", Number, No("data.caption_dropout drops a caption for all encoders together"))
        .usual("0.0"),
    Rule::new("clip_g_dropout_rate", Number, No("data.caption_dropout drops a caption for all encoders together"))
        .usual("0.0"),
    Rule::new("t5_dropout_rate", Number, No("data.caption_dropout drops a caption for all encoders together"))
        .usual("0.0"),
    Rule::new("text_encoder_dropout", List, No("data.caption_dropout drops a caption for all encoders together")),
];

fn folder(case: &mut Case, field: &Field) -> Verdict {
    if case.given("image_dir").is_some() {
        return Verdict::Overruled("the dataset's configuration".into());
    }
    case.warn(
        "train_data_dir holds folders like `10_name`, which say how often their pictures count: each \
         of them is a [[data.source]] of its own here, with path and repeats",
    );
    case.source(field, "path", field.text());
    Verdict::near("data.source.path", "one [[data.source]] for each folder in it")
}

fn repeats(case: &mut Case, field: &Field) -> Verdict {
    case.source(field, "repeats", field.number().unwrap_or(1.0).max(1.0) as u64)
}

fn extension(case: &mut Case, field: &Field) -> Verdict {
    if [".txt", "txt"].contains(&field.text()) {
        return Verdict::no_need("captions are .txt");
    }
    if case.given("metadata_file").is_some() || case.given("in_json").is_some() {
        return Verdict::no_need("captions are in one file");
    }
    case.warn(format!("sd-scripts reads captions in `{}` files here; sconce reads `.txt`: rename them", field.text()));
    Verdict::no_place("captions are .txt files, or in metadata.jsonl: rename them")
}

fn affixes(case: &mut Case, field: &Field) -> Verdict {
    let part = |key: &str| {
        let all = case.all(key);
        let about = |f: &&Field| f.sources.is_none() || field.sources.is_none() || f.sources == field.sources;
        all.iter().rev().find(about).map(|f| f.text().to_owned()).unwrap_or_default()
    };
    let (prefix, suffix) = (part("caption_prefix"), part("caption_suffix"));
    if prefix.contains('{') || suffix.contains('{') {
        return Verdict::no_place("braces stand for the caption in data.source.caption: take them out");
    }
    let parts = [prefix.as_str(), "{caption}", suffix.as_str()];
    let caption = parts.iter().filter(|p| !p.is_empty()).copied().collect::<Vec<_>>().join(" ");
    case.source(field, "caption", caption)
}

fn dropout(case: &mut Case, field: &Field) -> Verdict {
    let rate = field.number().unwrap_or_default();
    let before = case.draft.get("data.caption_dropout").and_then(Value::as_f64);
    if before.is_some_and(|b| b != rate) {
        case.warn(
            "caption_dropout_rate differs between folders; data.caption_dropout is one for all, and has \
             the last of them",
        );
    }
    if rate > 0.0 || before.is_some() {
        case.set("data.caption_dropout", json!(rate.clamp(0.0, 1.0)));
    }
    Verdict::went("data.caption_dropout")
}

/// The side of a square of a resolution's area, and whether it is one: `1024`, `"1024,768"`, `[1024, 768]`.
pub(super) fn side(resolution: &Value) -> Option<(f64, bool)> {
    let numbers: Vec<f64> = match resolution {
        Value::Number(n) => vec![n.as_f64()?],
        Value::Array(items) => items.iter().map(Value::as_f64).collect::<Option<_>>()?,
        Value::String(text) => text.split([',', 'x']).map(|p| p.trim().parse().ok()).collect::<Option<_>>()?,
        _ => return None,
    };
    let (w, h) = match numbers[..] {
        [side] => (side, side),
        [w, h] => (w, h),
        _ => return None,
    };
    (w >= 1.0 && h >= 1.0 && w.max(h) <= 1e5).then(|| ((w * h).sqrt(), w == h))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_however_they_are_written() {
        let read = [json!(512), json!("512"), json!("1024,1024"), json!([768, 768])].map(|v| side(&v));
        assert_eq!(read, [512.0, 512.0, 1024.0, 768.0].map(|s| Some((s, true))));
        assert_eq!(side(&json!("1024, 256")), Some((512.0, false)));
        assert_eq!((side(&json!("big")), side(&json!([])), side(&json!(-1))), (None, None, None));
    }
}
