//! Schedules: how much signal and noise there is at each time.

mod by_betas;
mod cosine;
mod cosine_continuous;
mod edm;
mod linear;
mod log_snr_shift;
mod rectified_flow;
mod rectified_flow_flux;
mod rectified_flow_sd3;
mod scaled_linear;
mod sigmoid;
mod sigmoid_betas;
mod table;
mod zero_terminal;

pub use cosine::Cosine;
pub use cosine_continuous::CosineContinuous;
pub use edm::{Edm, Frame};
pub use linear::Linear;
pub use log_snr_shift::LogSnrShift;
pub use rectified_flow::RectifiedFlow;
pub use rectified_flow_flux::RectifiedFlowFlux;
pub use rectified_flow_sd3::RectifiedFlowSd3;
pub use scaled_linear::ScaledLinear;
pub use sigmoid::Sigmoid;
pub use sigmoid_betas::SigmoidBetas;
pub use table::Table;
pub use zero_terminal::ZeroTerminal;
