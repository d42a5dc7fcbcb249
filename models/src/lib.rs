//! Model families: how a checkpoint is recognised, what it says about itself, and the networks that it describes. Each
//! family is a plugin of the kind `family`, and nothing outside this crate knows one by name.

pub mod diffusers;
pub mod lora;
pub mod sd;
pub mod text;
pub mod vae;
