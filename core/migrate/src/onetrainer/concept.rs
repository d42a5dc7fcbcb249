//! Concepts: folders of pictures with what is done to pictures and captions.

use serde_json::Value;

use crate::Error;
use crate::report::Verdict;
use crate::rule::Does::{By, No, Not, To};
use crate::rule::Takes::{Any, Flag, Number, Text};
use crate::rule::{Field, Rule};

const AUGMENT: &str = "pictures are shown as they are: resized, cropped from the middle, and mirrored if flip says \
     so";
const WORDS: &str = "captions are read as they are: each is encoded once, and kept";
const MOST: usize = 1000;

pub(super) static RULES: &[Rule] = &[
    Rule::new("concepts[].name", Text, Not("folders have no names")),
    Rule::new("concepts[].path", Text, By(|c, f| c.source(f, "path", f.text()))),
    Rule::new(
        "concepts[].enabled",
        Flag,
        By(|_, f| match f.flag() {
            true => Verdict::Default,
            false => Verdict::no_need("the concept is left out"),
        }),
    )
    .usual("true"),
    Rule::new("concepts[].seed", Any, Not("train.seed is the seed of everything")),
    Rule::new(
        "concepts[].type",
        Text,
        By(|_, f| match f.text() {
            "STANDARD" => Verdict::Default,
            "VALIDATION" => {
                Verdict::no_place("pictures are held out by share, the same in every run: put them with the others")
            }
            _ => Verdict::no_place("there is no prior prediction: the concept is left out"),
        }),
    )
    .usual("\"STANDARD\""),
    Rule::new(
        "concepts[].include_subdirectories",
        Flag,
        By(|_, f| match f.flag() {
            true => Verdict::no_need("sub-folders are always read"),
            false => {
                Verdict::near("data.source.path", "sub-folders are always read: move them away if they are not meant")
            }
        }),
    )
    .usual("true"),
    Rule::new("concepts[].image_variations", Number, No(AUGMENT)).usual("1"),
    Rule::new("concepts[].text_variations", Number, No(WORDS)).usual("1"),
    Rule::new(
        "concepts[].balancing",
        Number,
        By(|c, f| {
            let repeats = f.number().unwrap_or(1.0);
            if c.all("concepts[].balancing_strategy").iter().any(|s| s.sources == f.sources && s.text() == "SAMPLES") {
                return Verdict::no_place("folders count by repeats: `balancing` over the number of its pictures");
            }
            let verdict = c.source(f, "repeats", repeats.round().max(1.0) as u64);
            match repeats.fract() == 0.0 && repeats >= 1.0 {
                true => verdict,
                false => Verdict::near("data.source.repeats", "a whole number: multiply those of all folders"),
            }
        }),
    )
    .usual("1.0"),
    Rule::new(
        "concepts[].balancing_strategy",
        Text,
        By(|_, f| match f.text() {
            "REPEATS" => Verdict::Default,
            _ => Verdict::no_place("folders count by repeats"),
        }),
    )
    .usual("\"REPEATS\""),
    Rule::new("concepts[].loss_weight", Number, No("folders have no weights: repeats say how much each counts"))
        .usual("1.0"),
    Rule::new("concepts[].concept_stats", Any, Not("`sconce check` counts the pictures")),
    Rule::new(
        "concepts[].image.enable_random_flip",
        Flag,
        By(|c, f| match f.flag() {
            true => c.source(f, "flip", "horizontal"),
            false => Verdict::Default,
        }),
    ),
    Rule::new("concepts[].image.enable_crop_jitter", Flag, No(AUGMENT)),
    Rule::new("concepts[].image.enable_resolution_override", Flag, Not("resolution_override says it")),
    Rule::new(
        "concepts[].image.resolution_override",
        Text,
        By(|c, f| {
            let on =
                c.all("concepts[].image.enable_resolution_override").iter().any(|e| e.sources == f.sources && e.flag());
            match super::run::sides(f.text()).first() {
                _ if !on => Verdict::Default,
                Some(side) => c.source(f, "resolution_px", side.round() as u64),
                None => Verdict::no_place("it is no size in pixels"),
            }
        }),
    ),
    Rule::new("concepts[].image.*", Any, No(AUGMENT)).usual("0.0"),
    Rule::new(
        "concepts[].text.prompt_source",
        Text,
        By(|_, f| match f.text() {
            "sample" => Verdict::no_need("captions are .txt files of the pictures' names"),
            "concept" => Verdict::no_place("one text for a whole folder is data.source.caption = \"…\""),
            _ => Verdict::no_place("captions are .txt files, or in metadata.jsonl: names of files are none"),
        }),
    ),
    Rule::new("concepts[].text.prompt_path", Text, No("one text for a whole folder is data.source.caption = \"…\""))
        .usual("\"\""),
    Rule::new("concepts[].text.tag_delimiter", Text, Not("captions are not taken apart")),
    Rule::new("concepts[].text.keep_tags_count", Number, Not("captions are not taken apart")),
    Rule::new("concepts[].text.tag_dropout_mode", Text, Not("captions are not taken apart")),
    Rule::new("concepts[].text.tag_dropout_special_tags_mode", Text, Not("captions are not taken apart")),
    Rule::new("concepts[].text.tag_dropout_special_tags", Text, Not("captions are not taken apart")),
    Rule::new("concepts[].text.caps_randomize_mode", Text, Not("captions are not changed")),
    Rule::new("concepts[].text.*", Any, No(WORDS)).usual("0.0"),
    Rule::new(
        "concept_file_name",
        Text,
        By(|c, _| match c.given("concepts[].path") {
            Some(_) => Verdict::went("data.source"),
            None => Verdict::near("data.source", "it could not be read, or names no folder"),
        }),
    ),
    Rule::new(
        "aspect_ratio_bucketing",
        Flag,
        By(|c, f| c.source(f, "aspect", if f.flag() { "buckets" } else { "square" })),
    )
    .usual("true"),
    Rule::new("latent_caching", Flag, Not("latents are always kept on disk, and are checked against the files")),
    Rule::new(
        "clear_cache_before_training",
        Flag,
        Not("latents are always kept on disk, and are checked against the files"),
    ),
    Rule::new("only_cache", Flag, Not("a run fills its cache by itself")),
    Rule::new("cache_dir", Text, To("data.cache")),
];

/// The concepts that are trained on, as fields. Gives how many folders they are.
pub(super) fn fields(name: &str, concepts: &[Value], fields: &mut Vec<Field>) -> Result<usize, Error> {
    if concepts.len() > MOST {
        return Err(Error::TooMany { what: "folders of pictures", limit: MOST });
    }
    let mut folders = 0;
    for (i, concept) in concepts.iter().enumerate() {
        let says = |key: &str, value: &Value| concept.get(key).is_some_and(|v| v == value);
        let standard = concept.get("type").is_none_or(|t| t == "STANDARD");
        let counts = standard && !says("enabled", &Value::Bool(false));
        let sources = if counts { folders..folders + 1 } else { 0..0 };
        folders += usize::from(counts);
        let from = fields.len();
        super::flatten(&format!("{name}[{i}]"), "concepts[]", concept.clone(), fields);
        fields[from..].iter_mut().for_each(|f| (f.sources, f.rank) = (Some(sources.clone()), 1));
    }
    Ok(folders)
}
