//! What a formula must hold, tried on a grid of its domain when the recipe is read: an error then costs a second, and one in
//! the middle of a run costs the run.

use sconce_sdk::ParamError;

/// An error about the value of a field's formula at a place.
pub(crate) fn wrong(field: &str, value: f64, place: impl std::fmt::Display, must: &str) -> ParamError {
    ParamError::new(format!("is {} at {place}, and must be {must}", Shown(value))).within(field)
}

/// A number as it is read best: one of a size beyond everyday ones with its exponent.
pub(crate) struct Shown(pub f64);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let everyday = self.0 == 0.0 || !self.0.is_finite() || (1e-4..1e9).contains(&self.0.abs());
        if everyday { write!(f, "{}", self.0) } else { write!(f, "{:e}", self.0) }
    }
}

/// Nothing, or that the value is not what it must be.
pub(crate) fn demand(
    holds: bool,
    field: &str,
    value: f64,
    place: impl std::fmt::Display,
    must: &str,
) -> Result<(), ParamError> {
    if holds { Ok(()) } else { Err(wrong(field, value, place, must)) }
}

/// Of fields of which exactly one is to be given: that it is so.
pub(crate) fn one_of(fields: &[(&str, bool)]) -> Result<(), ParamError> {
    let given: Vec<&str> = fields.iter().filter(|(_, given)| *given).map(|(field, _)| *field).collect();
    let names = fields.iter().map(|(field, _)| format!("`{field}`")).collect::<Vec<_>>().join(" and ");
    match given[..] {
        [_] => Ok(()),
        [] => Err(ParamError::new(format!("needs one of {names}"))),
        _ => Err(ParamError::new(format!("takes one of {names}, not both"))),
    }
}

/// n + 1 even points of [0, 1], and some that are near its ends.
pub(crate) fn unit(n: usize) -> impl Iterator<Item = f64> {
    let near = |k: i32| 10f64.powi(-k);
    let first = (4..=9).rev().map(near);
    let last = (4..=9).map(move |k| 1.0 - near(k));
    let mut points: Vec<f64> = (0..=n).map(|i| i as f64 / n as f64).chain(first).chain(last).collect();
    points.sort_by(f64::total_cmp);
    points.into_iter()
}
