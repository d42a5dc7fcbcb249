//! The dataset's TOML: folders, and settings for all of them. A folder is trained on in each of the resolutions, so that each is
//! a folder of the recipe by itself.

use serde_json::{Map, Value, json};

use crate::Error;
use crate::report::Verdict;
use crate::rule::Does::{By, No, Not};
use crate::rule::Takes::{Any, Flag, Number, Text};
use crate::rule::{Field, Rule};

const BUCKETS: &str = "buckets have the area of resolution_px, in steps that the model takes";
const WORDS: &str = "captions are read as they are: each is encoded once, and kept";
const VIDEO: &str = "sconce trains pictures";
const MOST: usize = 1000;

pub(super) static RULES: &[Rule] = &[
    Rule::new("directory[].path", Text, By(|c, f| c.source(f, "path", f.text()))),
    // One of the list, for one folder of the recipe.
    Rule::new(
        "directory[].resolution",
        Any,
        By(|c, f| match side(&f.value) {
            Some(side) => c.source(f, "resolution_px", side.round() as u64),
            None => Verdict::no_place("it is no size in pixels"),
        }),
    ),
    Rule::new(
        "directory[].num_repeats",
        Number,
        By(|c, f| {
            let repeats = f.number().unwrap_or(1.0);
            let verdict = c.source(f, "repeats", repeats.round().max(1.0) as u64);
            if repeats < 1.0 || repeats.fract() != 0.0 {
                Verdict::near("data.source.repeats", "a whole number, 1 or more")
            } else {
                verdict
            }
        }),
    )
    .usual("1"),
    Rule::new(
        "directory[].mask_path",
        Text,
        By(|c, f| {
            c.source(f, "mask", "file");
            Verdict::near("data.source.mask", "a mask is the file `name.mask.png` beside `name`: copy them there")
        }),
    ),
    Rule::new("directory[].default_mask_file", Text, No("a picture without a mask is trained on in full")),
    Rule::new("directory[].control_path", Text, No("sconce trains no models that edit pictures")),
    Rule::new(
        "directory[].caption_prefix",
        Text,
        By(|c, f| match f.text() {
            "" => Verdict::Default,
            prefix if prefix.contains('{') => {
                Verdict::no_place("braces stand for the caption in data.source.caption: take them out")
            }
            prefix => c.source(f, "caption", format!("{prefix}{{caption}}")),
        }),
    ),
    Rule::new(
        "directory[].enable_ar_bucket",
        Flag,
        By(|c, f| c.source(f, "aspect", if f.flag() { "buckets" } else { "square" })),
    )
    .said("false"),
    Rule::new("directory[].resolutions", Any, Not("each of them is a [[data.source]] of its own")),
    Rule::new(
        "directory[].size_buckets",
        Any,
        No("pictures are resized to the area of resolution_px: name a side of that area"),
    ),
    Rule::new("directory[].ar_buckets", Any, No(BUCKETS)),
    Rule::new("directory[].min_ar", Any, No(BUCKETS)),
    Rule::new("directory[].max_ar", Any, No(BUCKETS)),
    Rule::new("directory[].num_ar_buckets", Any, No(BUCKETS)),
    Rule::new(
        "directory[].frame_buckets",
        Any,
        By(|_, f| match f.value == json!([1]) {
            true => Verdict::Default,
            false => Verdict::no_place(VIDEO),
        }),
    ),
    Rule::new("directory[].cache_shuffle_num", Number, No(WORDS)).usual("0"),
    Rule::new("directory[].cache_shuffle_delimiter", Text, Not("captions are not taken apart")),
    Rule::new("directory[].shuffle_tags", Flag, No(WORDS)),
    Rule::new("directory[].shuffle_metadata", Flag, Not("the order of pictures is a function of train.seed")),
    Rule::new(
        "directory[].skip_empty_caption",
        Flag,
        By(|_, f| match f.flag() {
            true => Verdict::no_place(
                "a picture without a caption has the empty one, and is told of: move it away if it is not \
                     meant",
            ),
            false => Verdict::no_need("a picture without a caption has the empty one, and is told of"),
        }),
    ),
    Rule::new("directory[].online_captions", Flag, No(WORDS)),
    Rule::new("directory[].subsample_ratio", Number, No("all pictures of a folder are used")).usual("1.0"),
];

