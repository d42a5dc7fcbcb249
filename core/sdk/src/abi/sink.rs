//! Sinks: where a callee puts what it has to say, into memory of the caller. Each is a small table on the caller's stack,
//! with functions that copy what they are given.

use std::cell::{Cell, RefCell};
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

/// What a callee puts together, and whether it could not be taken.
struct Pieces<T> {
    all: RefCell<Vec<T>>,
    refused: Cell<bool>,
}

impl<T> Default for Pieces<T> {
    fn default() -> Self {
        Self { all: RefCell::default(), refused: Cell::new(false) }
    }
}

impl<T: Copy> Pieces<T> {
    /// # Safety
    /// `piece` is null or points to n items.
    unsafe fn put(&self, n: usize, piece: *const T) {
        let mut all = self.all.borrow_mut();
        let room = LIMIT / size_of::<T>() - all.len();
        if n > room || (n > 0 && piece.is_null()) {
            return self.refused.set(true);
        }
        if n > 0 {
            // SAFETY: not null, and by this function's contract there are n.
            all.extend_from_slice(unsafe { std::slice::from_raw_parts(piece, n) });
        }
    }

    fn finish(self, what: &str) -> Result<Vec<T>, ParamError> {
        if self.refused.get() {
            return Err(ParamError::new(format!("gives {what} at a null pointer, or of more than {LIMIT} bytes")));
        }
        Ok(self.all.into_inner())
    }
}

/// Text that a callee puts together.
#[derive(Default)]
pub struct TextBuffer(Pieces<u8>);

impl TextBuffer {
    /// The sink, for as long as the buffer stays where it is.
    pub fn sink(&self) -> SconceText {
        SconceText { size: size_of::<SconceText>(), context: address(self), put: Some(put_text) }
    }

    /// What was put.
    pub fn finish(self, what: &str) -> Result<String, ParamError> {
        String::from_utf8(self.0.finish(what)?)
            .map_err(|e| ParamError::new(format!("gives {what} that is not UTF-8: {e}")))
    }
}

unsafe extern "C" fn put_text(context: *mut c_void, piece: SconceStr) {
    // SAFETY: the context is the buffer that `sink` was made of, which lives while the sink does; the callee vouches for its
    // text for the length of this call.
    unsafe { (*context.cast::<TextBuffer>()).0.put(piece.length, piece.bytes.cast()) }
}

/// Numbers that a callee puts together.
#[derive(Default)]
pub(super) struct NumberBuffer(Pieces<f64>);

impl NumberBuffer {
    pub fn sink(&self) -> SconceNumbers {
        SconceNumbers { size: size_of::<SconceNumbers>(), context: address(self), put: Some(put_numbers) }
    }

    pub fn finish(self) -> Result<Vec<f64>, ParamError> {
        self.0.finish("numbers")
    }
}

unsafe extern "C" fn put_numbers(context: *mut c_void, n: usize, numbers: *const f64) {
    // SAFETY: the context is the buffer that `sink` was made of, which lives while the sink does; the callee vouches for its
    // numbers for the length of this call.
    unsafe { (*context.cast::<NumberBuffer>()).0.put(n, numbers) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinks_take_pieces_and_tell_what_they_could_not_take() {
        let (text, numbers) = (TextBuffer::default(), NumberBuffer::default());
        let (text_sink, number_sink) = (text.sink(), numbers.sink());
        // SAFETY: the sinks live.
        unsafe {
            SconceText::give(&raw const text_sink, "al").unwrap();
            SconceText::give(&raw const text_sink, "pha").unwrap();
            SconceNumbers::give(&raw const number_sink, &[1.0, 2.0]).unwrap();
            SconceNumbers::give(&raw const number_sink, &[]).unwrap();
            SconceNumbers::give(&raw const number_sink, &[3.0]).unwrap();
        }
        assert_eq!(text.finish("a text").unwrap(), "alpha");
        assert_eq!(numbers.finish().unwrap(), [1.0, 2.0, 3.0]);

        let refused = |n: usize, numbers: *const f64| {
            let buffer = NumberBuffer::default();
            let sink = buffer.sink();
            // SAFETY: what is refused is not read.
            unsafe { sink.put.unwrap()(sink.context, n, numbers) };
            buffer.finish().unwrap_err().message
        };
        let words = "gives numbers at a null pointer, or of more than 268435456 bytes";
        assert_eq!(refused(1, std::ptr::null()), words);
        assert_eq!(refused(usize::MAX, [0.0].as_ptr()), words);

        let text = TextBuffer::default();
        let sink = text.sink();
        // SAFETY: the sink and the bytes live.
        unsafe { sink.put.unwrap()(sink.context, SconceStr { bytes: [0xffu8, 0x41].as_ptr().cast(), length: 2 }) };
        let words = text.finish("a text").unwrap_err().message;
        assert!(words.starts_with("gives a text that is not UTF-8"), "{words}");
    }
}
