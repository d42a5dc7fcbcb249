//! Schedules: how much signal and noise there is at each time.

mod cosine;
mod linear;
mod rectified_flow;
mod scaled_linear;
mod table;
mod zero_terminal;

pub use cosine::Cosine;
pub use linear::Linear;
pub use rectified_flow::RectifiedFlow;
pub use scaled_linear::ScaledLinear;
pub use table::Table;
pub use zero_terminal::ZeroTerminal;
