//! Loads plugins from shared libraries, and adds them to the registry beside those that are linked in.
//!
//! ```no_run
//! let library = sconce_dynamic::load("./libmy_plugin.so".as_ref())?;
//! for plugin in library.plugins() {
//!     println!("{} {} is from {}", plugin.kind, plugin.name, plugin.origin);
//! }
//! library.check_laws()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! To load a library is to run its code, with all that this program may do: the program must have been told to by whoever
//! runs it, never by a recipe. Everything that can be wrong with a file is looked at before: whether it can be read, its
//! size, its sha256 where one is asked for (of the file itself, not of other libraries that it needs), its headers. What it says of itself is looked at before it is believed: versions,
//! sizes of tables, null pointers, UTF-8, names, schemas. Each refusal says what, where, and what to do.
//!
//! A library is never unloaded: its code, its tables and the names in them live as long as the program.
//!
//! What a plugin does wrong later, it does where nobody can be told: a scalar function answers with a number. It then
//! answers NaN, and the failure is in [`sconce_sdk::health`], which whoever runs plugins asks once a step, and in
//! [`Library::fault`].

mod error;
mod file;
mod library;
mod plugin;

pub use error::{Fault, LawBroken, LoadError};
pub use library::{Library, Skipped, load, load_pinned, loaded};

#[doc(no_inline)]
pub use sconce_sdk::abi::header::HEADER;
