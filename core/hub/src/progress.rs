//! What a transfer tells while it runs. The crate prints nothing: the program decides whether this becomes a bar, a line
//! in a log, or nothing.

/// Hears how transfers go.
pub trait Progress {
    /// A file begins, or begins again from nothing. `bytes` is its whole size.
    fn begin(&mut self, _file: &str, _bytes: u64) {}

    /// So many further bytes of the file are here (or there).
    fn advance(&mut self, _bytes: u64) {}

    /// The file is whole and checked.
    fn end(&mut self) {}

    /// Something that a person should know: a wait, another try, the cache in the place of the Hub.
    fn notice(&mut self, text: &str);
}
