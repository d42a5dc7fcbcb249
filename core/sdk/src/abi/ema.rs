//! Averages of weights across the border.

use std::ffi::c_void;
use std::sync::Arc;

use super::basic::SconceStatus;
use super::crossing::{Portable, each_of_two, free, set, shared};
use super::declare::c_struct;
use super::foreign::{ABSENT, Foreign};
use super::guard::guard;
use super::sink::{NumberBuffer, SconceError, SconceNumbers};
use super::table::{Table, TableError};
use crate::average::{Profile, Snapshots, Stored, Track};
use crate::kinds::EmaStrategy;
use crate::registry::ParamError;

c_struct! {
    /// How averages of the weights follow them: average <- decay average + (1 - decay) weights after every step.
    ///
    /// Laws: every decay is in [0, 1]; that of a track with a profile is the profile's; snapshots come at distances above
    /// 0, and only of tracks among which there is a profile.
    pub struct SconceEma {
        /// sizeof(SconceEma), as its writer knows it.
        pub size: usize,
        /// Frees a handle. Null: there is nothing to free.
        pub drop: Option<unsafe extern "C" fn(handle: *mut c_void)>,
        /// Puts one number for each average that is kept, the same over the whole run: the gamma of its power-function
        /// profile (Karras et al. 2024), from which averages of other profiles can be rebuilt, or NaN where it has none.
        /// The first average is what is validated, drawn and written at the end. Must be there.
        pub tracks: Option<unsafe extern "C" fn(handle: *mut c_void, gammas: *const SconceNumbers, error: *const SconceError) -> SconceStatus>,
        /// The decays of average `track` after n steps: one of `batch[i]` images that ends at `images_seen[i]`. Must be there.
        pub decay: Option<unsafe extern "C" fn(handle: *mut c_void, track: u64, n: usize, images_seen: *const u64, batch: *const u64, out: *mut f64, error: *const SconceError) -> SconceStatus>,
        /// Whether, in a run of `images_total`, all averages are written down as it goes: `every_images` becomes the
        /// distance, `stored` the type of the values, 0 for 32 bits, 1 for IEEE half, 2 for bfloat16. Leave both as they
        /// are where not. Null: not.
        pub snapshots: Option<unsafe extern "C" fn(handle: *mut c_void, images_total: u64, every_images: *mut u64, stored: *mut u32, error: *const SconceError) -> SconceStatus>,
    }
}

impl Table for SconceEma {
    const LEAST: usize = std::mem::offset_of!(Self, snapshots);
}

static EXPORT: SconceEma = SconceEma {
    size: size_of::<SconceEma>(),
    drop: Some(free::<Arc<dyn EmaStrategy>>),
    tracks: Some(tracks),
    decay: Some(decay),
    snapshots: Some(snapshots),
};

/// The types of stored values, by their numbers in the ABI.
const STORED: [Stored; 3] = [Stored::F32, Stored::F16, Stored::Bf16];

impl Portable for dyn EmaStrategy {
    type Table = SconceEma;

    fn table() -> &'static SconceEma {
        &EXPORT
    }

    fn import(foreign: Foreign<SconceEma>) -> Arc<Self> {
        Arc::new(foreign)
    }

    fn check(table: &SconceEma) -> Result<(), TableError> {
        table.tracks.ok_or(TableError::Missing { name: "SconceEma", function: "tracks" })?;
        table.decay.map(|_| ()).ok_or(TableError::Missing { name: "SconceEma", function: "decay" })
    }

    fn release(table: &SconceEma) -> Option<unsafe extern "C" fn(*mut c_void)> {
        table.drop
    }
}

