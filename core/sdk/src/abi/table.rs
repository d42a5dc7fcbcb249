//! Reading a table of another's: no further than the size that it says it has, into a copy of our own whose absent fields
//! are null.

use std::mem::MaybeUninit;

use super::declare::Described;
use crate::registry::ParamError;

/// A table that begins with its size, and may have been written by an older or a newer version of this crate.
///
/// Implementors are made of numbers, pointers and `Option`s of functions, so that zeros are a value of each.
pub trait Table: Copy + Described {
    /// The size of the oldest version: what every writer has.
    const LEAST: usize;
}

/// Larger than any table: a size beyond it is not one.
const MOST: usize = 1 << 16;

/// Why something is no table.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TableError {
    /// The pointer is null.
    #[error("the {0} is a null pointer")]
    Null(&'static str),
    /// The pointer cannot be one to such a struct.
    #[error("the {0} is at an address that is not aligned for it")]
    Unaligned(&'static str),
    /// The size is impossible.
    #[error(
        "the {name} says that it has {size} bytes; it has {least} or more, and its first field must be sizeof({name})"
    )]
    Size {
        /// The struct.
        name: &'static str,
        /// What it says.
        size: usize,
        /// What the oldest version has.
        least: usize,
    },
    /// A function that must be there is not.
    #[error("the {name} has no `{function}`, which it must have")]
    Missing {
        /// The struct.
        name: &'static str,
        /// The field.
        function: &'static str,
    },
}

impl From<TableError> for ParamError {
    fn from(e: TableError) -> Self {
        ParamError::new(e.to_string())
    }
}

/// A copy of the table, with zeros for what its writer did not know.
///
/// # Safety
/// `table` is null, or points to a `usize` that is the number of bytes that can be read from there on.
pub unsafe fn read<T: Table>(table: *const T) -> Result<T, TableError> {
    let name = T::DESCRIPTION.name;
    if table.is_null() {
        return Err(TableError::Null(name));
    }
    if !table.is_aligned() {
        return Err(TableError::Unaligned(name));
    }
    // SAFETY: not null, aligned, and by this function's contract a `usize`.
    let size = unsafe { table.cast::<usize>().read() };
    if size < T::LEAST || size > MOST {
        return Err(TableError::Size { name, size, least: T::LEAST });
    }
    let mut copy = MaybeUninit::<T>::zeroed();
    // SAFETY: by this function's contract `size` bytes can be read, and no more than the copy has are written.
    unsafe { table.cast::<u8>().copy_to_nonoverlapping(copy.as_mut_ptr().cast(), size.min(size_of::<T>())) };
    // SAFETY: tables are made of numbers, pointers and optional functions, of all of which zeros are a value.
    Ok(unsafe { copy.assume_init() })
}
