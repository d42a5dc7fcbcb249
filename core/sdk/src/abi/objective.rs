//! Objectives across the border.

use std::ffi::c_void;
use std::sync::Arc;

use super::basic::{SconceNoise, SconceStatus};
use super::crossing::{Portable, each, free, shared};
use super::declare::c_struct;
use super::foreign::{ABSENT, Foreign};
use super::guard::guard;
use super::sink::SconceError;
use super::table::{Table, TableError};
use crate::kinds::Objective;
use crate::noise::Noise;

c_struct! {
    /// What the network learns: y = a x0 + b eps.
    ///
    /// Laws: x0 and eps come back from (x_t, y) wherever the determinant alpha b - sigma a is not 0.
    pub struct SconceObjective {
        /// sizeof(SconceObjective), as its writer knows it.
        pub size: usize,
        /// Frees a handle. Null: there is nothing to free.
        pub drop: Option<unsafe extern "C" fn(handle: *mut c_void)>,
        /// The pairs a, b at n noise levels: `out` takes 2 n numbers. Must be there.
        pub target: Option<unsafe extern "C" fn(handle: *mut c_void, n: usize, noise: *const SconceNoise, out: *mut f64, error: *const SconceError) -> SconceStatus>,
        /// The factors on x_t before it enters the network, at n noise levels. Null: 1.
        pub input_scale: Option<unsafe extern "C" fn(handle: *mut c_void, n: usize, noise: *const SconceNoise, out: *mut f64, error: *const SconceError) -> SconceStatus>,
    }
}

impl Table for SconceObjective {
    const LEAST: usize = std::mem::offset_of!(Self, input_scale);
}

static EXPORT: SconceObjective = SconceObjective {
    size: size_of::<SconceObjective>(),
    drop: Some(free::<Arc<dyn Objective>>),
    target: Some(target),
    input_scale: Some(input_scale),
};

impl Portable for dyn Objective {
    type Table = SconceObjective;

    fn table() -> &'static SconceObjective {
        &EXPORT
    }

    fn import(foreign: Foreign<SconceObjective>) -> Arc<Self> {
        Arc::new(foreign)
    }

    fn check(table: &SconceObjective) -> Result<(), TableError> {
        table.target.map(|_| ()).ok_or(TableError::Missing { name: "SconceObjective", function: "target" })
    }

    fn release(table: &SconceObjective) -> Option<unsafe extern "C" fn(*mut c_void)> {
        table.drop
    }
}

unsafe extern "C" fn target(
    handle: *mut c_void,
    n: usize,
    noise: *const SconceNoise,
    out: *mut f64,
    error: *const SconceError,
) -> SconceStatus {
    let answer = |noise: SconceNoise| {
        // SAFETY: the caller passes what this table came with.
        unsafe { shared::<dyn Objective>(handle) }.target(&noise.into())
    };
    // SAFETY: the caller passes arrays of n, the second of pairs, and a sink.
    unsafe { guard(error, || each(n, noise, out.cast::<[f64; 2]>(), answer)) }
}

unsafe extern "C" fn input_scale(
    handle: *mut c_void,
    n: usize,
    noise: *const SconceNoise,
    out: *mut f64,
    error: *const SconceError,
) -> SconceStatus {
    let answer = |noise: SconceNoise| {
        // SAFETY: the caller passes what this table came with.
        unsafe { shared::<dyn Objective>(handle) }.input_scale(&noise.into())
    };
    // SAFETY: the caller passes arrays of n, and a sink.
    unsafe { guard(error, || each(n, noise, out, answer)) }
}

impl Objective for Foreign<SconceObjective> {
    fn target(&self, noise: &Noise) -> [f64; 2] {
        let (level, mut out) = (SconceNoise::from(*noise), [f64::NAN; 2]);
        let done = self.call("target", |table, handle, error| match table.target {
            // SAFETY: arrays of one, and the table's own handle.
            Some(target) => unsafe { target(handle, 1, &raw const level, out.as_mut_ptr(), error) },
            None => ABSENT,
        });
        self.answer("target", done, out, noise)
    }

    fn input_scale(&self, noise: &Noise) -> f64 {
        let Some(input_scale) = self.table().input_scale else { return 1.0 };
        let (level, mut out) = (SconceNoise::from(*noise), f64::NAN);
        // SAFETY: arrays of one, and the table's own handle.
        let call = |_: &_, handle, error| unsafe { input_scale(handle, 1, &raw const level, &raw mut out, error) };
        let done = self.call("input_scale", call);
        let [scale] = self.answer("input_scale", done, [out], noise);
        scale
    }
}

impl Foreign<SconceObjective> {
    fn answer<const N: usize>(&self, function: &str, done: bool, out: [f64; N], n: &Noise) -> [f64; N] {
        if !done {
            return [f64::NAN; N];
        }
        let level = [("alpha", n.alpha), ("sigma", n.sigma), ("d_alpha", n.d_alpha), ("d_sigma", n.d_sigma)];
        self.watch(function, out, &level);
        out
    }
}
