//! How much each noise level counts. sd-scripts multiplies up to four factors, written for epsilon or for v; a recipe has one
//! weighting, written for the error of x0, which is right for both.

use serde_json::json;

use crate::case::Case;
use crate::report::Verdict;
use crate::rule::Does::{By, No};
use crate::rule::Takes::{Flag, Number};
use crate::rule::{Field, Rule};

pub(super) static RULES: &[Rule] = &[
    Rule::new("min_snr_gamma", Number, By(weigh)),
    Rule::new("debiased_estimation_loss", Flag, By(weigh)),
    Rule::new("scale_v_pred_loss_like_noise_pred", Flag, By(weigh)),
    Rule::new(
        "v_pred_like_loss",
        Number,
        No("a recipe has one weighting; `native` with objective v, or `elbo`, is near to a sum of both \
             losses"),
    ),
];

/// The factors, in the order in which one is taken where there are several.
const FACTORS: &[&str] = &["min_snr_gamma", "debiased_estimation_loss", "scale_v_pred_loss_like_noise_pred"];

fn on(case: &Case, key: &str) -> bool {
    case.flag(key) || case.number(key).is_some_and(|x| x > 0.0)
}

fn weigh(case: &mut Case, field: &Field) -> Verdict {
    if !on(case, &field.key) {
        return Verdict::Default;
    }
    if case.family.flows() {
        return Verdict::no_need("sd-scripts ignores it for rectified flows");
    }
    let (v, terminal) = (case.flag("v_parameterization"), case.flag("zero_terminal_snr"));
    if let Some(first) = FACTORS.iter().find(|k| on(case, k)).filter(|k| **k != field.key) {
        return Verdict::no_place(format!(
            "sd-scripts multiplies it with {first}; a recipe has one weighting, and takes that one"
        ));
    }
    match field.key.as_str() {
        "min_snr_gamma" => {
            case.table("weighting", &json!({ "type": "min-snr", "gamma": field.number() }), &field.shown);
            if terminal && v {
                case.warn(
                    "min_snr_gamma on a zero-terminal schedule defeats itself: it takes nearly all weight off \
                         the noisiest levels (0.03 % is left on the noisiest tenth), for which the schedule was \
                         changed. sd-scripts hides a part of it, since it takes the SNR from before the change. \
                         Consider weighting = \"native\"; `sconce check` shows the share",
                );
            }
            Verdict::went("weighting")
        }
        "debiased_estimation_loss" if v => {
            let note = "1/(SNR + 1) on v, which is the plain error of x0";
            case.table(
                "weighting",
                &json!({ "type": "p2", "gamma": 1.0, "k": 1e-6 }),
                &format!("{}: {note}", field.shown),
            );
            case.warn(
                "debiased_estimation_loss with v: sd-scripts' factor is 1/(SNR + 1), which is not the \
                     paper's for v but the plain error of x0; the recipe has that. The paper's is weighting = \
                     \"debiased\"",
            );
            Verdict::near("weighting", note)
        }
        "debiased_estimation_loss" => {
            case.set("weighting.type", "debiased");
            Verdict::went("weighting.type")
        }
        _ if v => {
            case.table(
                "weighting",
                &json!({ "type": "p2", "gamma": 0.0 }),
                &format!("{}: the plain error of epsilon", field.shown),
            );
            Verdict::went("weighting")
        }
        _ => Verdict::no_need("sd-scripts refuses it without v_parameterization"),
    }
}
