//! Distances: how an output's error counts by its size.

mod huber;
mod log_cosh;
mod mse;
mod smooth_l1;
mod width;

pub use huber::Huber;
pub use log_cosh::LogCosh;
pub use mse::Mse;
pub use smooth_l1::SmoothL1;
pub use width::WidthSchedule;
