//! What the folders of pictures hold, as the run will see them.

use serde_json::json;

use super::{Note, Report};
use crate::recipe::{Blame, Resolved};

pub(super) fn explain(resolved: &Resolved, report: &mut Report) {
    let recipe = &resolved.recipe;
    let set = match resolved.pictures() {
        Ok(set) => set.report,
        Err(e) => {
            let help = "see data.source in the recipe".to_owned();
            report.refusals.push(Note { id: "no-pictures", message: crate::message(&e), help, blame: Blame::Files });
            return;
        }
    };
    let passes = recipe.train.images as f64 / set.training as f64;
    let buckets: serde_json::Map<_, _> = set.buckets.iter().map(|((h, w), n)| (format!("{w}x{h}"), json!(n))).collect();
    report.fact(
        "pictures",
        format!("{}\n{passes:.1} passes over them", set.to_string().trim_end()),
        json!({ "found": set.found, "training": set.training, "held_out": set.held_out, "passes": passes, "buckets": buckets,
                "cropped": set.cropped, "largest_crop": set.largest_crop, "enlarged": set.enlarged,
                "masked": set.masked, "idle_masks": set.idle_masks, "uncaptioned": set.uncaptioned, "skipped": set.skipped.iter().map(|s| json!({ "path": s.path, "why": s.why })).collect::<Vec<_>>() }),
    );
    if let Some(least) = recipe.needs.as_ref().and_then(|needs| needs.pictures).filter(|least| set.training < *least) {
        report.warn(
            "few-pictures",
            format!(
                "needs.pictures: the recipe is for {least} pictures or more, and there are {} to train on",
                set.training
            ),
            "add pictures, or expect another result than the recipe's maker had",
        );
    }
    let share_skipped = set.skipped.len() as f64 / set.found.max(1) as f64;
    if share_skipped > 0.1 {
        report.warn(
            "many-skipped",
            format!("{} of {} pictures are not used", set.skipped.len(), set.found),
            "the list above says why each",
        );
    }
}
