//! Learning-rate schedules: a factor on every rate, by images seen.

mod constant;
mod cosine;
mod cosine_restarts;
mod inverse_sqrt;
mod linear;
mod polynomial;
mod rex;
mod warmup_stable_decay;

pub use constant::Constant;
pub use cosine::Cosine;
pub use cosine_restarts::CosineRestarts;
pub use inverse_sqrt::InverseSqrt;
pub use linear::Linear;
pub use polynomial::Polynomial;
pub use rex::Rex;
pub use warmup_stable_decay::{Decay, WarmupStableDecay};

/// The factor of a linear warm-up, which is never quite 0: a first step that moves nothing would be wasted.
fn warmup(images_seen: u64, warmup_images: u64) -> f64 {
    ((images_seen + 1) as f64 / (warmup_images + 1) as f64).min(1.0)
}

/// The share of the way from the end of the warm-up to the end of the run.
fn progress(images_seen: u64, images_total: u64, warmup_images: u64) -> f64 {
    let length = images_total.saturating_sub(warmup_images).max(1);
    (images_seen.saturating_sub(warmup_images) as f64 / length as f64).min(1.0)
}
