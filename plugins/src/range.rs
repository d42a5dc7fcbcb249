//! Ranges of parameters, checked where a recipe is read, so that the error names the field and the plugins can rely on
//! their numbers.

use sconce_sdk::Profile;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected};

fn checked<'de, D: Deserializer<'de>>(d: D, range: &'static str, holds: fn(f64) -> bool) -> Result<f64, D::Error> {
    let x = f64::deserialize(d)?;
    if holds(x) { Ok(x) } else { Err(D::Error::invalid_value(Unexpected::Float(x), &range)) }
}

/// Finite and above 0.
pub(crate) fn positive<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    checked(d, "a number above 0", |x| x.is_finite() && x > 0.0)
}

/// Finite and not below 0.
pub(crate) fn not_negative<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    checked(d, "0 or a number above it", |x| x.is_finite() && x >= 0.0)
}

/// Finite.
pub(crate) fn finite<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    checked(d, "a finite number", f64::is_finite)
}

/// In [0, 1].
pub(crate) fn share<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    checked(d, "a number from 0 to 1", |x| (0.0..=1.0).contains(&x))
}

/// In (0, 1), the ends left out.
pub(crate) fn inside_unit<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    checked(d, "a number between 0 and 1", |x| x > 0.0 && x < 1.0)
}

/// Nothing, or finite and above 0.
pub(crate) fn maybe_positive<'de, D: Deserializer<'de>>(d: D) -> Result<Option<f64>, D::Error> {
    match Option::<f64>::deserialize(d)? {
        Some(x) if !(x.is_finite() && x > 0.0) => {
            Err(D::Error::invalid_value(Unexpected::Float(x), &"a number above 0"))
        }
        x => Ok(x),
    }
}

/// A relative width that a power-function average can have.
pub(crate) fn width<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    checked(d, "a width above 0 and up to 0.2886, that of the plain mean", |x| Profile::of_width(x).is_some())
}

/// Several such widths, no two the same.
pub(crate) fn widths<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<f64>, D::Error> {
    #[derive(Deserialize)]
    struct Width(#[serde(deserialize_with = "width")] f64);
    let widths: Vec<f64> = Vec::<Width>::deserialize(d)?.into_iter().map(|w| w.0).collect();
    if widths.is_empty() || widths.iter().enumerate().any(|(i, w)| widths[..i].contains(w)) {
        return Err(D::Error::invalid_value(Unexpected::Seq, &"one width or more, no two the same"));
    }
    Ok(widths)
}

/// Nothing, or finite.
pub(crate) fn maybe_finite<'de, D: Deserializer<'de>>(d: D) -> Result<Option<f64>, D::Error> {
    match Option::<f64>::deserialize(d)? {
        Some(x) if !x.is_finite() => Err(D::Error::invalid_value(Unexpected::Float(x), &"a finite number")),
        x => Ok(x),
    }
}

/// Nothing, or 1 and more.
pub(crate) fn maybe_count<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    match Option::<u64>::deserialize(d)? {
        Some(0) => Err(D::Error::invalid_value(Unexpected::Unsigned(0), &"1 or more")),
        n => Ok(n),
    }
}

/// 1 or more.
pub(crate) fn count<'de, D: Deserializer<'de>>(d: D) -> Result<usize, D::Error> {
    match usize::deserialize(d)? {
        0 => Err(D::Error::invalid_value(Unexpected::Unsigned(0), &"1 or more")),
        n => Ok(n),
    }
}

/// The points of a discrete schedule: 2 or more.
pub(crate) fn points<'de, D: Deserializer<'de>>(d: D) -> Result<usize, D::Error> {
    match usize::deserialize(d)? {
        n if n < 2 => Err(D::Error::invalid_value(Unexpected::Unsigned(n as u64), &"2 steps or more")),
        n => Ok(n),
    }
}
