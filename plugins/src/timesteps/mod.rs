//! Timestep samplers: which times are trained on, each as its inverse distribution function. Stratifying is the step's:
//! it hands over one u from each equal part of [0, 1).

mod beta;
mod cosmap;
mod fixed_list;
mod log_normal_sigma;
mod logit_normal;
mod loss_aware;
mod mode;
mod range;
mod shift;
mod uniform;

pub use beta::Beta;
pub use cosmap::Cosmap;
pub use fixed_list::FixedList;
pub use log_normal_sigma::LogNormalSigma;
pub use logit_normal::LogitNormal;
pub use loss_aware::{By, LossAware};
pub use mode::Mode;
pub use range::Range;
pub use shift::Shift;
pub use uniform::Uniform;
