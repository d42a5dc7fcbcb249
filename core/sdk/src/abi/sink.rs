//! Sinks: where a callee puts what it has to say, into memory of the caller. Each is a small table on the caller's stack,
//! with functions that copy what they are given.

use std::cell::RefCell;
use std::ffi::c_void;

use super::basic::SconceStr;
use super::declare::c_struct;
use super::table::{Table, read};
use crate::registry::ParamError;

/// No text or state is as large as this; a library that writes more is stuck in a loop.
const LIMIT: usize = 1 << 28;

c_struct! {
    /// Takes text in one piece or in several.
    pub struct SconceText {
        /// sizeof(SconceText), as the caller knows it.
        pub size: usize,
        /// What `put` takes first.
        pub context: *mut c_void,
        /// Copies a piece to the end of the text.
        pub put: Option<unsafe extern "C" fn(context: *mut c_void, piece: SconceStr)>,
    }
}

c_struct! {
    /// Takes numbers in one piece or in several.
    pub struct SconceNumbers {
        /// sizeof(SconceNumbers), as the caller knows it.
        pub size: usize,
        /// What `put` takes first.
        pub context: *mut c_void,
        /// Copies `n` numbers to the end of the list.
        pub put: Option<unsafe extern "C" fn(context: *mut c_void, n: usize, numbers: *const f64)>,
    }
}

c_struct! {
    /// Takes the reason of a failure. Say what is wrong, where, and what to do; nobody calls this where all is well.
    pub struct SconceError {
        /// sizeof(SconceError), as the caller knows it.
        pub size: usize,
        /// What the functions take first.
        pub context: *mut c_void,
        /// What is wrong. A second call replaces it.
        pub message: Option<unsafe extern "C" fn(context: *mut c_void, text: SconceStr)>,
        /// The parameter at fault, for errors of `build`: once for each table on the way, from the outermost in.
        pub field: Option<unsafe extern "C" fn(context: *mut c_void, name: SconceStr)>,
        /// What to do about it, such as the accepted values.
        pub help: Option<unsafe extern "C" fn(context: *mut c_void, text: SconceStr)>,
    }
}

impl Table for SconceText {
    const LEAST: usize = size_of::<Self>();
}
impl Table for SconceNumbers {
    const LEAST: usize = size_of::<Self>();
}
impl Table for SconceError {
    const LEAST: usize = size_of::<Self>();
}

/// Text that a callee puts together.
#[derive(Default)]
pub struct TextBuffer(RefCell<Vec<u8>>);

impl TextBuffer {
    /// The sink, for as long as the buffer stays where it is.
    pub fn sink(&self) -> SconceText {
        SconceText { size: size_of::<SconceText>(), context: address(self), put: Some(put_text) }
    }

    /// What was put.
    pub fn finish(self, what: &str) -> Result<String, ParamError> {
        String::from_utf8(self.0.into_inner()).map_err(|e| ParamError::new(format!("{what} is not UTF-8: {e}")))
    }
}

unsafe extern "C" fn put_text(context: *mut c_void, piece: SconceStr) {
    // SAFETY: the context is the buffer that `sink` was made of, which lives while the sink does.
    let TextBuffer(buffer) = unsafe { &*context.cast::<TextBuffer>() };
    let mut buffer = buffer.borrow_mut();
    if !piece.bytes.is_null() && piece.length <= LIMIT - buffer.len().min(LIMIT) {
        // SAFETY: not null, and the callee vouches for its text for the length of this call.
        buffer.extend_from_slice(unsafe { std::slice::from_raw_parts(piece.bytes.cast(), piece.length) });
    }
}

/// Numbers that a callee puts together.
#[derive(Default)]
pub(super) struct NumberBuffer(RefCell<Vec<f64>>);

impl NumberBuffer {
    pub fn sink(&self) -> SconceNumbers {
        SconceNumbers { size: size_of::<SconceNumbers>(), context: address(self), put: Some(put_numbers) }
    }

    pub fn finish(self) -> Vec<f64> {
        self.0.into_inner()
    }
}

unsafe extern "C" fn put_numbers(context: *mut c_void, n: usize, numbers: *const f64) {
    // SAFETY: the context is the buffer that `sink` was made of, which lives while the sink does.
    let NumberBuffer(buffer) = unsafe { &*context.cast::<NumberBuffer>() };
    let mut buffer = buffer.borrow_mut();
    if !numbers.is_null() && n <= LIMIT / 8 - buffer.len().min(LIMIT / 8) {
        // SAFETY: not null, and the callee vouches for its numbers for the length of this call.
        buffer.extend_from_slice(unsafe { std::slice::from_raw_parts(numbers, n) });
    }
}

