//! The wall at every function of ours that the other side calls: panics and failures end here and become a status and a
//! reason.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use super::basic::SconceStatus;
use super::sink::SconceError;
use super::{SCONCE_FAILED, SCONCE_OK, SCONCE_PANICKED};
use crate::registry::ParamError;

/// What a thread has to remember between a failure below and the wall above it.
struct Thread {
    /// Walls that the thread is inside of.
    depth: Cell<u32>,
    /// Whether there is a fault in `fault`, since most calls only ask that.
    faulty: Cell<bool>,
    /// The first failure of something that was asked from inside, by a function that could not tell.
    fault: RefCell<Option<ParamError>>,
    /// Where the last panic was.
    place: RefCell<Option<String>>,
}

thread_local! {
    static THREAD: Thread = const {
        Thread {
            depth: Cell::new(0),
            faulty: Cell::new(false),
            fault: RefCell::new(None),
            place: RefCell::new(None),
        }
    };
}

/// Runs the body of an exported function.
///
/// # Safety
/// `error` is null or points to a sink that lives.
pub(super) unsafe fn guard(error: *const SconceError, body: impl FnOnce() -> Result<(), ParamError>) -> SconceStatus {
    // At the end of a thread, when objects that it kept are freed, its own memory may be gone already: then there is nothing
    // to remember.
    let outer = THREAD.try_with(|thread| {
        thread.depth.set(thread.depth.get() + 1);
        if thread.faulty.replace(false) { thread.fault.take() } else { None }
    });
    let outer = outer.unwrap_or(None);
    let done = catch_unwind(AssertUnwindSafe(body));
    let fault = THREAD.try_with(|thread| {
        thread.depth.set(thread.depth.get() - 1);
        let fault = if thread.faulty.replace(outer.is_some()) { thread.fault.take() } else { None };
        if outer.is_some() {
            *thread.fault.borrow_mut() = outer;
        }
        fault
    });
    let fault = fault.unwrap_or(None);
    // What failed below is the reason of whatever came of it.
    let (status, failure) = match (fault, done) {
        (None, Ok(Ok(()))) => return SCONCE_OK,
        (Some(fault), _) => (SCONCE_FAILED, fault),
        (None, Ok(Err(failure))) => (SCONCE_FAILED, failure),
        (None, Err(payload)) => (SCONCE_PANICKED, panicked(payload)),
    };
    // SAFETY: by this function's contract.
    unsafe { SconceError::tell(error, &failure) };
    status
}

/// Remembers, for the wall above if there is one, a failure that the function at hand cannot tell.
pub(super) fn remember(fault: &ParamError) {
    // Without the thread's own memory there is no wall above either.
    let _ = THREAD.try_with(|thread| {
        if thread.depth.get() > 0 && !thread.faulty.replace(true) {
            *thread.fault.borrow_mut() = Some(fault.clone());
        }
    });
}

fn panicked(payload: Box<dyn Any + Send>) -> ParamError {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("it says nothing of why");
    let place = THREAD.try_with(|thread| thread.place.take()).unwrap_or(None);
    let place = place.map(|place| format!(" at {place}")).unwrap_or_default();
    let error = ParamError::new(format!("panicked{place}: {text}"));
    if !payload.is::<String>() && !payload.is::<&str>() {
        // Dropping what somebody else made up may panic again, outside the wall.
        std::mem::forget(payload);
    }
    error
}

/// In a library: a panic inside a wall is told with its place by who called, instead of printed by who panicked.
pub(super) fn take_over_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let ours = THREAD.try_with(|thread| {
                let inside = thread.depth.get() > 0;
                if inside {
                    *thread.place.borrow_mut() = info.location().map(ToString::to_string);
                }
                inside
            });
            if !ours.unwrap_or(false) {
                before(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::super::sink::Report;
    use super::*;

    fn outcome(body: impl FnOnce() -> Result<(), ParamError>) -> (SconceStatus, String) {
        let report = Report::default();
        let sink = report.sink();
        // SAFETY: the sink lives.
        let status = unsafe { guard(&raw const sink, body) };
        (status, report.finish().message)
    }

    #[test]
    fn panics_failures_and_faults_below_end_at_the_wall() {
        assert_eq!(outcome(|| Ok(())).0, SCONCE_OK);
        assert_eq!(outcome(|| Err(ParamError::new("no"))), (SCONCE_FAILED, "no".into()));
        assert_eq!(outcome(|| panic!("at the {}", "disco")), (SCONCE_PANICKED, "panicked: at the disco".into()));
        let below = || {
            remember(&ParamError::new("first"));
            remember(&ParamError::new("second"));
        };
        let fails = || {
            below();
            Ok(())
        };
        assert_eq!(outcome(fails), (SCONCE_FAILED, "first".into()));
        assert_eq!(outcome(|| Ok(())).0, SCONCE_OK, "nothing is left behind");
        // A fault outside stays there, whatever an inner wall sees.
        let nested = outcome(|| {
            below();
            assert_eq!(outcome(|| Ok(())).0, SCONCE_OK);
            assert_eq!(outcome(fails).1, "first");
            Ok(())
        });
        assert_eq!(nested, (SCONCE_FAILED, "first".into()));
        below();
        assert_eq!(outcome(|| Ok(())).0, SCONCE_OK, "outside of walls there is nobody to remember for");
    }
}
