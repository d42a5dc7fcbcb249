//! How weights follow their gradients.

mod adafactor;
mod adamw;
mod adamw_8bit;
mod blockwise;
mod came;
mod factored;
mod lion;
mod muon;
mod prodigy;
mod schedule_free_adamw;

pub use adafactor::{Adafactor, Scale};
pub use adamw::AdamW;
pub use adamw_8bit::AdamW8Bit;
pub use came::Came;
pub use lion::Lion;
pub use muon::{Muon, MuonScale};
pub use prodigy::Prodigy;
pub use schedule_free_adamw::ScheduleFreeAdamW;
