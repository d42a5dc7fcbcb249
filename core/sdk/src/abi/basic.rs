//! The small structs that functions of the ABI take and give: text, noise levels, observations, objects. They never grow,
//! but for [`SconceObservation`], whose arrays come with the size of their items.

use std::ffi::{c_char, c_void};

use super::declare::c_struct;
use crate::learned::Observation;
use crate::noise::{Level, Noise};
use crate::registry::ParamError;

/// 0 where a call did what it should.
pub type SconceStatus = i32;

c_struct! {
    /// UTF-8 text that somebody else has: valid until the call that it is passed to returns, or, in a table, for ever.
    pub struct SconceStr {
        /// The bytes, with no 0 at the end. Null is an empty text.
        pub bytes: *const c_char,
        /// The number of bytes.
        pub length: usize,
    }
}

// SAFETY: it is an address and a number; only the unsafe `read` follows the address, and its caller vouches for it.
unsafe impl Send for SconceStr {}
// SAFETY: as above.
unsafe impl Sync for SconceStr {}

impl SconceStr {
    /// A view of a text, for as long as that lives.
    pub const fn of(text: &str) -> Self {
        Self { bytes: text.as_ptr().cast(), length: text.len() }
    }

    /// The text.
    ///
    /// # Safety
    /// `bytes` is null or points to `length` bytes that live and do not change for `'a`.
    pub unsafe fn read<'a>(self, what: &str) -> Result<&'a str, ParamError> {
        if self.length == 0 {
            return Ok("");
        }
        if self.bytes.is_null() {
            return Err(ParamError::new(format!("{what} is null, with a length of {}", self.length)));
        }
        if self.length > isize::MAX as usize {
            return Err(ParamError::new(format!("{what} cannot have {} bytes", self.length)));
        }
        // SAFETY: not null, and the caller vouches for the bytes.
        let bytes = unsafe { std::slice::from_raw_parts(self.bytes.cast::<u8>(), self.length) };
        std::str::from_utf8(bytes).map_err(|e| ParamError::new(format!("{what} is not UTF-8: {e}")))
    }
}

c_struct! {
    /// Signal and noise at one time: x_t = alpha x0 + sigma eps.
    pub struct SconceNoise {
        /// Factor on the data, 0 or above.
        pub alpha: f64,
        /// Factor on the unit-variance noise, 0 or above.
        pub sigma: f64,
        /// d alpha / dt.
        pub d_alpha: f64,
        /// d sigma / dt.
        pub d_sigma: f64,
    }
}

impl SconceNoise {
    /// What stands for an answer that did not come.
    pub(super) const NONE: Self = Self { alpha: f64::NAN, sigma: f64::NAN, d_alpha: f64::NAN, d_sigma: f64::NAN };
}

impl From<Noise> for SconceNoise {
    fn from(Noise { alpha, sigma, d_alpha, d_sigma }: Noise) -> Self {
        Self { alpha, sigma, d_alpha, d_sigma }
    }
}

impl From<SconceNoise> for Noise {
    fn from(SconceNoise { alpha, sigma, d_alpha, d_sigma }: SconceNoise) -> Self {
        Self { alpha, sigma, d_alpha, d_sigma }
    }
}

c_struct! {
    /// One noise level on a sampler's way.
    pub struct SconceLevel {
        /// The time in [0, 1] that the network is asked at.
        pub t: f64,
        /// Signal and noise there.
        pub noise: SconceNoise,
    }
}

impl From<Level> for SconceLevel {
    fn from(Level { t, noise }: Level) -> Self {
        Self { t, noise: noise.into() }
    }
}

impl From<SconceLevel> for Level {
    fn from(SconceLevel { t, noise }: SconceLevel) -> Self {
        Self { t, noise: noise.into() }
    }
}

c_struct! {
    /// One picture of an update, as its forward pass left it. Later versions may have more fields: an array of these comes
    /// with the size of one item in bytes, and the next item is that far on.
    pub struct SconceObservation {
        /// The quantile of the sampler's own distribution at which it was trained.
        pub quantile: f64,
        /// The log-SNR there; infinite without signal or noise.
        pub log_snr: f64,
        /// The weighting's factor there, without what was learned.
        pub weight: f64,
        /// The mean squared error of the output.
        pub error: f64,
        /// The weighted loss.
        pub loss: f64,
        /// The logarithm of the loss that a learned weighting expected there: 0 where there is none.
        pub log_loss: f64,
        /// How often pictures like it are drawn by the plugin's own distribution, against how often they are by what was
        /// learned: 1 where nothing was.
        pub importance: f64,
    }
}

impl From<Observation> for SconceObservation {
    fn from(o: Observation) -> Self {
        let Observation { quantile, log_snr, weight, error, loss, log_loss, importance } = o;
        Self { quantile, log_snr, weight, error, loss, log_loss, importance }
    }
}

impl From<SconceObservation> for Observation {
    fn from(o: SconceObservation) -> Self {
        let SconceObservation { quantile, log_snr, weight, error, loss, log_loss, importance } = o;
        Self { quantile, log_snr, weight, error, loss, log_loss, importance }
    }
}

c_struct! {
    /// A thing with functions: a plugin, or what one learned. Who is given one to keep frees it by the table's `drop`; one
    /// that is an argument is the caller's, and is not to be kept beyond the call.
    pub struct SconceObject {
        /// The functions, of the kind that is told where the object is given. They live for ever. Null: there is none.
        pub table: *const c_void,
        /// What the functions take first.
        pub handle: *mut c_void,
    }
}

impl SconceObject {
    /// No object.
    pub const NONE: Self = Self { table: std::ptr::null(), handle: std::ptr::null_mut() };
}
