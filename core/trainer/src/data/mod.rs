//! Pictures and captions, from folders to batches. Nothing is dropped silently: every crop, skip and missing caption
//! is in the [`Report`]. The order of a run is a pure function of the seed, so a resumed run sees what the whole run
//! would have seen.

mod bucket;
mod cache;
mod order;
mod parquet;
mod picture;
mod set;
mod source;

pub use bucket::Buckets;
pub use cache::{Cache, Encoded};
pub use order::{Dropped, Order, Use};
pub(crate) use parquet::split;
pub use picture::{Frame, Framing, Mirrored};
pub use set::{Item, Report, Set, Skipped};
