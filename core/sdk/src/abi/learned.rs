//! What plugins learn, across the border: told by the program, kept in the program's checkpoints, restored into a library's
//! fresh state.

use std::ffi::c_void;

use super::basic::{SconceObject, SconceObservation, SconceStatus};
use super::crossing::{each, free};
use super::declare::c_struct;
use super::foreign::{ABSENT, Foreign};
use super::guard::guard;
use super::sink::{NumberBuffer, SconceError, SconceNumbers};
use super::table::{Table, TableError};
use crate::learned::{Learned, Observation, SamplerState, WeightingState};
use crate::registry::ParamError;

/// Both states' tables, but for the one function that they differ in.
macro_rules! state {
    (
        $(#[doc = $about:literal])* $table:ident: $trait:ident,
        $(#[doc = $doc:literal])* $function:ident: $type:ty, $export:ident, $make:expr
    ) => {
        c_struct! {
            $(#[doc = $about])*
            ///
            /// A state is a pure function of what it was told. One thread at a time uses it. A handle is a state.
            pub struct $table {
                /// The size of this struct, as its writer knows it.
                pub size: usize,
                /// Frees a handle. Null: there is nothing to free.
                pub drop: Option<unsafe extern "C" fn(handle: *mut c_void)>,
                /// Takes in the n pictures of one update; an item is `item_size` bytes, which may be more than
                /// sizeof(SconceObservation). Must be there.
                pub observe: Option<unsafe extern "C" fn(handle: *mut c_void, n: usize, seen: *const SconceObservation, item_size: usize, error: *const SconceError) -> SconceStatus>,
                /// Puts everything needed to go on exactly. Must be there.
                pub save: Option<unsafe extern "C" fn(handle: *mut c_void, state: *const SconceNumbers, error: *const SconceError) -> SconceStatus>,
                /// Takes it back, in a state that was just started; fails where it does not fit. Must be there.
                pub restore: Option<unsafe extern "C" fn(handle: *mut c_void, n: usize, state: *const f64, error: *const SconceError) -> SconceStatus>,
                $(#[doc = $doc])*
                pub $function: Option<$type>,
            }
        }

        impl Table for $table {
            const LEAST: usize = size_of::<Self>();
        }

        /// A state of ours for the other side; its table's `drop` frees it.
        pub(super) fn $export(state: Box<dyn $trait>) -> SconceObject {
            static EXPORT: $table = $table {
                size: size_of::<$table>(),
                drop: Some(free::<Box<dyn $trait>>),
                observe: Some(observe::<dyn $trait>),
                save: Some(save::<dyn $trait>),
                restore: Some(restore::<dyn $trait>),
                $function: Some($make),
            };
            SconceObject { table: (&raw const EXPORT).cast(), handle: Box::into_raw(Box::new(state)).cast() }
        }

        impl Learned for Foreign<$table> {
            fn observe(&mut self, seen: &[Observation]) {
                let seen: Vec<SconceObservation> = seen.iter().map(|o| (*o).into()).collect();
                let each = size_of::<SconceObservation>();
                self.call("observe", |table, handle, error| match table.observe {
                    // SAFETY: an array with its length and the size of an item, and the table's own handle.
                    Some(observe) => unsafe { observe(handle, seen.len(), seen.as_ptr(), each, error) },
                    None => ABSENT,
                });
            }

            fn save(&self) -> Vec<f64> {
                let numbers = NumberBuffer::default();
                let sink = numbers.sink();
                let done = self.call("save", |table, handle, error| match table.save {
                    // SAFETY: a sink that lives, and the table's own handle.
                    Some(save) => unsafe { save(handle, &raw const sink, error) },
                    None => ABSENT,
                });
                let saved = if done { numbers.finish() } else { Ok(Vec::new()) };
                saved.unwrap_or_else(|e| {
                    self.fault("save", e);
                    Vec::new()
                })
            }

            fn restore(&mut self, state: &[f64]) -> Result<(), String> {
                let restored = self.try_call(|table, handle, error| match table.restore {
                    // SAFETY: an array with its length, and the table's own handle.
                    Some(restore) => unsafe { restore(handle, state.len(), state.as_ptr(), error) },
                    None => ABSENT,
                });
                restored.map_err(|e| e.to_string())
            }
        }

        impl Foreign<$table> {
            /// Fails if a function is absent that must be there.
            pub(super) fn complete(self) -> Result<Self, TableError> {
                let table = self.table();
                let absent = [
                    ("observe", table.observe.is_none()),
                    ("save", table.save.is_none()),
                    ("restore", table.restore.is_none()),
                    (stringify!($function), table.$function.is_none()),
                ];
                match absent.iter().find(|(_, absent)| *absent) {
                    Some((function, _)) => Err(TableError::Missing { name: stringify!($table), function }),
                    None => Ok(self),
                }
            }
        }
    };
}

state! {
    /// What a timestep sampler learned: a map of [0, 1) onto itself before its own quantiles. It rises from 0 to 1, and the
    /// weight is its derivative, so that the loss stays unbiased.
    SconceSamplerState: SamplerState,
    /// The quantiles v to train at in place of n numbers u, and their weights dv/du: `out` takes 2 n numbers, v and weight
    /// in turn. Must be there.
    map: unsafe extern "C" fn(handle: *mut c_void, n: usize, u: *const f64, out: *mut f64, error: *const SconceError) -> SconceStatus,
    export_sampler, map
}

state! {
    /// What a weighting learned: the logarithm u(lambda) of the loss that it expects, by which a loss L becomes L/e^u + u.
    /// Finite, at infinite log-SNRs too.
    SconceWeightingState: WeightingState,
    /// u at n log-SNRs. Must be there.
    log_loss: unsafe extern "C" fn(handle: *mut c_void, n: usize, log_snr: *const f64, out: *mut f64, error: *const SconceError) -> SconceStatus,
    export_weighting, log_loss
}

/// # Safety
/// The handle is one of an exported state of this trait, which nobody else uses for `'a`.
unsafe fn state<'a, S: ?Sized>(handle: *mut c_void) -> &'a mut S {
    // SAFETY: by this function's contract it points to a `Box<S>`.
    unsafe { &mut *handle.cast::<Box<S>>() }
}

unsafe extern "C" fn observe<S: Learned + ?Sized>(
    handle: *mut c_void,
    n: usize,
    seen: *const SconceObservation,
    item_size: usize,
    error: *const SconceError,
) -> SconceStatus {
    let body = || {
        if n > 0 && (seen.is_null() || item_size < size_of::<SconceObservation>() || !item_size.is_multiple_of(8)) {
            return Err(ParamError::new(format!("was told of {n} pictures by items of {item_size} bytes")));
        }
        // SAFETY: not null, and the caller passes n items, each of which begins with the fields that we know.
        let one = |i| unsafe { seen.cast::<u8>().add(i * item_size).cast::<SconceObservation>().read() };
        let seen: Vec<Observation> = (0..n).map(|i| one(i).into()).collect();
        // SAFETY: the caller passes what this table came with, from one thread at a time.
        unsafe { state::<S>(handle) }.observe(&seen);
        Ok(())
    };
    // SAFETY: the caller passes a sink.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn save<S: Learned + ?Sized>(
    handle: *mut c_void,
    numbers: *const SconceNumbers,
    error: *const SconceError,
) -> SconceStatus {
    // SAFETY: the caller passes what this table came with, from one thread at a time, and sinks.
    unsafe { guard(error, || SconceNumbers::give(numbers, &state::<S>(handle).save())) }
}

unsafe extern "C" fn restore<S: Learned + ?Sized>(
    handle: *mut c_void,
    n: usize,
    numbers: *const f64,
    error: *const SconceError,
) -> SconceStatus {
    let body = || {
        let numbers = match (n, numbers.is_null()) {
            (0, _) => &[],
            (_, true) => return Err(ParamError::new(format!("was given {n} numbers at a null pointer"))),
            // SAFETY: not null, and the caller passes n numbers.
            (_, false) => unsafe { std::slice::from_raw_parts(numbers, n) },
        };
        // SAFETY: the caller passes what this table came with, from one thread at a time.
        unsafe { state::<S>(handle) }.restore(numbers).map_err(ParamError::new)
    };
    // SAFETY: the caller passes a sink.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn map(
    handle: *mut c_void,
    n: usize,
    u: *const f64,
    out: *mut f64,
    error: *const SconceError,
) -> SconceStatus {
    // SAFETY: the caller passes what this table came with, from one thread at a time, arrays of n, and a sink.
    unsafe { guard(error, || each(n, u, out.cast::<[f64; 2]>(), |u| state::<dyn SamplerState>(handle).map(u))) }
}

unsafe extern "C" fn log_loss(
    handle: *mut c_void,
    n: usize,
    log_snr: *const f64,
    out: *mut f64,
    error: *const SconceError,
) -> SconceStatus {
    // SAFETY: the caller passes what this table came with, from one thread at a time, arrays of n, and a sink.
    unsafe { guard(error, || each(n, log_snr, out, |x| state::<dyn WeightingState>(handle).log_loss(x))) }
}

impl SamplerState for Foreign<SconceSamplerState> {
    fn map(&self, u: f64) -> [f64; 2] {
        let mut out = [f64::NAN; 2];
        let done = self.call("map", |table, handle, error| match table.map {
            // SAFETY: arrays of one, the second of a pair, and the table's own handle.
            Some(map) => unsafe { map(handle, 1, &raw const u, out.as_mut_ptr(), error) },
            None => ABSENT,
        });
        if !done {
            return [f64::NAN; 2];
        }
        self.watch("map", out, &[("u", u)]);
        out
    }
}

impl WeightingState for Foreign<SconceWeightingState> {
    fn log_loss(&self, log_snr: f64) -> f64 {
        let mut out = f64::NAN;
        let done = self.call("log_loss", |table, handle, error| match table.log_loss {
            // SAFETY: arrays of one, and the table's own handle.
            Some(log_loss) => unsafe { log_loss(handle, 1, &raw const log_snr, &raw mut out, error) },
            None => ABSENT,
        });
        if !done {
            return f64::NAN;
        }
        self.watch("log_loss", [out], &[("log_snr", log_snr)]);
        out
    }
}
