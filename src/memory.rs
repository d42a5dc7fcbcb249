//! How long the program's allocator keeps what is freed. A step asks for the same sizes as the one before it; memory that went
//! back to the system in between comes cleared again, page by page, which took up to a fifth of a step's time.

use libmimalloc_sys::{mi_option_set_default, mi_option_t, mi_option_use_numa_nodes, mi_version};

/// In milliseconds, for mimalloc's own second. What is not asked for again, such as the memory of text encoders that have gone,
/// goes back to the system after that.
const KEPT_MS: std::ffi::c_long = 60_000;

/// Has freed memory kept for some steps, where `MIMALLOC_PURGE_DELAY` does not say how long. For a program whose allocator is
/// mimalloc; on another it has no effect.
pub fn keep() {
    // `mi_option_purge_delay`, which the bindings leave out: before this one in the headers of versions 2 and 3.
    const PURGE_DELAY: mi_option_t = mi_option_use_numa_nodes - 1;
    // SAFETY: a number is asked for and one is set, which the allocator reads when it frees.
    unsafe {
        if matches!(mi_version() / 10_000, 2 | 3) {
            mi_option_set_default(PURGE_DELAY, KEPT_MS);
        }
    }
}
