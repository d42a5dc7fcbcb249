//! What is added to the layers of a frozen model.

mod lora;
mod sketch;
mod small;

pub use lora::Lora;
