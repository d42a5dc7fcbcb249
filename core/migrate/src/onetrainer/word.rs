//! Learned words: the run's own, and those beside an adapter.

use serde_json::{Value, json};

use super::parts::components;
use crate::case::{Case, Learns};
use crate::place::place;
use crate::report::Verdict;
use crate::rule::Does::{By, No, Not};
use crate::rule::Takes::{Any, Flag, Number, Text};
use crate::rule::{Field, Rule};

pub(super) static RULES: &[Rule] = &[
    Rule::new("embedding.uuid", Text, Not("a word is known by its text")),
    Rule::new("embedding.placeholder", Text, By(|c, f| word(c, f, "text"))),
    Rule::new("embedding.token_count", Number, By(|c, f| word(c, f, "vectors"))),
    Rule::new("embedding.initial_embedding_text", Text, By(|c, f| word(c, f, "start"))),
    Rule::new("embedding.model_name", Text, By(|c, f| word(c, f, "from"))),
    Rule::new("embedding.train", Flag, By(|c, f| word(c, f, "lr_factor"))),
    Rule::new("embedding.is_output_embedding", Flag, No("a word is learned where it enters the text encoder")),
    Rule::new("embedding.*", Any, By(stop)),
    Rule::new("additional_embeddings[].uuid", Text, Not("a word is known by its text")),
    Rule::new("additional_embeddings[].placeholder", Text, By(|c, f| word(c, f, "text"))),
    Rule::new("additional_embeddings[].token_count", Number, By(|c, f| word(c, f, "vectors"))),
    Rule::new("additional_embeddings[].initial_embedding_text", Text, By(|c, f| word(c, f, "start"))),
    Rule::new("additional_embeddings[].model_name", Text, By(|c, f| word(c, f, "from"))),
    Rule::new("additional_embeddings[].train", Flag, By(|c, f| word(c, f, "lr_factor"))),
    Rule::new("additional_embeddings[].*", Any, By(stop)),
    Rule::new("additional_embeddings", Any, Not("there are none")),
    Rule::new(
        "embedding_learning_rate",
        Number,
        By(|c, f| match c.learns {
            Learns::Word => {
                components(c);
                Verdict::went("optimizer.lr")
            }
            _ => Verdict::near("train.token.lr_factor", format!("write {} over optimizer.lr there", f.value)),
        }),
    ),
    Rule::new("preserve_embedding_norm", Flag, No("a word's rows have the length that training gives them")),
    Rule::new("embedding_weight_dtype", Text, Not("weights that train are f32")),
];

/// A learned word: the first is the run's own, others are beside an adapter.
fn word(case: &mut Case, field: &Field, key: &str) -> Verdict {
    let more = field.sources.clone();
    if more.is_none() && case.learns != Learns::Word {
        return Verdict::no_need("the run's method is not EMBEDDING");
    }
    let i = more.map_or(0, |s| s.start + usize::from(case.learns == Learns::Word));
    let prefix = field.key.rsplit_once('.').map_or("", |(p, _)| p).to_owned();
    let file =
        case.all(&format!("{prefix}.model_name")).iter().any(|f| f.sources == field.sources && !f.text().is_empty());
    let value = match key {
        "vectors" | "start" if file => return Verdict::no_need("the word is what its file says"),
        "from" if !file => return Verdict::Default,
        "lr_factor" if field.flag() => return Verdict::Default,
        "lr_factor" => json!(0.0),
        "from" => json!(place(field.text())),
        _ => field.value.clone(),
    };
    case.set(&format!("train.token.{i}.{key}"), value);
    Verdict::went(format!("train.token.{key}"))
}

fn stop(_: &mut Case, field: &Field) -> Verdict {
    match field.number() {
        Some(n) if n > 0.0 => Verdict::no_place("a word is learned throughout"),
        _ => Verdict::Default,
    }
}

/// The words beside the run's own, as fields that know which word they are about.
pub(super) fn more(value: &Value, fields: &mut Vec<Field>) {
    for (i, word) in value.as_array().into_iter().flatten().take(100).enumerate() {
        let from = fields.len();
        super::flatten(&format!("additional_embeddings[{i}]"), "additional_embeddings[]", word.clone(), fields);
        fields[from..].iter_mut().for_each(|f| f.sources = Some(i..i + 1));
    }
}

/// What a learned word needs.
pub(super) fn missing(case: &mut Case) {
    if case.learns != Learns::Word {
        return;
    }
    for (key, default) in [("text", "<embedding>"), ("start", "*")] {
        let path = format!("train.token.0.{key}");
        let said = case.draft.has(&path) || (key == "start" && case.draft.has("train.token.0.from"));
        if !said {
            case.set_as(&path, default, "OneTrainer's default");
        }
    }
    case.warn(
        "the word is learned from captions that say it: it must stand in them, or in \
         data.source.caption",
    );
}
