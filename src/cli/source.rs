//! Where the source of sconce is, for crates that are built against it: the place that the user names, the one that this program
//! was built from, or the registry, by this program's own version.

use std::path::{Path, PathBuf};

use super::Failure;

/// The source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A checkout.
    Folder(PathBuf),
    /// A published version.
    Registry,
}

/// This program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Source {
    /// The one that the user names, or else the nearest.
    pub fn find(named: Option<&Path>) -> Result<Self, Failure> {
        let is_source = |folder: &Path| folder.join("core/sdk/Cargo.toml").is_file();
        match named {
            Some(folder) if is_source(folder) => {
                let folder = std::path::absolute(folder).map_err(|e| Failure::files(e.to_string()))?;
                Ok(Self::Folder(folder))
            }
            Some(folder) => {
                Err(Failure::files(format!("{}: this is no source of sconce: it has no core/sdk", folder.display())))
            }
            None => {
                let built = Path::new(env!("CARGO_MANIFEST_DIR"));
                Ok(if is_source(built) { Self::Folder(built.to_owned()) } else { Self::Registry })
            }
        }
    }

    /// A line of `[dependencies]` for a crate of it.
    pub fn dependency(&self, name: &str, folder: &str) -> String {
        match self {
            Self::Folder(root) => format!("{name} = {{ path = {:?} }}\n", root.join(folder).display().to_string()),
            Self::Registry => format!("{name} = \"{VERSION}\"\n"),
        }
    }
}
