//! What is added to the layers of a frozen model.

mod boft;
mod dora;
mod full_difference;
mod ia3;
mod inputs;
mod loha;
mod lokr;
mod lora;
mod oft;
mod parts;
mod sketch;

pub use boft::Boft;
pub use dora::Dora;
pub use full_difference::FullDifference;
pub use ia3::Ia3;
pub use loha::Loha;
pub use lokr::Lokr;
pub use lora::Lora;
pub use oft::Oft;
