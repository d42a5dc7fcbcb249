//! Spacings of noise levels across the border.

use std::ffi::c_void;
use std::sync::Arc;

use super::basic::{SconceLevel, SconceNoise, SconceObject, SconceStatus};
use super::crossing::{Portable, free, shared};
use super::declare::c_struct;
use super::foreign::{ABSENT, Foreign};
use super::guard::guard;
use super::schedule::{SconceSchedule, lend};
use super::sink::SconceError;
use super::table::{Table, TableError};
use crate::kinds::{Schedule, Spacing};
use crate::noise::Level;
use crate::registry::ParamError;

c_struct! {
    /// Where a sampler of n steps puts its noise levels.
    ///
    /// Laws: steps + 1 levels, of which the last is where the picture is taken; sigma/alpha falls strictly.
    ///
    /// `schedule` is an object with a SconceSchedule; it is the caller's, for the length of the call.
    pub struct SconceSpacing {
        /// sizeof(SconceSpacing), as its writer knows it.
        pub size: usize,
        /// Frees a handle. Null: there is nothing to free.
        pub drop: Option<unsafe extern "C" fn(handle: *mut c_void)>,
        /// The levels of a run: `out` has room for steps + 1, all of which are to be written. Must be there.
        pub levels: Option<unsafe extern "C" fn(handle: *mut c_void, schedule: SconceObject, steps: usize, out: *mut SconceLevel, error: *const SconceError) -> SconceStatus>,
        /// The same for a solver that counts the last level among those to be placed. Null: as `levels`.
        pub levels_counting_last: Option<unsafe extern "C" fn(handle: *mut c_void, schedule: SconceObject, steps: usize, out: *mut SconceLevel, error: *const SconceError) -> SconceStatus>,
    }
}

impl Table for SconceSpacing {
    const LEAST: usize = std::mem::offset_of!(Self, levels_counting_last);
}

static EXPORT: SconceSpacing = SconceSpacing {
    size: size_of::<SconceSpacing>(),
    drop: Some(free::<Arc<dyn Spacing>>),
    levels: Some(levels),
    levels_counting_last: Some(levels_counting_last),
};

impl Portable for dyn Spacing {
    type Table = SconceSpacing;

    fn table() -> &'static SconceSpacing {
        &EXPORT
    }

    fn import(foreign: Foreign<SconceSpacing>) -> Arc<Self> {
        Arc::new(foreign)
    }

    fn check(table: &SconceSpacing) -> Result<(), TableError> {
        table.levels.map(|_| ()).ok_or(TableError::Missing { name: "SconceSpacing", function: "levels" })
    }

    fn release(table: &SconceSpacing) -> Option<unsafe extern "C" fn(*mut c_void)> {
        table.drop
    }
}

macro_rules! places {
    ($function:ident) => {
        unsafe extern "C" fn $function(
            handle: *mut c_void,
            schedule: SconceObject,
            steps: usize,
            out: *mut SconceLevel,
            error: *const SconceError,
        ) -> SconceStatus {
            let body = || {
                // SAFETY: the caller lends an object with a table of schedules for the length of this call.
                let schedule = unsafe { Foreign::<SconceSchedule>::borrow(schedule)? };
                // SAFETY: the caller passes what this table came with.
                let levels = unsafe { shared::<dyn Spacing>(handle) }.$function(&schedule, steps);
                // SAFETY: the caller passes room for steps + 1 levels.
                unsafe { write(&levels, steps, out) }
            };
            // SAFETY: the caller passes a sink.
            unsafe { guard(error, body) }
        }
    };
}
places!(levels);
places!(levels_counting_last);

/// # Safety
/// `out` is null or points to room for steps + 1 levels.
unsafe fn write(levels: &[Level], steps: usize, out: *mut SconceLevel) -> Result<(), ParamError> {
    if out.is_null() {
        return Err(ParamError::new("was asked with a null pointer to answer at"));
    }
    if levels.len() != steps.saturating_add(1) {
        return Err(ParamError::new(format!("gives {} levels for {steps} steps, not one more", levels.len())));
    }
    for (i, level) in levels.iter().enumerate() {
        // SAFETY: not null, and there are as many levels as there is room for.
        unsafe { out.add(i).write((*level).into()) };
    }
    Ok(())
}

type Places =
    unsafe extern "C" fn(*mut c_void, SconceObject, usize, *mut SconceLevel, *const SconceError) -> SconceStatus;

impl Foreign<SconceSpacing> {
    fn ask(&self, name: &str, function: Option<Places>, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        let mut out = vec![SconceLevel { t: f64::NAN, noise: SconceNoise::NONE }; steps + 1];
        let done = self.call(name, |_, handle, error| match function {
            // SAFETY: room for steps + 1 levels, the table's own handle, and a schedule that lives until the call returns.
            Some(f) => lend(schedule, |schedule| unsafe { f(handle, schedule, steps, out.as_mut_ptr(), error) }),
            None => ABSENT,
        });
        if done {
            let answers = out.iter().map(|l| l.t + l.noise.alpha + l.noise.sigma);
            let none = answers.into_iter().find(|x| x.is_nan());
            none.into_iter().for_each(|nan| self.watch(name, [nan], &[("steps", steps as f64)]));
        }
        out.into_iter().map(Level::from).collect()
    }
}

impl Spacing for Foreign<SconceSpacing> {
    fn levels(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        self.ask("levels", self.table().levels, schedule, steps)
    }

    fn levels_counting_last(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        match self.table().levels_counting_last {
            None => self.levels(schedule, steps),
            some => self.ask("levels_counting_last", some, schedule, steps),
        }
    }
}
