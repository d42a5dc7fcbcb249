//! A plugin, or a state, of the other side: its table and handle as an object of ours. The kinds' modules implement the
//! kinds' traits for it.

use std::ffi::c_void;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::basic::{SconceObject, SconceStatus};
use super::guard::remember;
use super::sink::{Report, SconceError};
use super::table::{Table, TableError, read};
use super::{SCONCE_FAILED, SCONCE_OK};
use crate::health::{self, Fault};
use crate::registry::ParamError;

/// Whose a foreign plugin is, for messages: and its first failure.
#[derive(Debug)]
pub struct Who {
    name: String,
    fault: Mutex<Option<Fault>>,
}

impl Who {
    /// A plugin that is called this in messages: "the weighting `x` of crate 0.1.0 (/path/libx.so)".
    pub fn new(name: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), fault: Mutex::new(None) })
    }

    /// The first failure of any object of this plugin.
    pub fn fault(&self) -> Option<Fault> {
        self.fault.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    fn report(&self, fault: Fault) {
        self.fault.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(fault.clone());
        health::report(fault);
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A table of the other side with its handle.
///
/// A function of a trait that has no room for an error answers NaN where the other side failed, after reporting it to
/// [`crate::health`]; the object is not called again, since nobody knows what state it is in.
pub struct Foreign<T: Table> {
    table: T,
    handle: *mut c_void,
    drop: Option<unsafe extern "C" fn(*mut c_void)>,
    /// `None` in a library, whose plugins tell what failed below them to who called.
    who: Option<Arc<Who>>,
    broken: AtomicBool,
}

// SAFETY: the ABI asks of every plugin that its functions may be called from any thread, from several at once; of every
// state that it may be passed from thread to thread. The traits that a state's `Foreign` is used by ask for no more.
unsafe impl<T: Table> Send for Foreign<T> {}
// SAFETY: as above.
unsafe impl<T: Table> Sync for Foreign<T> {}

impl<T: Table> Drop for Foreign<T> {
    fn drop(&mut self) {
        if let Some(drop) = self.drop {
            // SAFETY: the handle is what the table's functions take, and nothing uses it after this.
            unsafe { drop(self.handle) };
        }
    }
}

impl<T: Table> Foreign<T> {
    /// Takes over an object: `drop` is its table's.
    ///
    /// # Safety
    /// `object.table` is null or points to a `T` of any version of the ABI's, which lives for ever; the handle is one that
    /// its functions take, and nobody else frees it.
    pub(super) unsafe fn take(
        object: SconceObject,
        who: Option<Arc<Who>>,
        drop: fn(&T) -> Option<unsafe extern "C" fn(*mut c_void)>,
    ) -> Result<Self, TableError> {
        // SAFETY: by this function's contract.
        let table = unsafe { read(object.table.cast::<T>())? };
        let drop = drop(&table);
        Ok(Self { table, handle: object.handle, drop, who, broken: AtomicBool::new(false) })
    }

    /// Uses an object of the caller's for the length of a call.
    ///
    /// # Safety
    /// As for [`Foreign::take`], but that the caller frees the handle, after the last use of this.
    pub(super) unsafe fn borrow(object: SconceObject) -> Result<Self, TableError> {
        // SAFETY: by this function's contract.
        unsafe { Self::take(object, None, |_| None) }
    }

    pub(super) fn table(&self) -> &T {
        &self.table
    }

    pub(super) fn who(&self) -> Option<Arc<Who>> {
        self.who.clone()
    }

    /// Calls a function of the table, with a sink for its error.
    pub(super) fn try_call(
        &self,
        call: impl FnOnce(&T, *mut c_void, *const SconceError) -> SconceStatus,
    ) -> Result<(), ParamError> {
        let report = Report::default();
        let sink = report.sink();
        match call(&self.table, self.handle, &raw const sink) {
            SCONCE_OK => Ok(()),
            _ => Err(report.finish()),
        }
    }

    /// The same for a function that must not fail. `false`: it did, and that is reported.
    pub(super) fn call(
        &self,
        function: &str,
        call: impl FnOnce(&T, *mut c_void, *const SconceError) -> SconceStatus,
    ) -> bool {
        if self.broken.load(Ordering::Relaxed) {
            return false;
        }
        match self.try_call(call) {
            Ok(()) => true,
            Err(error) => {
                self.broken.store(true, Ordering::Relaxed);
                self.fault(function, error);
                false
            }
        }
    }

    /// Gives the handle to a function that frees something of its.
    pub(super) fn with(&self, f: impl FnOnce(*mut c_void)) {
        f(self.handle);
    }

    /// A failure with the plugin's name and the function's.
    pub(super) fn named(&self, function: &str, error: &ParamError) -> String {
        match &self.who {
            Some(who) => format!("{who}: `{function}` {error}"),
            None => error.to_string(),
        }
    }

    /// Reports a failure of a function that cannot tell.
    #[cold]
    pub(super) fn fault(&self, function: &str, mut error: ParamError) {
        if let Some(who) = &self.who {
            error.message = format!("{who}: `{function}` {}", error.message);
            who.report(Fault(error.to_string()));
        }
        remember(&error);
    }

    /// Reports NaN as the answer to numbers that have one.
    pub(super) fn watch<const N: usize>(&self, function: &str, answer: [f64; N], question: &[(&str, f64)]) {
        if self.who.is_some() && answer.iter().any(|x| x.is_nan()) && question.iter().all(|(_, x)| x.is_finite()) {
            let question: Vec<String> = question.iter().map(|(name, x)| format!("{name} = {x}")).collect();
            self.fault(function, ParamError::new(format!("gives NaN at {}", question.join(", "))));
        }
    }
}

/// What a null function pointer amounts to where it is called all the same.
pub(super) const ABSENT: SconceStatus = SCONCE_FAILED;
