//! The Hugging Face Hub for sconce: what a recipe means by `hf://owner/name`, which files that is, those files in the
//! cache that the Python client shares, and a finished model back to the Hub.
//!
//! From `hf-hub` come the names: a repository's path in URLs, its folder in the cache, where blobs and snapshots lie. What
//! it does not do is done here, on the same HTTP client (`ureq`): a cut download goes on where it was cut, length and hash
//! are checked before a file has its name, the token never goes to another host, tries and waits are counted, answers have
//! an end, every path in them is checked, and there are uploads.
//!
//! Nothing here prints: what a person should know goes to [`Progress::notice`].

mod answer;
mod cache;
mod check;
mod client;
mod download;
mod error;
mod hub;
mod lfs;
mod listing;
mod offline;
mod page;
mod progress;
mod push;
mod reference;
mod retry;
mod settings;
mod status;
pub mod testkit;
mod web;

pub use error::{Error, Result};
pub use hub::{Hub, Snapshot};
pub use listing::{Digest, FileInfo, Listing};
pub use page::is_address;
pub use progress::Progress;
pub use push::Visibility;
pub use reference::{Kind, Reference};
pub use settings::{Settings, Token};
