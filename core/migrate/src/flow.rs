//! Times of rectified flows. Other trainers draw the noise level itself; a recipe draws a time, which the checkpoint's own
//! schedule then shifts. So a distribution of levels, shifted by a, is the same distribution of times shifted by a over the
//! schedule's own shift, since shifts multiply.

use serde_json::{Value, json};

use crate::case::Case;
use crate::family::{Family, flux_shift};

/// How a distribution of noise levels is shifted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shift {
    /// Level u becomes a u/(1 + (a - 1) u).
    By(f64),
    /// By the picture's size, as FLUX.1-dev's pipeline does.
    BySize,
}

/// Sets `[timesteps]` to a distribution of noise levels. `why` names it in the other program's words.
pub(crate) fn levels(case: &mut Case, base: Value, shift: Shift, why: &str) {
    let side = case.side_px;
    let wanted = match shift {
        Shift::By(a) => a,
        Shift::BySize => flux_shift(side),
    };
    let schnell = case.family == Family::Flux && case.schnell;
    let own = if schnell { 1.0 } else { case.family.own_shift(side) };
    if case.family == Family::Flux && !schnell && shift != Shift::BySize {
        case.warn(format!(
            "[timesteps] is for FLUX.1-dev, whose own schedule shifts times by {own:.3} at {side} px; \
                 FLUX.1-schnell's shifts nothing: with that, their shift is {wanted} in all"
        ));
    }
    let ratio = if wanted > 0.0 { wanted / own } else { 1.0 };
    if (ratio - 1.0).abs() < 1e-3 {
        return case.table("timesteps", &base, why);
    }
    let shift = (ratio * 1e4).round() / 1e4;
    let text = format!(
        "{why}: the level's shift {wanted:.4} over {own:.4}, which the checkpoint's schedule shifts \
             by already{}",
        if case.family == Family::Flux && !schnell { format!(" at {side} px") } else { String::new() }
    );
    case.table("timesteps", &json!({ "type": "shift", "shift": shift, "of": base }), &text);
}

/// A normal distribution's logistic.
pub(crate) fn logit_normal(mean: f64, std: f64) -> Value {
    json!({ "type": "logit-normal", "mean": mean, "std": std })
}

/// Every level alike.
pub(crate) fn uniform() -> Value {
    json!({ "type": "uniform" })
}
