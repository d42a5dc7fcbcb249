//! The laws of the kinds that work on tensors, to be run on everything registered, and by the tests of other crates on plugins
//! of their own. Those of the scalar kinds are in [`sconce_sdk::testkit`]. Each is a function that says which law does not hold.
//!
//! ```ignore
//! #[test]
//! fn keeps_the_laws() {
//!     sconce_core::testkit::solver(&*Choice::<dyn Solver>::named("my-solver").unwrap()).unwrap();
//! }
//! ```

mod adapter;
mod backbone;
mod noise;
mod optimizer;
mod solver;

use candle_core::{DType, Result, Tensor};
use sconce_nn::gradcheck::pseudo_random;

pub use adapter::{adapter, adapter_with_constants, merged_output, output};
pub use backbone::backbone;
pub use noise::{noise, noise_alone, noise_of_unit_variance};
pub use optimizer::optimizer;
pub use sconce_sdk::testkit::{Law, instances, instances_of};
pub use solver::solver;

/// What the body of a law can end with: a law that does not hold, or an operation that fails.
struct Broken(String);

impl From<candle_core::Error> for Broken {
    fn from(error: candle_core::Error) -> Self {
        Self(crate::message(&error))
    }
}

type Checked = std::result::Result<(), Broken>;

fn holds(law: bool, what: impl FnOnce() -> String) -> Checked {
    if law { Ok(()) } else { Err(Broken(what())) }
}

fn law(checked: Checked, of: impl FnOnce() -> String) -> Law {
    checked.map_err(|Broken(what)| match of() {
        of if of.is_empty() => what,
        of => format!("{of}: {what}"),
    })
}

/// Numbers spread over (-1, 1), f32.
fn random(shape: &[usize], seed: u64) -> Result<Tensor> {
    pseudo_random(shape, seed)?.to_dtype(DType::F32)
}

fn numbers(t: &Tensor) -> Result<Vec<f32>> {
    t.flatten_all()?.to_dtype(DType::F32)?.to_vec1()
}

fn bits(t: &Tensor) -> Result<Vec<u32>> {
    Ok(numbers(t)?.into_iter().map(f32::to_bits).collect())
}

fn finite(t: &Tensor) -> Result<bool> {
    Ok(numbers(t)?.iter().all(|v| v.is_finite()))
}

/// The largest difference, relative to the largest of `b`. Not finite where either is not.
fn distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    let (a, b) = (numbers(a)?, numbers(b)?);
    let most = |all: &mut dyn Iterator<Item = f64>| all.fold(0f64, |most, v| if v.is_nan() { v } else { most.max(v) });
    let largest = most(&mut b.iter().map(|v| f64::from(v.abs())));
    Ok(most(&mut a.iter().zip(&b).map(|(a, b)| f64::from((a - b).abs()))) / largest.max(1e-3))
}

/// Sum of the products, in f64.
fn product(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok(numbers(a)?.iter().zip(numbers(b)?).map(|(a, b)| f64::from(*a) * f64::from(b)).sum())
}
