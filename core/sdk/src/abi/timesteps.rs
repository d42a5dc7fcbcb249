//! Timestep samplers across the border. They ask a schedule of the caller's, which crosses the other way.

use std::ffi::c_void;
use std::sync::Arc;

use super::basic::{SconceObject, SconceStatus};
use super::crossing::{Portable, each, free, set, shared};
use super::declare::c_struct;
use super::foreign::{ABSENT, Foreign};
use super::guard::guard;
use super::learned::{SconceSamplerState, export_sampler};
use super::schedule::{SconceSchedule, lend};
use super::sink::SconceError;
use super::table::{Table, TableError};
use crate::kinds::{Schedule, TimestepSampler};
use crate::learned::SamplerState;

c_struct! {
    /// Which times are trained on, as an inverse cumulative distribution.
    ///
    /// Laws: `quantile` rises in u and stays in [0, 1]; the density is that of the quantiles, and integrates to 1.
    ///
    /// `schedule` is an object with a SconceSchedule, for distributions over noise levels; it is the caller's, for the
    /// length of the call.
    pub struct SconceTimesteps {
        /// sizeof(SconceTimesteps), as its writer knows it.
        pub size: usize,
        /// Frees a handle. Null: there is nothing to free.
        pub drop: Option<unsafe extern "C" fn(handle: *mut c_void)>,
        /// The times of n quantiles u in [0, 1). Must be there.
        pub quantile: Option<unsafe extern "C" fn(handle: *mut c_void, n: usize, u: *const f64, schedule: SconceObject, out: *mut f64, error: *const SconceError) -> SconceStatus>,
        /// The shares of the draws at n times or before them. Null: found from `quantile` by bisection.
        pub cumulative: Option<unsafe extern "C" fn(handle: *mut c_void, n: usize, t: *const f64, schedule: SconceObject, out: *mut f64, error: *const SconceError) -> SconceStatus>,
        /// The draws per unit of t at n times. Null: a difference of `cumulative`.
        pub density: Option<unsafe extern "C" fn(handle: *mut c_void, n: usize, t: *const f64, schedule: SconceObject, out: *mut f64, error: *const SconceError) -> SconceStatus>,
        /// What it learns as the run goes, at its start, as an object with a SconceSamplerState that its drop frees. Leave
        /// `out` as it is where it learns nothing. Null: it does not.
        pub start: Option<unsafe extern "C" fn(handle: *mut c_void, out: *mut SconceObject, error: *const SconceError) -> SconceStatus>,
    }
}

impl Table for SconceTimesteps {
    const LEAST: usize = std::mem::offset_of!(Self, cumulative);
}

static EXPORT: SconceTimesteps = SconceTimesteps {
    size: size_of::<SconceTimesteps>(),
    drop: Some(free::<Arc<dyn TimestepSampler>>),
    quantile: Some(quantile),
    cumulative: Some(cumulative),
    density: Some(density),
    start: Some(start),
};

impl Portable for dyn TimestepSampler {
    type Table = SconceTimesteps;

    fn table() -> &'static SconceTimesteps {
        &EXPORT
    }

    fn import(foreign: Foreign<SconceTimesteps>) -> Arc<Self> {
        Arc::new(foreign)
    }

    fn check(table: &SconceTimesteps) -> Result<(), TableError> {
        table.quantile.map(|_| ()).ok_or(TableError::Missing { name: "SconceTimesteps", function: "quantile" })
    }

    fn release(table: &SconceTimesteps) -> Option<unsafe extern "C" fn(*mut c_void)> {
        table.drop
    }
}

/// A function of a sampler's: of the numbers in an array, with a schedule at hand.
macro_rules! asks {
    ($function:ident) => {
        unsafe extern "C" fn $function(
            handle: *mut c_void,
            n: usize,
            questions: *const f64,
            schedule: SconceObject,
            out: *mut f64,
            error: *const SconceError,
        ) -> SconceStatus {
            let body = || {
                // SAFETY: the caller passes what this table came with.
                let sampler = unsafe { shared::<dyn TimestepSampler>(handle) };
                // SAFETY: the caller lends an object with a table of schedules for the length of this call.
                let schedule = unsafe { Foreign::<SconceSchedule>::borrow(schedule)? };
                // SAFETY: the caller passes arrays of n.
                unsafe { each(n, questions, out, |x| sampler.$function(x, &schedule)) }
            };
            // SAFETY: the caller passes a sink.
            unsafe { guard(error, body) }
        }
    };
}
asks!(quantile);
asks!(cumulative);
asks!(density);

