//! Objectives: what the network learns to output, as the pair of coefficients in y = a x0 + b eps.

mod edm;
mod epsilon;
mod flow;
mod v;
mod x0;

pub use edm::Edm;
pub use epsilon::Epsilon;
pub use flow::Flow;
pub use v::V;
pub use x0::X0;
