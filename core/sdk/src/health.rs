//! What went wrong where there was no room to say so: a scalar plugin answers with a number, and one that is loaded from a
//! library may fail to. It then answers NaN and reports here, and whoever runs plugins asks here before the numbers count:
//! a step once, before its update.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// A failure of a plugin, told in full: which one, from where, in what call, and why.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

static FAULTY: AtomicBool = AtomicBool::new(false);
static FIRST: Mutex<Option<Fault>> = Mutex::new(None);

/// Reports a failure. The first one is kept: what comes after it mostly comes of it.
pub fn report(fault: Fault) {
    let mut first = FIRST.lock().unwrap_or_else(|e| e.into_inner());
    first.get_or_insert(fault);
    FAULTY.store(true, Ordering::Release);
}

/// An error if any plugin of this process failed since the last [`take`]. It costs one load of an atomic where none did.
pub fn check() -> Result<(), Fault> {
    if !FAULTY.load(Ordering::Acquire) {
        return Ok(());
    }
    let first = FIRST.lock().unwrap_or_else(|e| e.into_inner());
    first.clone().map_or(Ok(()), Err)
}

/// The same, and forgets it.
pub fn take() -> Option<Fault> {
    let mut first = FIRST.lock().unwrap_or_else(|e| e.into_inner());
    FAULTY.store(false, Ordering::Release);
    first.take()
}
