//! Schedules across the border, in both directions: a library's plugin asked by the program, and the program's schedule
//! asked by a library's timestep sampler or spacing.

use std::ffi::c_void;
use std::sync::Arc;

use super::basic::{SconceNoise, SconceObject, SconceStatus};
use super::crossing::{Portable, adopt, each, export, free, set};
use super::declare::c_struct;
use super::foreign::{ABSENT, Foreign};
use super::guard::guard;
use super::sink::SconceError;
use super::table::{Table, TableError};
use crate::kinds::Schedule;
use crate::noise::Noise;

c_struct! {
    /// How much signal and noise there is at each time: t = 0 is data, t = 1 is noise.
    ///
    /// Laws: alpha >= 0 and sigma >= 0; the log-SNR ln(alpha^2 / sigma^2) falls strictly in t; `t_of` inverts it; the
    /// derivatives are right; all of it at every size.
    pub struct SconceSchedule {
        /// sizeof(SconceSchedule), as its writer knows it.
        pub size: usize,
        /// Frees a handle. Null: there is nothing to free.
        pub drop: Option<unsafe extern "C" fn(handle: *mut c_void)>,
        /// Signal and noise at n times in [0, 1]. Must be there.
        pub at: Option<unsafe extern "C" fn(handle: *mut c_void, n: usize, t: *const f64, out: *mut SconceNoise, error: *const SconceError) -> SconceStatus>,
        /// The times of n log-SNRs, which may be infinite. Null: found from `at` by bisection.
        pub t_of: Option<unsafe extern "C" fn(handle: *mut c_void, n: usize, log_snr: *const f64, out: *mut f64, error: *const SconceError) -> SconceStatus>,
        /// The number of points of a discrete table: point i of n is at t = (i + 1)/n and exact there, and training draws
        /// these times alone. 0: there is none. Null: 0.
        pub grid: Option<unsafe extern "C" fn(handle: *mut c_void, points: *mut u64, error: *const SconceError) -> SconceStatus>,
        /// The schedule for latents of this many rows and columns, as an object with a SconceSchedule that its drop frees.
        /// Leave `out` as it is where the size does not matter. Null: it does not.
        pub at_size: Option<unsafe extern "C" fn(handle: *mut c_void, height: u64, width: u64, out: *mut SconceObject, error: *const SconceError) -> SconceStatus>,
    }
}

impl Table for SconceSchedule {
    const LEAST: usize = std::mem::offset_of!(Self, t_of);
}

static EXPORT: SconceSchedule = SconceSchedule {
    size: size_of::<SconceSchedule>(),
    drop: Some(free::<Held<'static>>),
    at: Some(at),
    t_of: Some(t_of),
    grid: Some(grid),
    at_size: Some(at_size),
};

/// What a handle of ours points to: a schedule of a caller's, or a share of one.
enum Held<'a> {
    Borrowed(&'a dyn Schedule),
    Shared(Arc<dyn Schedule>),
}

impl Held<'_> {
    fn get(&self) -> &dyn Schedule {
        match self {
            Self::Borrowed(schedule) => *schedule,
            Self::Shared(schedule) => &**schedule,
        }
    }
}

impl Portable for dyn Schedule {
    type Table = SconceSchedule;

    fn table() -> &'static SconceSchedule {
        &EXPORT
    }

    fn handle(object: Arc<Self>) -> *mut c_void {
        Box::into_raw(Box::new(Held::Shared(object))).cast()
    }

    fn import(foreign: Foreign<SconceSchedule>) -> Arc<Self> {
        Arc::new(foreign)
    }

    fn check(table: &SconceSchedule) -> Result<(), TableError> {
        table.at.map(|_| ()).ok_or(TableError::Missing { name: "SconceSchedule", function: "at" })
    }

    fn release(table: &SconceSchedule) -> Option<unsafe extern "C" fn(*mut c_void)> {
        table.drop
    }
}

/// Lends a schedule to the other side for the length of a call.
pub(super) fn lend<R>(schedule: &dyn Schedule, call: impl FnOnce(SconceObject) -> R) -> R {
    let held = Held::Borrowed(schedule);
    let handle = std::ptr::from_ref(&held).cast_mut().cast();
    call(SconceObject { table: (&raw const EXPORT).cast(), handle })
}