unsafe extern "C" fn start(handle: *mut c_void, out: *mut SconceObject, error: *const SconceError) -> SconceStatus {
    let body = || {
        // SAFETY: the caller passes what this table came with.
        let state = unsafe { shared::<dyn TimestepSampler>(handle) }.start();
        // SAFETY: the caller passes room for an object.
        state.map_or(Ok(()), |state| unsafe { set(out, export_sampler(state)) })
    };
    // SAFETY: the caller passes a sink.
    unsafe { guard(error, body) }
}

/// The functions that are there: the trait's defaults do the rest.
struct Plain<'a>(&'a Foreign<SconceTimesteps>);

impl TimestepSampler for Plain<'_> {
    fn quantile(&self, u: f64, schedule: &dyn Schedule) -> f64 {
        self.0.quantile(u, schedule)
    }
}

/// As [`Plain`], with the library's own distribution function.
struct Counted<'a>(&'a Foreign<SconceTimesteps>);

impl TimestepSampler for Counted<'_> {
    fn quantile(&self, u: f64, schedule: &dyn Schedule) -> f64 {
        self.0.quantile(u, schedule)
    }

    fn cumulative(&self, t: f64, schedule: &dyn Schedule) -> f64 {
        self.0.cumulative(t, schedule)
    }
}

type Asked =
    unsafe extern "C" fn(*mut c_void, usize, *const f64, SconceObject, *mut f64, *const SconceError) -> SconceStatus;

impl Foreign<SconceTimesteps> {
    fn ask(&self, name: &str, function: Option<Asked>, question: (&str, f64), schedule: &dyn Schedule) -> f64 {
        let mut out = f64::NAN;
        let x = question.1;
        let done = self.call(name, |_, handle, error| match function {
            // SAFETY: arrays of one, the table's own handle, and a schedule that lives until the call returns.
            Some(f) => lend(schedule, |schedule| unsafe { f(handle, 1, &raw const x, schedule, &raw mut out, error) }),
            None => ABSENT,
        });
        if !done {
            return f64::NAN;
        }
        self.watch(name, [out], &[question]);
        out
    }
}

impl TimestepSampler for Foreign<SconceTimesteps> {
    fn quantile(&self, u: f64, schedule: &dyn Schedule) -> f64 {
        self.ask("quantile", self.table().quantile, ("u", u), schedule)
    }

    fn cumulative(&self, t: f64, schedule: &dyn Schedule) -> f64 {
        match self.table().cumulative {
            None => Plain(self).cumulative(t, schedule),
            some => self.ask("cumulative", some, ("t", t), schedule),
        }
    }

    fn density(&self, t: f64, schedule: &dyn Schedule) -> f64 {
        match self.table().density {
            None => Counted(self).density(t, schedule),
            some => self.ask("density", some, ("t", t), schedule),
        }
    }

    fn start(&self) -> Option<Box<dyn SamplerState>> {
        let start = self.table().start?;
        let mut out = SconceObject::NONE;
        // SAFETY: room for an object, and the table's own handle.
        if !self.call("start", |_, handle, error| unsafe { start(handle, &raw mut out, error) }) || out.table.is_null()
        {
            return None;
        }
        // SAFETY: what `start` gives is an object with a table of samplers' states, ours to free.
        match unsafe { Foreign::<SconceSamplerState>::take(out, self.who(), |table| table.drop) }
            .and_then(Foreign::<SconceSamplerState>::complete)
        {
            Ok(state) => Some(Box::new(state)),
            Err(e) => {
                self.fault("start", e.into());
                None
            }
        }
    }
}
