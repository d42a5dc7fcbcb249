//! Weightings: how much the error counts at each noise level.

mod debiased;
mod min_snr;
mod native;

pub use debiased::Debiased;
pub use min_snr::MinSnr;
pub use native::Native;
