//! The recipe: one file that says everything about a run, resolved from layers into plugins.

mod builtin;
mod document;
mod error;
mod layer;
mod limits;
mod native;
mod resolve;
mod schema;
mod tables;
#[cfg(test)]
mod tests;
mod write;

pub use builtin::{BuiltinRecipe, builtins};
pub use document::{Position, Syntax};
pub use error::{Blame, Fault, Origin, RecipeError};
pub use layer::inline;
pub use native::family;
pub use resolve::{RecipeSource, Resolved, resolve, resolve_in};
pub use schema::schema;
pub use tables::*;
