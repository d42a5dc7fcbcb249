//! What is added to the layers of a frozen model.

mod lora;
mod sketch;

pub use lora::Lora;
