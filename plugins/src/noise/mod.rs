//! Kinds of noise: what the pictures are mixed with.

mod assignment;
mod fade;
mod gaussian;
mod immiscible;
mod input_perturbation;
mod offset;
mod pyramid;

pub use fade::Fade;
pub use gaussian::Gaussian;
pub use immiscible::{Immiscible, Pairing};
pub use input_perturbation::InputPerturbation;
pub use offset::Offset;
pub use pyramid::Pyramid;

use sconce_core::noise::NoiseSource;
use sconce_sdk::Choice;

/// The noise that others add to by default.
fn gaussian() -> Choice<dyn NoiseSource> {
    Choice::named("gaussian").expect("gaussian is registered beside this")
}
