//! Reading a table of another's: no further than the size that it says it has, into a copy of our own whose absent fields
//! are null.

use std::mem::MaybeUninit;

use super::declare::Described;
use crate::registry::ParamError;

/// A table that begins with its size, and may have been written by an older or a newer version of this crate.
///
/// Implementors are made of numbers, pointers and `Option`s of functions, so that zeros are a value of each.
pub trait Table: Copy + Described {
    /// The size up to the last field that must be there: what every writer has.
    const LEAST: usize;
}

/// Larger than any table: a size beyond it is not one.
const MOST: usize = 1 << 14;

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
    #[error("the {name} says that it has {size} bytes; its first field must be sizeof({name}), {least} or more")]
    Size {
        /// The struct.
        name: &'static str,
        /// What it says.
        size: usize,
        /// The size up to the last field that must be there.
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

#[cfg(test)]
mod tests {
    use super::super::declare::c_struct;
    use super::*;

    c_struct! {
        /// A table as it was.
        pub struct Old {
            /// Its size.
            pub size: usize,
            /// A number.
            pub number: u64,
        }
    }

    c_struct! {
        /// The same, grown.
        pub struct New {
            /// Its size.
            pub size: usize,
            /// A number.
            pub number: u64,
            /// A function.
            pub function: Option<unsafe extern "C" fn()>,
        }
    }

    impl Table for Old {
        const LEAST: usize = size_of::<Self>();
    }
    impl Table for New {
        const LEAST: usize = size_of::<Old>();
    }

    unsafe extern "C" fn nothing() {}

    #[test]
    fn older_and_newer_tables_are_read_as_far_as_both_know_them() {
        let old = Old { size: size_of::<Old>(), number: 5 };
        let new = New { size: size_of::<New>(), number: 6, function: Some(nothing) };
        // SAFETY: the tables have the sizes that they say.
        let (old_by_new, new_by_old) =
            unsafe { (read((&raw const old).cast::<New>()).unwrap(), read((&raw const new).cast::<Old>()).unwrap()) };
        assert!(old_by_new.number == 5 && old_by_new.function.is_none());
        assert_eq!(new_by_old.number, 6);
    }

    #[test]
    fn what_is_no_table_is_told() {
        let read_sized = |size| {
            let table = Old { size, number: 5 };
            // SAFETY: of a size that is refused no more than itself is read.
            unsafe { read(&raw const table) }.map(|_| ()).map_err(|e| e.to_string())
        };
        for size in [0, 8, MOST + 1, usize::MAX] {
            let words =
                format!("the Old says that it has {size} bytes; its first field must be sizeof(Old), 16 or more");
            assert_eq!(read_sized(size), Err(words));
        }
        let odd = std::ptr::without_provenance::<Old>(1);
        // SAFETY: neither is followed.
        let (null, odd) = unsafe { (read::<Old>(std::ptr::null()), read(odd)) };
        assert_eq!(null.err(), Some(TableError::Null("Old")));
        assert_eq!(odd.err(), Some(TableError::Unaligned("Old")));
    }
}
