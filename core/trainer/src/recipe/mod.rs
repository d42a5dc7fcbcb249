//! The recipe: one file that says everything about a run, resolved from layers into plugins.
//!
//! The layers, weakest first: the defaults, what the checkpoint says about itself, the recipes that the recipe `extends`
//! (a built-in one by name, or a file), the recipe, environment variables (`SCONCE_TRAIN__IMAGES=200`), and `--set`.
//! Tables merge field by field. A table whose `type` differs from the lower layer's replaces it whole, since one
//! plugin's fields mean nothing to another; with the same `type`, or none, it merges. A plain string where a plugin's
//! table could stand is that plugin with its defaults. `adapter = false`, `validation = false` and `preview = false`
//! take away what a lower layer has. Lists are replaced. Relative paths are relative to the file that they stand in;
//! those of the environment, of `--set` and of built-in recipes to the working folder.
//!
//! Two phases: first the layers are merged as plain values that remember where they were written, then each `type` is
//! looked up in the registry and its table read typed. All faults that can be found are reported together.

mod builtin;
mod chain;
mod convert;
mod document;
mod error;
mod layer;
mod limits;
mod native;
mod needs;
mod reader;
mod resolve;
mod schema;
mod shape;
mod tables;
#[cfg(test)]
mod tests;
mod token;
mod write;

pub use builtin::{BuiltinRecipe, builtins};
pub use convert::{Convert, Fading};
pub use document::{Position, Syntax};
pub use error::{Blame, Fault, Origin, RecipeError};
pub use layer::inline;
pub use native::family;
pub use needs::{NeededPlugin, NeedsTable};
pub use resolve::{RecipeSource, Resolved, resolve, resolve_in};
pub use schema::schema;
pub use shape::Editor;
pub use tables::*;
pub use token::TokenTable;
