//! Distances across the border. They are asked for every element of an output, so the caller hands over whole arrays
//! ([`Distance::at_each`](crate::Distance::at_each)).

use std::ffi::c_void;
use std::sync::Arc;

use super::basic::{SconceNoise, SconceStatus};
use super::crossing::{Portable, each_of_two, free, shared};
use super::declare::c_struct;
use super::foreign::{ABSENT, Foreign};
use super::guard::guard;
use super::sink::SconceError;
use super::table::{Table, TableError};
use crate::kinds::Distance;
use crate::noise::Noise;
use crate::registry::ParamError;

c_struct! {
    /// How far an output is from its target, element by element: rho_c(d) of the difference d and of a width c.
    ///
    /// Laws: rho is 0 at 0, even, and grows with |d|; the slope is its derivative; the width is finite and above 0.
    pub struct SconceDistance {
        /// sizeof(SconceDistance), as its writer knows it.
        pub size: usize,
        /// Frees a handle. Null: there is nothing to free.
        pub drop: Option<unsafe extern "C" fn(handle: *mut c_void)>,
        /// rho_c(d) and its derivative by d at n differences, for one width: `out` takes 2 n numbers, value and slope in
        /// turn. n is that of the elements of a picture's latents. Must be there.
        pub at: Option<unsafe extern "C" fn(handle: *mut c_void, n: usize, difference: *const f64, width: f64, out: *mut f64, error: *const SconceError) -> SconceStatus>,
        /// The widths at n times, with the noise level of each. Null: 1.
        pub width: Option<unsafe extern "C" fn(handle: *mut c_void, n: usize, t: *const f64, noise: *const SconceNoise, out: *mut f64, error: *const SconceError) -> SconceStatus>,
    }
}

impl Table for SconceDistance {
    const LEAST: usize = std::mem::offset_of!(Self, width);
}

static EXPORT: SconceDistance = SconceDistance {
    size: size_of::<SconceDistance>(),
    drop: Some(free::<Arc<dyn Distance>>),
    at: Some(at),
    width: Some(width),
};

impl Portable for dyn Distance {
    type Table = SconceDistance;

    fn table() -> &'static SconceDistance {
        &EXPORT
    }

    fn import(foreign: Foreign<SconceDistance>) -> Arc<Self> {
        Arc::new(foreign)
    }

    fn check(table: &SconceDistance) -> Result<(), TableError> {
        table.at.map(|_| ()).ok_or(TableError::Missing { name: "SconceDistance", function: "at" })
    }

    fn release(table: &SconceDistance) -> Option<unsafe extern "C" fn(*mut c_void)> {
        table.drop
    }
}

unsafe extern "C" fn at(
    handle: *mut c_void,
    n: usize,
    difference: *const f64,
    width: f64,
    out: *mut f64,
    error: *const SconceError,
) -> SconceStatus {
    let body = || {
        if n == 0 {
            return Ok(());
        }
        if difference.is_null() || out.is_null() {
            return Err(ParamError::new(format!("was asked {n} times with a null pointer")));
        }
        // SAFETY: not null, and the caller passes n numbers, and room for n pairs that nobody else looks at. Any bits are
        // numbers, so that the room need not have been written.
        let (differences, out) = unsafe {
            out.write_bytes(0, 2 * n);
            (std::slice::from_raw_parts(difference, n), std::slice::from_raw_parts_mut(out.cast::<[f64; 2]>(), n))
        };
        // SAFETY: the caller passes what this table came with.
        unsafe { shared::<dyn Distance>(handle) }.at_each(differences, width, out);
        Ok(())
    };
    // SAFETY: the caller passes a sink.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn width(
    handle: *mut c_void,
    n: usize,
    t: *const f64,
    noise: *const SconceNoise,
    out: *mut f64,
    error: *const SconceError,
) -> SconceStatus {
    let answer = |t: f64, noise: SconceNoise| {
        // SAFETY: the caller passes what this table came with.
        unsafe { shared::<dyn Distance>(handle) }.width(t, &noise.into())
    };
    // SAFETY: the caller passes arrays of n, and a sink.
    unsafe { guard(error, || each_of_two(n, t, noise, out, answer)) }
}

impl Distance for Foreign<SconceDistance> {
    fn at(&self, difference: f64, width: f64) -> [f64; 2] {
        let mut out = [[f64::NAN; 2]];
        self.at_each(&[difference], width, &mut out);
        out[0]
    }

    fn at_each(&self, differences: &[f64], width: f64, out: &mut [[f64; 2]]) {
        let n = differences.len().min(out.len());
        let answers = out.as_mut_ptr().cast::<f64>();
        let done = self.call("at", |table, handle, error| match table.at {
            // SAFETY: arrays of n, the second of pairs, and the table's own handle.
            Some(at) => unsafe { at(handle, n, differences.as_ptr(), width, answers, error) },
            None => ABSENT,
        });
        if !done {
            return out.fill([f64::NAN; 2]);
        }
        if let Some((d, answer)) = differences.iter().zip(out.iter()).find(|(_, [rho, slope])| (rho + slope).is_nan()) {
            self.watch("at", *answer, &[("difference", *d), ("width", width)]);
        }
    }

    fn width(&self, t: f64, noise: &Noise) -> f64 {
        let Some(width) = self.table().width else { return 1.0 };
        let (level, mut out) = (SconceNoise::from(*noise), f64::NAN);
        // SAFETY: arrays of one, and the table's own handle.
        let call =
            |_: &_, handle, error| unsafe { width(handle, 1, &raw const t, &raw const level, &raw mut out, error) };
        if !self.call("width", call) {
            return f64::NAN;
        }
        self.watch("width", [out], &[("t", t), ("alpha", noise.alpha), ("sigma", noise.sigma)]);
        out
    }
}
