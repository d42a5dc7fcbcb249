//! Weightings: how much the error counts at each noise level.

mod debiased;
mod min_snr;
mod native;
mod uncertainty;

pub use debiased::Debiased;
pub use min_snr::MinSnr;
pub use native::Native;
pub use uncertainty::Uncertainty;
