//! Whether a recipe trains a checkpoint as what it was trained as, told by numbers and not by names.

use sconce_sdk::{Choice, Objective, Schedule};
use serde_json::json;

use super::{Report, in_one_line};
use crate::network::Conversion;
use crate::recipe::{Convert, Fading, Resolved};

/// Refuses a checkpoint trained as something else, unless that is said to be meant.
pub(super) fn explain(resolved: &Resolved, report: &mut Report) {
    let (recipe, native) = (&resolved.recipe, &resolved.native);
    let evidence = |what: &str| native.evidence.get(what).map_or("the family's rule", String::as_str);
    let mut differing = Vec::new();
    match Choice::<dyn Schedule>::from_table(&native.schedule) {
        Ok(own) if [32, 64].iter().all(|&d| same_schedule(&*own.sized(d, d), &*recipe.schedule.sized(d, d))) => {}
        Ok(_) => differing.push(("schedule", in_one_line(&recipe.schedule.table()), in_one_line(&native.schedule))),
        Err(e) => report.warn(
            "unknown-native",
            format!("the checkpoint's schedule is not known here: {e}"),
            "say it in [schedule]",
        ),
    }
    match Choice::<dyn Objective>::from_table(&native.objective) {
        Ok(own) if same_objective(&*own, &*recipe.objective, &*recipe.schedule) => {}
        Ok(_) => differing.push(("objective", in_one_line(&recipe.objective.table()), in_one_line(&native.objective))),
        Err(e) => report.warn(
            "unknown-native",
            format!("the checkpoint's objective is not known here: {e}"),
            "say it in [objective]",
        ),
    }
    let convert = recipe.model.convert;
    if convert.is_meant() && differing.is_empty() {
        report.warn(
            "nothing-converted",
            "model.convert is set, but schedule and objective are the checkpoint's own: nothing is converted".into(),
            "remove model.convert, so that it guards against a slip again",
        );
    }
    if convert.is_meant() && !differing.is_empty() {
        let way = match convert {
            Convert::Fading(Fading { over_images: 0 }) => {
                "at once: the output means something else from the first step on".to_owned()
            }
            Convert::Fading(Fading { over_images }) => {
                format!("starts as what it was; the network itself computes the new output after {over_images} images")
            }
            Convert::Mapped(_) => {
                "starts as what it was, read through a mapping, and is saved as what it was".to_owned()
            }
        };
        report.fact("conversion", way, json!(convert));
        if let (Convert::Fading(_), Ok(Some(conversion))) = (convert, Conversion::of(convert, native, 0))
            && let Some(t) = conversion.turns(&*resolved.schedule(resolved.side_px()), &*recipe.objective)
        {
            report.refuse(
                "turns",
                format!(
                    "on the way from the checkpoint's output to the new one the network would have to output what says nothing \
                     about the picture: at t = {} they point opposite ways",
                    super::figure(t)
                ),
                "model.convert = true keeps the checkpoint's output; over_images = 0 begins with the new one",
            );
        }
    }
    for (what, ours, theirs) in differing {
        if convert.is_meant() {
            let text = format!("{what}: {theirs} -> {ours}");
            report.fact("converts", text, json!({ "of": what, "from": theirs, "to": ours }));
            continue;
        }
        report.refuse(
            "not-the-checkpoints-own",
            format!("the recipe's {what} is {ours}, the checkpoint was trained on {theirs} ({})", evidence(what)),
            format!(
                "if a conversion is meant, say so: model.convert = true or {{ over_images = N }}; else remove [{what}]"
            ),
        );
    }
}

fn same_schedule(a: &dyn Schedule, b: &dyn Schedule) -> bool {
    a.grid() == b.grid()
        && (0..=50).map(|i| f64::from(i) / 50.0).all(|t| {
            let (a, b) = (a.at(t), b.at(t));
            near(a.alpha, b.alpha) && near(a.sigma, b.sigma)
        })
}

fn same_objective(a: &dyn Objective, b: &dyn Objective, schedule: &dyn Schedule) -> bool {
    (1..50).map(|i| schedule.at(f64::from(i) / 50.0)).all(|noise| {
        let (p, q) = (a.target(&noise), b.target(&noise));
        near(p[0], q[0]) && near(p[1], q[1]) && near(a.input_scale(&noise), b.input_scale(&noise))
    })
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * a.abs().max(b.abs()) + 1e-9
}
