//! Formulas: text in, numbers and exact derivatives out. A formula is read once, by a grammar on winnow, into a list of
//! operations on a stack; what is wrong with it is said with a caret under the place. It has no loops, no memory and no way
//! out, and its length and depth are bounded, so a stranger's recipe can do no more than be refused.

mod block;
mod calculus;
mod fault;
mod formula;
mod functions;
mod grammar;
mod names;

pub use block::Column;
pub use calculus::Dual;
pub use fault::Fault;
pub use formula::Formula;
pub use functions::{CONSTANTS, FUNCTIONS, Function, Rule};
pub use names::{Names, Params, Reader};
