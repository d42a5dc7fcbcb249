//! Samples: prompts with settings of their own; a recipe has one set of settings for all.

use serde_json::Value;

use crate::case::Case;
use crate::report::Verdict;
use crate::rule::Does::{By, No, Not};
use crate::rule::Takes::{Flag, List, Number, Text};
use crate::rule::{Field, Rule};

pub(super) static RULES: &[Rule] = &[
    Rule::new("samples", List, By(samples)),
    Rule::new(
        "sample_definition_file_name",
        Text,
        By(|c, f| match c.given("samples") {
            Some(_) => Verdict::went("preview.prompts"),
            None => {
                c.draft.ask("preview.prompts", &format!("[\"…\"], those of {}", f.text()));
                Verdict::near("preview.prompts", "the file could not be read: copy them")
            }
        }),
    ),
    Rule::new(
        "sample_after",
        Number,
        By(|c, f| match c.draft.has("preview.prompts") || c.given("samples").is_some() {
            true => super::run::every(c, f, "preview.every_images"),
            false => Verdict::no_need("without samples nothing is drawn"),
        }),
    )
    .usual("10"),
    Rule::new("sample_after_unit", Text, Not("it belongs to sample_after")),
    Rule::new("sample_skip_first", Number, No("pictures are drawn before the run, and then regularly")).usual("0"),
    Rule::new("sample_image_format", Text, Not("previews are PNG")),
    Rule::new("sample_video_format", Text, Not("sconce draws pictures")),
    Rule::new("sample_audio_format", Text, Not("sconce draws pictures")),
    Rule::new("non_ema_sampling", Flag, Not("previews are drawn with the average, where there is one")),
];

/// Where a setting goes.
const SETTINGS: &[(&str, &str)] = &[
    ("width", "preview.width_px"),
    ("height", "preview.height_px"),
    ("seed", "preview.seed"),
    ("diffusion_steps", "sampling.steps"),
    ("cfg_scale", "sampling.cfg"),
    ("negative_prompt", "sampling.negative"),
];

fn samples(case: &mut Case, field: &Field) -> Verdict {
    let all: Vec<Value> = field
        .value
        .as_array()
        .into_iter()
        .flatten()
        .filter(|s| s.get("enabled") != Some(&Value::Bool(false)))
        .cloned()
        .collect();
    let prompts: Vec<Value> = all.iter().filter_map(|s| s.get("prompt")).filter(|p| p.is_string()).cloned().collect();
    if prompts.is_empty() {
        return Verdict::no_need("there is no prompt in it");
    }
    case.set("preview.prompts", prompts);
    let mut to = vec!["preview.prompts"];
    for (setting, path) in SETTINGS {
        // FLUX.1-dev is told its scale as a number.
        let path = if *setting == "cfg_scale" && case.family == crate::family::Family::Flux {
            "sampling.guidance"
        } else {
            path
        };
        let values: Vec<&Value> = all.iter().filter_map(|s| s.get(setting)).collect();
        let Some(first) = values.first() else { continue };
        let fits = if *setting == "negative_prompt" {
            first.as_str().is_some_and(|s| !s.is_empty())
        } else {
            first.as_f64().is_some_and(|x| x >= 0.0)
        };
        if !fits {
            continue;
        }
        if values.iter().any(|v| v != first) {
            case.warn(format!("`{setting}` differs between samples; {path} is one for all, and has the first"));
        }
        case.set(path, (*first).clone());
        to.push(path);
    }
    if let Some(solver) = all.iter().find_map(|s| s.get("noise_scheduler")?.as_str()).filter(|_| !case.family.flows()) {
        let plain = solver.trim_end_matches("_KARRAS");
        let known = [
            ("DDIM", "ddim"),
            ("EULER", "euler"),
            ("EULER_A", "euler-ancestral"),
            ("DPMPP", "dpmpp-2m"),
            ("DPMPP_SDE", "dpmpp-2m-sde"),
            ("UNIPC", "unipc"),
        ];
        if let Some((_, here)) = known.iter().find(|(there, _)| *there == plain) {
            case.set("sampling.solver", *here);
            to.push("sampling.solver");
            let ours = !case.flag("rescale_noise_scheduler_to_zero_terminal_snr");
            if solver != plain && ours {
                case.set("sampling.spacing", "karras");
            }
        }
    }
    Verdict::went(to.join(", "))
}
