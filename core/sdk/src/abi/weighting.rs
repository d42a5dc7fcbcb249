//! Weightings across the border.

use std::ffi::c_void;
use std::sync::Arc;

use super::basic::{SconceNoise, SconceObject, SconceStatus};
use super::crossing::{Portable, each, each_of_two, free, set, shared};
use super::declare::c_struct;
use super::foreign::{ABSENT, Foreign};
use super::guard::guard;
use super::learned::{SconceWeightingState, export_weighting};
use super::sink::SconceError;
use super::table::{Table, TableError};
use crate::kinds::Weighting;
use crate::learned::WeightingState;
use crate::noise::Noise;

c_struct! {
    /// How much the error counts at each noise level.
    ///
    /// Laws: finite and not negative on every level that is drawn; the weight on the x0 error does not depend on the
    /// objective.
    pub struct SconceWeighting {
        /// sizeof(SconceWeighting), as its writer knows it.
        pub size: usize,
        /// Frees a handle. Null: there is nothing to free.
        pub drop: Option<unsafe extern "C" fn(handle: *mut c_void)>,
        /// The factors on |x0 - x0'|^2 at n log-SNRs ln(alpha^2 / sigma^2), which may be infinite. Must be there.
        pub on_x0: Option<unsafe extern "C" fn(handle: *mut c_void, n: usize, log_snr: *const f64, out: *mut f64, error: *const SconceError) -> SconceStatus>,
        /// The factors on the output error |y - y'|^2 at n noise levels for n pairs a, b of the objective's: `target` has
        /// 2 n numbers. Null: on_x0 (sigma / D)^2 with D = alpha b - sigma a, which is right for nearly all.
        pub on_output: Option<unsafe extern "C" fn(handle: *mut c_void, n: usize, noise: *const SconceNoise, target: *const f64, out: *mut f64, error: *const SconceError) -> SconceStatus>,
        /// What it learns as the run goes, at its start, as an object with a SconceWeightingState that its drop frees.
        /// Leave `out` as it is where it learns nothing. Null: it does not.
        pub start: Option<unsafe extern "C" fn(handle: *mut c_void, out: *mut SconceObject, error: *const SconceError) -> SconceStatus>,
    }
}

impl Table for SconceWeighting {
    const LEAST: usize = std::mem::offset_of!(Self, on_output);
}

static EXPORT: SconceWeighting = SconceWeighting {
    size: size_of::<SconceWeighting>(),
    drop: Some(free::<Arc<dyn Weighting>>),
    on_x0: Some(on_x0),
    on_output: Some(on_output),
    start: Some(start),
};

impl Portable for dyn Weighting {
    type Table = SconceWeighting;

    fn table() -> &'static SconceWeighting {
        &EXPORT
    }

    fn import(foreign: Foreign<SconceWeighting>) -> Arc<Self> {
        Arc::new(foreign)
    }

    fn check(table: &SconceWeighting) -> Result<(), TableError> {
        table.on_x0.map(|_| ()).ok_or(TableError::Missing { name: "SconceWeighting", function: "on_x0" })
    }

    fn release(table: &SconceWeighting) -> Option<unsafe extern "C" fn(*mut c_void)> {
        table.drop
    }
}

unsafe extern "C" fn on_x0(
    handle: *mut c_void,
    n: usize,
    log_snr: *const f64,
    out: *mut f64,
    error: *const SconceError,
) -> SconceStatus {
    // SAFETY: the caller passes what this table came with, arrays of n, and a sink.
    unsafe { guard(error, || each(n, log_snr, out, |x| shared::<dyn Weighting>(handle).on_x0(x))) }
}

unsafe extern "C" fn on_output(
    handle: *mut c_void,
    n: usize,
    noise: *const SconceNoise,
    target: *const f64,
    out: *mut f64,
    error: *const SconceError,
) -> SconceStatus {
    let answer = |noise: SconceNoise, target: [f64; 2]| {
        // SAFETY: the caller passes what this table came with.
        unsafe { shared::<dyn Weighting>(handle) }.on_output(&noise.into(), target)
    };
    // SAFETY: the caller passes arrays of n, the second of pairs, and a sink.
    unsafe { guard(error, || each_of_two(n, noise, target.cast::<[f64; 2]>(), out, answer)) }
}

unsafe extern "C" fn start(handle: *mut c_void, out: *mut SconceObject, error: *const SconceError) -> SconceStatus {
    let body = || {
        // SAFETY: the caller passes what this table came with.
        let state = unsafe { shared::<dyn Weighting>(handle) }.start();
        // SAFETY: the caller passes room for an object.
        state.map_or(Ok(()), |state| unsafe { set(out, export_weighting(state)) })
    };
    // SAFETY: the caller passes a sink.
    unsafe { guard(error, body) }
}

/// The required function alone: the trait's defaults do the rest.
struct Plain<'a>(&'a Foreign<SconceWeighting>);

impl Weighting for Plain<'_> {
    fn on_x0(&self, log_snr: f64) -> f64 {
        self.0.on_x0(log_snr)
    }
}

impl Weighting for Foreign<SconceWeighting> {
    fn on_x0(&self, log_snr: f64) -> f64 {
        let mut out = f64::NAN;
        let done = self.call("on_x0", |table, handle, error| match table.on_x0 {
            // SAFETY: arrays of one, and the table's own handle.
            Some(on_x0) => unsafe { on_x0(handle, 1, &raw const log_snr, &raw mut out, error) },
            None => ABSENT,
        });
        if !done {
            return f64::NAN;
        }
        self.watch("on_x0", [out], &[("log_snr", log_snr)]);
        out
    }

    fn on_output(&self, noise: &Noise, target: [f64; 2]) -> f64 {
        let Some(on_output) = self.table().on_output else { return Plain(self).on_output(noise, target) };
        let (level, mut out) = (SconceNoise::from(*noise), f64::NAN);
        // SAFETY: arrays of one, the second of a pair, and the table's own handle.
        let call = |_: &_, handle, error| unsafe {
            on_output(handle, 1, &raw const level, target.as_ptr(), &raw mut out, error)
        };
        if !self.call("on_output", call) {
            return f64::NAN;
        }
        // Where the determinant is 0 the output says nothing, and no number is right.
        if noise.determinant(target) != 0.0 {
            let [a, b] = target;
            self.watch("on_output", [out], &[("alpha", noise.alpha), ("sigma", noise.sigma), ("a", a), ("b", b)]);
        }
        out
    }

    fn start(&self) -> Option<Box<dyn WeightingState>> {
        let start = self.table().start?;
        let mut out = SconceObject::NONE;
        // SAFETY: room for an object, and the table's own handle.
        if !self.call("start", |_, handle, error| unsafe { start(handle, &raw mut out, error) }) || out.table.is_null()
        {
            return None;
        }
        // SAFETY: what `start` gives is an object with a table of weightings' states, ours to free.
        match unsafe { Foreign::<SconceWeightingState>::take(out, self.who(), |table| table.drop) }
            .and_then(Foreign::<SconceWeightingState>::complete)
        {
            Ok(state) => Some(Box::new(state)),
            Err(e) => {
                self.fault("start", e.into());
                None
            }
        }
    }
}
