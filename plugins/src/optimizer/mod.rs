//! How weights follow their gradients.

mod adamw;

pub use adamw::AdamW;
