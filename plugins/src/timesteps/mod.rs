//! Timestep samplers: which times are trained on, each as its inverse distribution function. Stratifying is the step's:
//! it hands over one u from each equal part of [0, 1).

mod logit_normal;
mod loss_aware;
pub(crate) mod probit;
mod uniform;

pub use logit_normal::LogitNormal;
pub use loss_aware::{By, LossAware};
pub use uniform::Uniform;
