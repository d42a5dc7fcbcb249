//! What is added to the layers of a frozen model.

mod lora;

pub use lora::Lora;
