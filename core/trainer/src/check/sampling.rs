//! What a recipe means where pictures are drawn: where the sampler starts, and whether the model can be asked there.

use sconce_sdk::{Choice, Kind, Noise, Schedule, Spacing, registry};
use serde_json::json;

use super::noise::{blows_up, fitting, percent, signal};
use super::{Report, figure, in_one_line};
use crate::recipe::Resolved;

pub(super) fn explain(resolved: &Resolved, singular: bool, report: &mut Report) {
    let (recipe, sampling) = (&resolved.recipe, &resolved.recipe.sampling);
    let side = recipe.preview.as_ref().and_then(|p| p.height_px).unwrap_or(resolved.native.resolution_px);
    let schedule = resolved.schedule(side);
    let levels = sampling.solver.levels(&*sampling.spacing, &*schedule, sampling.steps);
    let (Some(first), [asked @ .., _]) = (levels.first(), levels.as_slice()) else { return };
    report.fact(
        "sampling",
        format!(
            "{} in {} steps, spaced {}, from t = {} with {} of the signal; guidance {}{}{}",
            in_one_line(&sampling.solver.table()),
            sampling.steps,
            in_one_line(&sampling.spacing.table()),
            figure(first.t),
            figure(signal(&first.noise)),
            sampling.cfg,
            sampling.guidance.map_or(String::new(), |g| format!(" by two passes, {g} by the model's own knob")),
            if sampling.cfg_rescale > 0.0 { format!(", rescaled by {}", sampling.cfg_rescale) } else { String::new() },
        ),
        json!({ "table": sampling, "first_t": first.t, "first_alpha": first.noise.alpha }),
    );
    // Multiplied out, since alpha may be 0.
    let falls = |from: &Noise, to: &Noise| to.sigma * from.alpha < from.sigma * to.alpha;
    if let Some(k) = levels.windows(2).position(|pair| !falls(&pair[0].noise, &pair[1].noise)) {
        report.refuse(
            "level-twice",
            format!(
                "the spacing `{}` does not go on to less noise from step {k} to the next on this schedule, t = {} and t = {}",
                sampling.spacing.name(),
                figure(levels[k].t),
                figure(levels[k + 1].t)
            ),
            "let it stay between the schedule's ends, and take no more steps than it has levels",
        );
    }
    let end = schedule.at(1.0).alpha;
    if end == 0.0 && first.t < 1.0 - 1e-9 && first.noise.alpha > 1e-3 {
        report.warn(
            "late-start",
            format!(
                "the schedule ends in pure noise, but `{}` starts at t = {}, where the model expects {} of the picture: it is given none, \
                 and brightness stays what it was before training",
                sampling.spacing.name(),
                figure(first.t),
                percent(first.noise.alpha)
            ),
            format!("spacings that start at t = 1: {}", starting(&*schedule).join(", ")),
        );
    }
    let lost = asked.iter().find(|l| blows_up(&l.noise, recipe.objective.target(&l.noise)));
    if let (Some(level), false) = (lost, singular) {
        report.refuse(
            "singular-sampling",
            format!(
                "the sampler asks the model at t = {}, where the picture does not follow from an output of the objective `{}`",
                figure(level.t),
                recipe.objective.name()
            ),
            format!("objectives that can be asked there: {}", fitting(&level.noise).join(", ")),
        );
    }
}

fn starting(schedule: &dyn Schedule) -> Vec<&'static str> {
    let all = registry::of_kind(<dyn Spacing>::NAME).unwrap_or_default();
    let starts = |name: &str| {
        let levels = Choice::<dyn Spacing>::named(name).map(|s| s.levels(schedule, 10));
        levels.is_ok_and(|l| l.first().is_some_and(|l| l.t >= 1.0 - 1e-9))
    };
    all.iter().map(|p| p.name).filter(|name| starts(name)).collect()
}
