//! Text conditioning: CLIP's tokenizer, its text model, and what the Stable Diffusion families make of them.

pub mod clip;
pub mod sd;
pub mod tokenizer;

pub use clip::ClipText;
pub use sd::SdConditioner;
pub use tokenizer::ClipTokenizer;
