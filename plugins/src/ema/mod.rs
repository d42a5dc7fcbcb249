//! Averages of the weights.

mod constant;
mod inverse_power;
mod none;
mod post_hoc;
mod power;

pub use constant::Constant;
pub use inverse_power::InversePower;
pub use none::None;
pub use post_hoc::PostHoc;
pub use power::Power;