/// # Safety
/// `handle` is one of [`Portable::handle`]'s or [`lend`]'s that lives.
unsafe fn held<'a>(handle: *mut c_void) -> &'a dyn Schedule {
    // SAFETY: by this function's contract it points to a `Held`.
    unsafe { (*handle.cast::<Held<'a>>()).get() }
}

unsafe extern "C" fn at(
    handle: *mut c_void,
    n: usize,
    t: *const f64,
    out: *mut SconceNoise,
    error: *const SconceError,
) -> SconceStatus {
    // SAFETY: the caller passes what this table came with, arrays of n, and a sink.
    unsafe { guard(error, || each(n, t, out, |t| held(handle).at(t).into())) }
}

unsafe extern "C" fn t_of(
    handle: *mut c_void,
    n: usize,
    log_snr: *const f64,
    out: *mut f64,
    error: *const SconceError,
) -> SconceStatus {
    // SAFETY: the caller passes what this table came with, arrays of n, and a sink.
    unsafe { guard(error, || each(n, log_snr, out, |log_snr| held(handle).t_of(log_snr))) }
}

unsafe extern "C" fn grid(handle: *mut c_void, points: *mut u64, error: *const SconceError) -> SconceStatus {
    // SAFETY: the caller passes what this table came with, a number, and a sink.
    unsafe { guard(error, || set(points, held(handle).grid().map_or(0, |n| n as u64))) }
}

unsafe extern "C" fn at_size(
    handle: *mut c_void,
    height: u64,
    width: u64,
    out: *mut SconceObject,
    error: *const SconceError,
) -> SconceStatus {
    let body = || {
        // SAFETY: the caller passes what this table came with.
        let sized = unsafe { held(handle) }.at_size(height as usize, width as usize);
        // SAFETY: the caller passes room for an object.
        sized.map_or(Ok(()), |schedule| unsafe { set(out, export(schedule)) })
    };
    // SAFETY: the caller passes a sink.
    unsafe { guard(error, body) }
}

/// The required function alone: the trait's defaults do the rest.
struct Plain<'a>(&'a Foreign<SconceSchedule>);

impl Schedule for Plain<'_> {
    fn at(&self, t: f64) -> Noise {
        self.0.at(t)
    }
}

impl Schedule for Foreign<SconceSchedule> {
    fn at(&self, t: f64) -> Noise {
        let mut out = SconceNoise::NONE;
        let done = self.call("at", |table, handle, error| match table.at {
            // SAFETY: arrays of one, and the table's own handle.
            Some(at) => unsafe { at(handle, 1, &raw const t, &raw mut out, error) },
            None => ABSENT,
        });
        if done {
            self.watch("at", [out.alpha, out.sigma, out.d_alpha, out.d_sigma], &[("t", t)]);
        }
        if done { out.into() } else { SconceNoise::NONE.into() }
    }

    fn t_of(&self, log_snr: f64) -> f64 {
        let Some(t_of) = self.table().t_of else { return Plain(self).t_of(log_snr) };
        let mut out = f64::NAN;
        // SAFETY: arrays of one, and the table's own handle.
        let call = |_: &_, handle, error| unsafe { t_of(handle, 1, &raw const log_snr, &raw mut out, error) };
        if !self.call("t_of", call) {
            return f64::NAN;
        }
        self.watch("t_of", [out], &[("log_snr", log_snr)]);
        out
    }

    fn grid(&self) -> Option<usize> {
        let grid = self.table().grid?;
        let mut points = 0;
        // SAFETY: room for a number, and the table's own handle.
        let done = self.call("grid", |_, handle, error| unsafe { grid(handle, &raw mut points, error) });
        usize::try_from(points).ok().filter(|n| done && *n > 0)
    }

    fn at_size(&self, height: usize, width: usize) -> Option<Arc<dyn Schedule>> {
        let at_size = self.table().at_size?;
        let mut out = SconceObject::NONE;
        let (rows, columns) = (height as u64, width as u64);
        // SAFETY: room for an object, and the table's own handle.
        let call = |_: &_, handle, error| unsafe { at_size(handle, rows, columns, &raw mut out, error) };
        if !self.call("at_size", call) || out.table.is_null() {
            return None;
        }
        // SAFETY: what `at_size` gives is an object with a table of schedules, ours to free.
        match unsafe { adopt::<dyn Schedule>(out, self.who()) } {
            Ok(schedule) => Some(schedule),
            Err(e) => {
                self.fault("at_size", e.into());
                None
            }
        }
    }
}
