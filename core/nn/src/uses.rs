//! How many operations of the graphs that are alive use each variable: what tells, inside a backward pass, that a
//! variable's gradient is whole. Operations are counted on the thread that records them, on which the backward pass
//! runs too.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::TensorId;

thread_local! {
    static COUNTS: RefCell<HashMap<TensorId, usize>> = RefCell::default();
    /// The variables used since [`recorded`] began.
    static RECORD: RefCell<Option<Vec<TensorId>>> = const { RefCell::new(None) };
}

/// One use of a variable; it ends when this is dropped.
pub(crate) struct Use(TensorId);

impl Use {
    pub fn of(variable: TensorId) -> Self {
        COUNTS.with_borrow_mut(|counts| *counts.entry(variable).or_default() += 1);
        RECORD.with_borrow_mut(|record| record.iter_mut().for_each(|record| record.push(variable)));
        Self(variable)
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        // A graph may outlive the thread that made it; then nobody asks for the count any more.
        let _ = COUNTS.try_with(|counts| {
            let mut counts = counts.borrow_mut();
            if let Some(count) = counts.get_mut(&self.0) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&self.0);
                }
            }
        });
    }
}

/// The uses of a variable that have not ended.
pub(crate) fn left(variable: TensorId) -> usize {
    COUNTS.with_borrow(|counts| counts.get(&variable).copied().unwrap_or(0))
}

/// Runs `f`, and uses every variable once more that it used, as often as it did.
pub(crate) fn recorded<T>(f: impl FnOnce() -> T) -> (T, Vec<Use>) {
    let outer = RECORD.replace(Some(Vec::new()));
    let result = f();
    let record = RECORD.replace(outer).unwrap_or_default();
    (result, record.into_iter().map(Use::of).collect())
}