unsafe extern "C" fn tracks(
    handle: *mut c_void,
    gammas: *const SconceNumbers,
    error: *const SconceError,
) -> SconceStatus {
    let body = || {
        // SAFETY: the caller passes what this table came with.
        let tracks = unsafe { shared::<dyn EmaStrategy>(handle) }.tracks();
        let numbers: Vec<f64> = tracks.iter().map(|track| track.profile.map_or(f64::NAN, |p| p.gamma)).collect();
        // SAFETY: the caller passes a sink.
        unsafe { SconceNumbers::give(gammas, &numbers) }
    };
    // SAFETY: the caller passes a sink.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn decay(
    handle: *mut c_void,
    track: u64,
    n: usize,
    images_seen: *const u64,
    batch: *const u64,
    out: *mut f64,
    error: *const SconceError,
) -> SconceStatus {
    let answer = |seen: u64, batch: u64| {
        // SAFETY: the caller passes what this table came with.
        unsafe { shared::<dyn EmaStrategy>(handle) }.decay(track as usize, seen, batch)
    };
    // SAFETY: the caller passes arrays of n, and a sink.
    unsafe { guard(error, || each_of_two(n, images_seen, batch, out, answer)) }
}

unsafe extern "C" fn snapshots(
    handle: *mut c_void,
    images_total: u64,
    every_images: *mut u64,
    stored: *mut u32,
    error: *const SconceError,
) -> SconceStatus {
    let body = || {
        // SAFETY: the caller passes what this table came with.
        let snapshots = unsafe { shared::<dyn EmaStrategy>(handle) }.snapshots(images_total);
        let Some(Snapshots { every_images: every, dtype }) = snapshots else { return Ok(()) };
        let number = STORED.iter().position(|s| *s == dtype).unwrap_or(0) as u32;
        // SAFETY: the caller passes room for both.
        unsafe { set(every_images, every).and_then(|()| set(stored, number)) }
    };
    // SAFETY: the caller passes a sink.
    unsafe { guard(error, body) }
}

impl EmaStrategy for Foreign<SconceEma> {
    fn tracks(&self) -> Vec<Track> {
        let numbers = NumberBuffer::default();
        let sink = numbers.sink();
        let done = self.call("tracks", |table, handle, error| match table.tracks {
            // SAFETY: a sink that lives, and the table's own handle.
            Some(tracks) => unsafe { tracks(handle, &raw const sink, error) },
            None => ABSENT,
        });
        let gammas = if done { numbers.finish() } else { Ok(Vec::new()) };
        let gammas = gammas.unwrap_or_else(|e| {
            self.fault("tracks", e);
            Vec::new()
        });
        gammas.into_iter().map(|gamma| Track { profile: (!gamma.is_nan()).then_some(Profile { gamma }) }).collect()
    }

    fn decay(&self, track: usize, images_seen: u64, batch: u64) -> f64 {
        let mut out = f64::NAN;
        let done = self.call("decay", |table, handle, error| match table.decay {
            // SAFETY: arrays of one, and the table's own handle.
            Some(decay) => unsafe {
                decay(handle, track as u64, 1, &raw const images_seen, &raw const batch, &raw mut out, error)
            },
            None => ABSENT,
        });
        if !done {
            return f64::NAN;
        }
        let question = [("track", track as f64), ("images_seen", images_seen as f64), ("batch", batch as f64)];
        self.watch("decay", [out], &question);
        out
    }

    fn snapshots(&self, images_total: u64) -> Option<Snapshots> {
        let snapshots = self.table().snapshots?;
        let (mut every_images, mut stored) = (0, 0);
        // SAFETY: room for two numbers, and the table's own handle.
        let call = |_: &_, handle, error| unsafe {
            snapshots(handle, images_total, &raw mut every_images, &raw mut stored, error)
        };
        if !self.call("snapshots", call) || every_images == 0 {
            return None;
        }
        let Some(&dtype) = STORED.get(stored as usize) else {
            self.fault("snapshots", ParamError::new(format!("names the type {stored}, of which there are {STORED:?}")));
            return None;
        };
        Some(Snapshots { every_images, dtype })
    }
}