/// Settings that a folder takes from the dataset, where it has none of its own.
const SHARED: &[&str] = &[
    "resolutions",
    "size_buckets",
    "enable_ar_bucket",
    "ar_buckets",
    "min_ar",
    "max_ar",
    "num_ar_buckets",
    "frame_buckets",
    "cache_shuffle_num",
    "cache_shuffle_delimiter",
    "shuffle_tags",
    "shuffle_metadata",
    "skip_empty_caption",
    "num_repeats",
    "caption_prefix",
    "online_captions",
    "subsample_ratio",
];

/// The fields, in the file's order. Gives how many folders of the recipe they make.
pub(super) fn fields(config: Map<String, Value>, prefix: &str, fields: &mut Vec<Field>) -> Result<usize, Error> {
    let directories = config.get("directory").and_then(Value::as_array).cloned().unwrap_or_default();
    let lists = directories.iter().map(|d| {
        let list = d.get("resolutions").or(config.get("resolutions")).and_then(Value::as_array);
        list.cloned().unwrap_or_default()
    });
    let lists: Vec<Vec<Value>> = lists.collect();
    let counts: Vec<usize> = lists.iter().map(|l| l.len().max(1)).collect();
    let all = counts.iter().try_fold(0usize, |sum, n| sum.checked_add(*n)).filter(|n| *n <= MOST);
    let all = all.ok_or(Error::TooMany { what: "folders of pictures and resolutions of them", limit: MOST })?;
    let mut put = |shown: String, key: &str, value: &Value, sources, rank| {
        fields.push(Field {
            sources: Some(sources),
            rank,
            ..Field::new(format!("{prefix}{shown}"), format!("directory[].{key}"), value.clone())
        });
    };
    for (name, value) in &config {
        match (name.as_str(), value) {
            ("directory", Value::Array(directories)) => {
                let mut first = 0;
                for (i, directory) in directories.iter().enumerate() {
                    for (key, v) in directory.as_object().into_iter().flatten() {
                        put(format!("directory[{i}].{key}"), key, v, first..first + counts[i], 2);
                    }
                    let whose = if directory.get("resolutions").is_some() {
                        format!("directory[{i}].resolutions")
                    } else {
                        "resolutions".into()
                    };
                    for (j, resolution) in lists[i].iter().enumerate() {
                        put(
                            format!("{whose}[{j}] for directory[{i}]"),
                            "resolution",
                            resolution,
                            first + j..first + j + 1,
                            3,
                        );
                    }
                    first += counts[i];
                }
            }
            (shared, _) if SHARED.contains(&shared) => put(name.clone(), name, value, 0..all, 1),
            (other, _) => fields_push(&mut put, other, value),
        }
    }
    Ok(all)
}

/// A field that the dataset has and no folder: unknown, under its own name.
fn fields_push(put: &mut impl FnMut(String, &str, &Value, std::ops::Range<usize>, u8), name: &str, value: &Value) {
    put(name.to_owned(), &format!("?{name}"), value, 0..0, 1);
}

/// The side of a square of a resolution's area: `512`, `[1280, 720]`.
pub(super) fn side(resolution: &Value) -> Option<f64> {
    let side = match resolution {
        Value::Array(sides) => match sides.as_slice() {
            [w, h] => (w.as_f64()? * h.as_f64()?).sqrt(),
            _ => return None,
        },
        other => other.as_f64()?,
    };
    (1.0..=1e5).contains(&side).then_some(side)
}
