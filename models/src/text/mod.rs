//! Text conditioning: tokenizers, the text models of CLIP and T5, and what each family makes of them.

pub mod clip;
pub mod flux;
pub mod prompt;
pub mod sd;
pub mod sd3;
pub mod t5;
pub mod tokenizer;
pub mod unigram;
mod words;

pub use clip::ClipText;
pub use flux::FluxConditioner;
pub use sd::SdConditioner;
pub use sd3::Sd3Conditioner;
pub use t5::T5Encoder;
pub use tokenizer::{ClipTokenizer, clip_vocabulary};
pub use unigram::t5_vocabulary;
