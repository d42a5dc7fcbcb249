//! Why a library is refused: what, where, and what to do.

use std::io;
use std::path::PathBuf;

use sconce_sdk::ParamError;
use sconce_sdk::abi::{ABI_MAJOR, ABI_MINOR, TableError};

/// A library that is not loaded.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct LoadError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a library.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// There is no such file.
    #[error("there is no such file")]
    Missing,
    /// It is a folder, a pipe, a device.
    #[error("is not a file")]
    NotAFile,
    /// The system does not let it be read.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// Nobody writes plugins of this size.
    #[error("has {bytes} bytes; a library of plugins has at most {most}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The largest that is read.
        most: u64,
    },
    /// Its first bytes are those of something else.
    #[error("is not a shared library of this system: it is {0}")]
    NotALibrary(String),
    /// Its headers speak of bytes that it does not have.
    #[error("is cut short: it has {bytes} bytes, and its headers speak of {needed}")]
    Truncated {
        /// Its size.
        bytes: u64,
        /// Where its last part would end.
        needed: u64,
    },
    /// It is not the file that was asked for.
    #[error("has the sha256 {found}, not {wanted}")]
    Hash {
        /// Of the file.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// It was written to while it was being loaded.
    #[error("changed while it was being loaded")]
    Changed,
    /// The system's loader does not take it.
    #[error("cannot be loaded: {0}")]
    Loader(String),
    /// It has no entry.
    #[error("has no function `{}`, so it is not a library of sconce plugins", sconce_sdk::abi::ENTRY)]
    NoEntry,
    /// Its entry refused.
    #[error("does not let itself be used: it {}", .0.message)]
    Refused(ParamError),
    /// It is for another major version.
    #[error("speaks version {major}.{minor} of the plugin ABI ({sdk}); this sconce speaks {ABI_MAJOR}.{ABI_MINOR}")]
    Abi {
        /// Its major version.
        major: u32,
        /// Its minor version.
        minor: u32,
        /// What it was built with.
        sdk: String,
    },
    /// A table of its is none.
    #[error("{place}: {error}")]
    Table {
        /// Which table.
        place: String,
        /// What is wrong with it.
        error: TableError,
    },
    /// A text or a name of its is none.
    #[error("{place}: {what}")]
    Text {
        /// Where it is.
        place: String,
        /// What is wrong with it.
        what: String,
    },
    /// It has nothing that this program can use.
    #[error("has no plugin that this sconce can use{0}")]
    Nothing(String),
    /// A name of its is there already.
    #[error("{0}")]
    Taken(ParamError),
}

impl LoadError {
    /// What to do about it.
    pub fn help(&self) -> String {
        match &self.fault {
            Fault::Missing => {
                "check the path; `cargo build --release` puts a crate's library into target/release".into()
            }
            Fault::NotAFile => "give the library itself, such as target/release/libmy_plugin.so".into(),
            Fault::Unreadable(_) => "check the file's permissions".into(),
            Fault::TooLarge { .. } => "check that the path is that of a library".into(),
            Fault::NotALibrary(_) => {
                "build it for this system: crate-type = [\"rlib\", \"cdylib\"] in Cargo.toml, or cc -shared -fPIC"
                    .into()
            }
            Fault::Truncated { .. } => "copy or build it again".into(),
            Fault::Hash { .. } => {
                "get the file that was meant, or, if this one is to be trusted, name its sha256".into()
            }
            Fault::Changed => "wait until it is written, and try again".into(),
            Fault::Loader(_) => {
                let shows = if cfg!(target_os = "macos") { "otool -L" } else { "ldd" };
                format!("`{shows}` on the file shows which libraries it misses; build it on this system")
            }
            Fault::NoEntry => {
                "in Rust, write `sconce_sdk::export!();` in the crate's lib.rs and build it as a cdylib; \
                               in C, define `sconce_plugin` as sconce_plugin.h declares it"
                    .into()
            }
            Fault::Refused(e) => e.help.clone().unwrap_or_else(|| "ask the library's author".into()),
            Fault::Abi { major, .. } if *major > ABI_MAJOR => "update sconce".into(),
            Fault::Abi { .. } => {
                format!("update the library: build it with sconce-sdk {} or newer", env!("CARGO_PKG_VERSION"))
            }
            Fault::Table { .. } | Fault::Text { .. } => {
                "this is an error in the library: tell its author, with these words".into()
            }
            Fault::Nothing(_) => "update sconce, or link the crate in".into(),
            Fault::Taken(_) => "load one of them only, or rename the plugin".into(),
        }
    }
}

/// A library's plugin that breaks a law of its kind.
#[derive(Debug, thiserror::Error)]
#[error("{plugin} breaks a law of its kind: {law}")]
pub struct LawBroken {
    /// Which, from where.
    pub plugin: String,
    /// What does not hold, where, and of which table.
    pub law: String,
}
