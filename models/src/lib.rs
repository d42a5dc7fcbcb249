//! Model families: how a checkpoint is recognised, what it says about itself, and the networks that it describes. Each
//! family is a plugin of the kind `family`, and nothing outside this crate knows one by name.

pub mod diffusers;
pub mod dit;
pub mod embed;
pub mod flux;
pub mod folder;
pub mod lora;
pub mod original;
pub mod own_backbone;
pub mod sd;
pub mod sd3;
pub mod text;
pub mod vae;
