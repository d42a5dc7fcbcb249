//! Learning-rate schedules across the border.

use std::ffi::c_void;
use std::sync::Arc;

use super::basic::SconceStatus;
use super::crossing::{Portable, each_of_two, free, shared};
use super::declare::c_struct;
use super::foreign::{ABSENT, Foreign};
use super::guard::guard;
use super::sink::SconceError;
use super::table::{Table, TableError};
use crate::kinds::LrSchedule;

c_struct! {
    /// The factor on every learning rate over the run.
    ///
    /// Laws: finite and not negative.
    pub struct SconceLr {
        /// sizeof(SconceLr), as its writer knows it.
        pub size: usize,
        /// Frees a handle. Null: there is nothing to free.
        pub drop: Option<unsafe extern "C" fn(handle: *mut c_void)>,
        /// The factors for n steps: one that begins at `images_seen[i]` of `images_total[i]`. Must be there.
        pub factor: Option<unsafe extern "C" fn(handle: *mut c_void, n: usize, images_seen: *const u64, images_total: *const u64, out: *mut f64, error: *const SconceError) -> SconceStatus>,
    }
}

impl Table for SconceLr {
    const LEAST: usize = size_of::<Self>();
}

static EXPORT: SconceLr =
    SconceLr { size: size_of::<SconceLr>(), drop: Some(free::<Arc<dyn LrSchedule>>), factor: Some(factor) };

impl Portable for dyn LrSchedule {
    type Table = SconceLr;

    fn table() -> &'static SconceLr {
        &EXPORT
    }

    fn import(foreign: Foreign<SconceLr>) -> Arc<Self> {
        Arc::new(foreign)
    }

    fn check(table: &SconceLr) -> Result<(), TableError> {
        table.factor.map(|_| ()).ok_or(TableError::Missing { name: "SconceLr", function: "factor" })
    }

    fn release(table: &SconceLr) -> Option<unsafe extern "C" fn(*mut c_void)> {
        table.drop
    }
}

unsafe extern "C" fn factor(
    handle: *mut c_void,
    n: usize,
    images_seen: *const u64,
    images_total: *const u64,
    out: *mut f64,
    error: *const SconceError,
) -> SconceStatus {
    let answer = |seen: u64, total: u64| {
        // SAFETY: the caller passes what this table came with.
        unsafe { shared::<dyn LrSchedule>(handle) }.factor(seen, total)
    };
    // SAFETY: the caller passes arrays of n, and a sink.
    unsafe { guard(error, || each_of_two(n, images_seen, images_total, out, answer)) }
}

impl LrSchedule for Foreign<SconceLr> {
    fn factor(&self, images_seen: u64, images_total: u64) -> f64 {
        let mut out = f64::NAN;
        let done = self.call("factor", |table, handle, error| match table.factor {
            // SAFETY: arrays of one, and the table's own handle.
            Some(factor) => unsafe {
                factor(handle, 1, &raw const images_seen, &raw const images_total, &raw mut out, error)
            },
            None => ABSENT,
        });
        if !done {
            return f64::NAN;
        }
        let question = [("images_seen", images_seen as f64), ("images_total", images_total as f64)];
        self.watch("factor", [out], &question);
        out
    }
}
