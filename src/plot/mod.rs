//! Pictures of what recipes and plugins do: [`panels`] makes a [`Figure`] of the curves of `sconce_core::curves`, and
//! [`draw`] draws it.

mod axis;
pub mod draw;
pub mod figure;
mod layout;
pub mod panels;
mod polyline;
pub mod text;

use std::path::Path;

pub use draw::DrawError;
pub use figure::Figure;

/// A file's format, by its ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines and text.
    Svg,
    /// Pixels.
    Png,
}

impl Format {
    /// Of a file's name.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "svg" => Some(Self::Svg),
            "png" => Some(Self::Png),
            _ => None,
        }
    }
}

impl Figure {
    /// The bytes of a file.
    pub fn encode(&self, format: Format) -> Result<Vec<u8>, DrawError> {
        match format {
            Format::Svg => Ok(draw::svg(self)?.into_bytes()),
            Format::Png => draw::png(self),
        }
    }
}