/// The reason of a failure, as a callee tells it.
pub struct Report(RefCell<ParamError>);

impl Default for Report {
    fn default() -> Self {
        Self(RefCell::new(ParamError::new("")))
    }
}

impl Report {
    /// The sink, for as long as the report stays where it is.
    pub fn sink(&self) -> SconceError {
        SconceError {
            size: size_of::<SconceError>(),
            context: address(self),
            message: Some(put_message),
            field: Some(put_field),
            help: Some(put_help),
        }
    }

    /// What was told.
    pub fn finish(self) -> ParamError {
        let mut error = self.0.into_inner();
        if error.message.is_empty() {
            error.message = "failed, and gave no reason".to_owned();
        }
        error
    }
}

unsafe extern "C" fn put_message(context: *mut c_void, text: SconceStr) {
    // SAFETY: as for `put_text`.
    unsafe { put(context, text, |error, text| error.message = text) }
}

unsafe extern "C" fn put_field(context: *mut c_void, name: SconceStr) {
    // SAFETY: as for `put_text`.
    unsafe { put(context, name, |error, name| error.path.push(name)) }
}

unsafe extern "C" fn put_help(context: *mut c_void, text: SconceStr) {
    // SAFETY: as for `put_text`.
    unsafe { put(context, text, |error, text| error.help = Some(text)) }
}

/// # Safety
/// `context` is that of a [`Report`]'s sink, and the text lives for the length of this call.
unsafe fn put(context: *mut c_void, text: SconceStr, into: impl FnOnce(&mut ParamError, String)) {
    // SAFETY: by this function's contract.
    let (Report(error), text) = unsafe { (&*context.cast::<Report>(), text.read("the text of an error")) };
    // Whatever is wrong with an error's text must not hide that there is one.
    let text = text.map_or_else(|e| e.message, |text| text.chars().take(10_000).collect());
    into(&mut error.borrow_mut(), text);
}

fn address<T>(buffer: &T) -> *mut c_void {
    std::ptr::from_ref(buffer).cast_mut().cast()
}

impl SconceText {
    /// Puts a text into a sink that was an argument.
    ///
    /// # Safety
    /// `sink` is null or points to a sink that lives.
    pub(super) unsafe fn give(sink: *const Self, text: &str) -> Result<(), ParamError> {
        // SAFETY: by this function's contract.
        let sink = unsafe { read(sink)? };
        let put = sink.put.ok_or_else(|| ParamError::new("the sink for text has no `put`"))?;
        // SAFETY: the sink's own context, and a text that lives until the call returns.
        unsafe { put(sink.context, SconceStr::of(text)) };
        Ok(())
    }
}

impl SconceNumbers {
    /// Puts numbers into a sink that was an argument.
    ///
    /// # Safety
    /// `sink` is null or points to a sink that lives.
    pub(super) unsafe fn give(sink: *const Self, numbers: &[f64]) -> Result<(), ParamError> {
        // SAFETY: by this function's contract.
        let sink = unsafe { read(sink)? };
        let put = sink.put.ok_or_else(|| ParamError::new("the sink for numbers has no `put`"))?;
        // SAFETY: the sink's own context, and numbers that live until the call returns.
        unsafe { put(sink.context, numbers.len(), numbers.as_ptr()) };
        Ok(())
    }
}

impl SconceError {
    /// Tells a failure to a sink that was an argument; without one, to nobody.
    ///
    /// # Safety
    /// `sink` is null or points to a sink that lives.
    pub(super) unsafe fn tell(sink: *const Self, error: &ParamError) {
        // SAFETY: by this function's contract.
        let Ok(sink) = (unsafe { read(sink) }) else { return };
        let call = |put: Option<unsafe extern "C" fn(*mut c_void, SconceStr)>, text: &str| {
            if let Some(put) = put {
                // SAFETY: the sink's own context, and a text that lives until the call returns.
                unsafe { put(sink.context, SconceStr::of(text)) };
            }
        };
        call(sink.message, &error.message);
        error.path.iter().for_each(|name| call(sink.field, name));
        error.help.iter().for_each(|help| call(sink.help, help));
    }
}
