//! Previews. Prompts are in a file of their own, each with options behind it; a recipe has one set of options for all.

use serde_json::{Value, json};

use crate::case::Case;
use crate::report::Verdict;
use crate::rule::Does::{By, No};
use crate::rule::Takes::{Any, Flag, Number, Text};
use crate::rule::{Field, Rule};
use crate::value;

pub(super) static RULES: &[Rule] = &[
    Rule::new(
        "sample_prompts",
        Text,
        By(|c, f| match c.given("prompts") {
            Some(_) => Verdict::went("preview.prompts"),
            None => {
                c.draft.ask("preview.prompts", &format!("[\"…\"], those of {}", f.text()));
                Verdict::near("preview.prompts", "the file could not be read: copy them")
            }
        }),
    ),
    Rule::new("prompts", Any, By(prompts)),
    Rule::new("sample_every_n_steps", Number, By(previews)),
    Rule::new("sample_every_n_epochs", Number, By(previews)),
    Rule::new(
        "sample_at_first",
        Flag,
        By(|_, f| match f.flag() {
            true => Verdict::no_need("pictures are always drawn before the run too"),
            false => Verdict::Default,
        }),
    ),
    Rule::new("sample_sampler", Text, By(sampler)).usual("\"ddim\""),
    Rule::new("log_with_samples", Flag, No("previews are pictures in the run's folder, and in its TensorBoard log")),
];

/// The prompts of a file: text with options, TOML or JSON.
pub(super) fn fields(text: &str, name: &str) -> Vec<Field> {
    let lines = || text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    let prompts: Vec<Value> = match name.rsplit('.').next() {
        Some("toml") => value::toml(text).map(|t| of_toml(&Value::Object(t))).unwrap_or_default(),
        Some("json") => match value::json(text) {
            Ok(Value::Array(items)) => items.iter().map(|v| v.as_str().map_or_else(|| v.clone(), options)).collect(),
            _ => Vec::new(),
        },
        _ => lines().map(options).collect(),
    };
    if prompts.is_empty() {
        Vec::new()
    } else {
        vec![Field::new(format!("{name}: prompts"), "prompts", prompts.into())]
    }
}

/// `[prompt]` with what holds for all, and `[[prompt.subset]]`.
fn of_toml(file: &Value) -> Vec<Value> {
    let all = file["prompt"].as_object().cloned().unwrap_or_default();
    let subsets = all.get("subset").and_then(Value::as_array).cloned().unwrap_or_default();
    let with = |subset: &Value| {
        let mut one = all.clone();
        one.remove("subset");
        one.extend(subset.as_object().cloned().unwrap_or_default());
        Value::Object(one)
    };
    subsets.iter().map(with).collect()
}

/// A line: `a fox --n blurry --w 768 --h 1024 --s 30 --l 7 --d 1`.
fn options(line: &str) -> Value {
    let mut parts = line.split(" --");
    let mut one = json!({ "prompt": parts.next().unwrap_or_default().trim() });
    for part in parts {
        let (name, value) = part.split_once(' ').unwrap_or((part, ""));
        let value = value.trim();
        let key = match name {
            "w" => "width",
            "h" => "height",
            "d" => "seed",
            "s" => "sample_steps",
            "l" => "scale",
            "g" => "guidance_scale",
            "n" => "negative_prompt",
            "ss" => "sample_sampler",
            other => other,
        };
        one[key] = value
            .parse::<i64>()
            .map(Value::from)
            .or_else(|_| value.parse::<f64>().map(Value::from))
            .unwrap_or_else(|_| value.into());
    }
    one
}

/// Where an option of a prompt goes.
const OPTIONS: &[(&str, &str)] = &[
    ("width", "preview.width_px"),
    ("height", "preview.height_px"),
    ("seed", "preview.seed"),
    ("sample_steps", "sampling.steps"),
    ("scale", "sampling.cfg"),
    ("guidance_scale", "sampling.guidance"),
    ("negative_prompt", "sampling.negative"),
];

fn prompts(case: &mut Case, field: &Field) -> Verdict {
    let all = field.value.as_array().cloned().unwrap_or_default();
    let texts: Vec<Value> = all.iter().filter_map(|p| p.get("prompt")).filter(|p| p.is_string()).cloned().collect();
    if texts.is_empty() {
        return Verdict::no_place("there is no prompt in it");
    }
    case.set("preview.prompts", texts);
    let mut to = vec!["preview.prompts"];
    for (option, path) in OPTIONS {
        let values: Vec<&Value> = all.iter().filter_map(|p| p.get(option)).collect();
        let Some(first) = values.first() else { continue };
        let fits =
            if *option == "negative_prompt" { first.is_string() } else { first.as_f64().is_some_and(|x| x >= 0.0) };
        if !fits {
            continue;
        }
        if values.len() < all.len() || values.iter().any(|v| v != first) {
            case.warn(format!("`{option}` differs between prompts; {path} is one for all, and has the first"));
        }
        case.set(path, (*first).clone());
        to.push(path);
    }
    Verdict::went(to.join(", "))
}

fn previews(case: &mut Case, field: &Field) -> Verdict {
    if case.given("sample_prompts").is_none() && case.given("prompts").is_none() {
        return Verdict::no_need("without sample_prompts nothing is drawn");
    }
    super::run::every(case, field)
}

fn sampler(case: &mut Case, field: &Field) -> Verdict {
    let (solver, note) = match field.text().trim_start_matches("k_") {
        "ddim" => ("ddim", ""),
        "euler" => ("euler", ""),
        "euler_a" => ("euler-ancestral", ""),
        "heun" => ("heun", ""),
        "dpmsolver++" | "dpmsolver" => ("dpmpp-2m", ""),
        "dpmsingle" | "dpm_2" => ("dpmpp-2m", "the nearest that there is"),
        "dpm_2_a" => ("dpmpp-sde", "the nearest that there is"),
        "pndm" | "lms" => ("dpmpp-2m", "the nearest that there is"),
        other => return Verdict::no_place(format!("there is no solver called {other}: `sconce list solver`")),
    };
    if case.family.flows() {
        return Verdict::no_need("the models' own solver draws previews of rectified flows");
    }
    case.set("sampling.solver", solver);
    if note.is_empty() { Verdict::went("sampling.solver") } else { Verdict::near("sampling.solver", note) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_has_its_options() {
        let read = options("a fox, in snow --n blurry, low --w 768 --d 1 --l 7.5");
        let expected = json!({ "prompt": "a fox, in snow", "negative_prompt": "blurry, low", "width": 768, "seed": 1, "scale": 7.5 });
        assert_eq!(read, expected);
    }
}
