//! The kinds that cross the border, by name, and what their modules share.

use std::any::Any;
use std::ffi::c_void;
use std::sync::Arc;

use super::basic::SconceObject;
use super::foreign::{Foreign, Who};
use super::table::{Table, TableError, read};
use crate::kinds::{Distance, EmaStrategy, LrSchedule, Objective, Schedule, Spacing, TimestepSampler, Weighting};
use crate::network::Network;
use crate::registry::{Kind, Object, ParamError};

/// A kind whose plugins can be passed over the border.
pub(super) trait Portable: Kind {
    /// Its functions.
    type Table: Table;

    /// The functions of our plugins.
    fn table() -> &'static Self::Table;

    /// What these take first, for a plugin of ours.
    fn handle(object: Arc<Self>) -> *mut c_void {
        handle(object)
    }

    /// A plugin of the other side for us.
    fn import(foreign: Foreign<Self::Table>) -> Arc<Self>;

    /// Whether the functions are there that must be.
    fn check(table: &Self::Table) -> Result<(), TableError>;

    /// What frees a handle.
    fn release(table: &Self::Table) -> Option<unsafe extern "C" fn(*mut c_void)>;
}

/// A plugin of ours for the other side; its table's `drop` frees it.
pub(super) fn export<K: Portable + ?Sized>(object: Arc<K>) -> SconceObject {
    SconceObject { table: std::ptr::from_ref(K::table()).cast(), handle: K::handle(object) }
}

/// A kind whose plugins cross the border, by its name.
pub struct Crossing {
    /// The kind's word.
    pub name: &'static str,
    /// What the kind decides.
    pub about: &'static str,
    check: unsafe fn(*const c_void) -> Result<(), TableError>,
    table: fn() -> *const c_void,
    export: fn(Object) -> Option<SconceObject>,
    import: unsafe fn(SconceObject, Option<Arc<Who>>) -> Result<Object, TableError>,
}

impl Crossing {
    const fn of<K: Portable + ?Sized>() -> Self
    where
        Arc<K>: Any + Send + Sync,
    {
        Self {
            name: K::NAME,
            about: K::ABOUT,
            // SAFETY: the callers of `check` pass on its contract.
            check: |table| K::check(&unsafe { read(table.cast::<K::Table>())? }),
            table: || std::ptr::from_ref(K::table()).cast(),
            export: |object| object.downcast::<Arc<K>>().ok().map(|object| export(*object)),
            // SAFETY: the callers of `import` pass on its contract.
            import: |object, who| Ok(Box::new(unsafe { adopt::<K>(object, who)? })),
        }
    }

    /// The functions of every plugin of this kind that is ours.
    pub fn table(&self) -> *const c_void {
        (self.table)()
    }

    /// Whether a table is one of this kind, with the functions that it must have.
    ///
    /// # Safety
    /// As for [`read`].
    pub unsafe fn check(&self, table: *const c_void) -> Result<(), TableError> {
        // SAFETY: by this function's contract.
        unsafe { (self.check)(table) }
    }

    /// A plugin of ours, an `Arc<dyn Kind>` in a box, for the other side, whose it is to free.
    pub fn export(&self, object: Object) -> Result<SconceObject, ParamError> {
        let wrong = || ParamError::new(format!("a plugin is registered as a {} that it is not", self.name));
        (self.export)(object).ok_or_else(wrong)
    }

    /// A plugin of the other side, as an `Arc<dyn Kind>` in a box.
    ///
    /// # Safety
    /// The object's table is null or points to a table of this kind that lives for ever, and its handle is one that the
    /// table's functions take, from any thread, and that nobody else frees.
    pub unsafe fn import(&self, object: SconceObject, who: Option<Arc<Who>>) -> Result<Object, TableError> {
        // SAFETY: by this function's contract.
        unsafe { (self.import)(object, who) }
    }
}

/// Every kind that crosses the border.
pub static CROSSING: [Crossing; 9] = [
    Crossing::of::<dyn Schedule>(),
    Crossing::of::<dyn Objective>(),
    Crossing::of::<dyn Weighting>(),
    Crossing::of::<dyn TimestepSampler>(),
    Crossing::of::<dyn Distance>(),
    Crossing::of::<dyn EmaStrategy>(),
    Crossing::of::<dyn LrSchedule>(),
    Crossing::of::<dyn Spacing>(),
    Crossing::of::<dyn Network>(),
];

/// The kind of this name, if its plugins can cross the border.
pub fn crossing(kind: &str) -> Option<&'static Crossing> {
    CROSSING.iter().find(|s| s.name == kind)
}

/// # Safety
/// As for [`Crossing::import`].
pub(super) unsafe fn adopt<K: Portable + ?Sized>(
    object: SconceObject,
    who: Option<Arc<Who>>,
) -> Result<Arc<K>, TableError> {
    // SAFETY: by this function's contract.
    let foreign = unsafe { Foreign::<K::Table>::take(object, who, K::release)? };
    K::check(foreign.table())?;
    Ok(K::import(foreign))
}

/// The handle of a share of a plugin of ours.
pub(super) fn handle<K: ?Sized>(object: Arc<K>) -> *mut c_void {
    Box::into_raw(Box::new(object)).cast()
}

/// The plugin of ours behind a handle.
///
/// # Safety
/// The handle is one of [`handle`]'s for this kind, and lives for `'a`.
pub(super) unsafe fn shared<'a, K: ?Sized>(handle: *mut c_void) -> &'a K {
    // SAFETY: by this function's contract it points to an `Arc<K>`.
    unsafe { &*handle.cast::<Arc<K>>() }
}

/// Frees what a handle points to.
///
/// # Safety
/// The handle is a `Box<T>` of ours that nobody uses after this.
pub(super) unsafe extern "C" fn free<T>(handle: *mut c_void) {
    if handle.is_null() {
        return;
    }
    let body = || {
        // SAFETY: by this function's contract.
        drop(unsafe { Box::from_raw(handle.cast::<T>()) });
        Ok(())
    };
    // SAFETY: there is nobody to tell.
    unsafe { super::guard::guard(std::ptr::null(), body) };
}

/// Answers a batch of questions: out[i] = f(questions[i]).
///
/// # Safety
/// Both point to n items, or n is 0; `out` may be uninitialised.
pub(super) unsafe fn each<A: Copy, B>(
    n: usize,
    questions: *const A,
    out: *mut B,
    mut f: impl FnMut(A) -> B,
) -> Result<(), ParamError> {
    if n > 0 && (questions.is_null() || out.is_null()) {
        return Err(ParamError::new(format!("was asked {n} times with a null pointer")));
    }
    for i in 0..n {
        // SAFETY: not null, and by this function's contract there are n items.
        unsafe { out.add(i).write(f(questions.add(i).read())) };
    }
    Ok(())
}

/// The same for questions of two parts.
///
/// # Safety
/// All three point to n items, or n is 0; `out` may be uninitialised.
pub(super) unsafe fn each_of_two<A: Copy, B: Copy, C>(
    n: usize,
    first: *const A,
    second: *const B,
    out: *mut C,
    mut f: impl FnMut(A, B) -> C,
) -> Result<(), ParamError> {
    if n > 0 && (first.is_null() || second.is_null() || out.is_null()) {
        return Err(ParamError::new(format!("was asked {n} times with a null pointer")));
    }
    for i in 0..n {
        // SAFETY: not null, and by this function's contract there are n items.
        unsafe { out.add(i).write(f(first.add(i).read(), second.add(i).read())) };
    }
    Ok(())
}

/// Writes one answer.
///
/// # Safety
/// `out` is null or points to room for it.
pub(super) unsafe fn set<T>(out: *mut T, value: T) -> Result<(), ParamError> {
    if out.is_null() {
        return Err(ParamError::new("was asked with a null pointer to answer at"));
    }
    // SAFETY: not null, and by this function's contract there is room.
    unsafe { out.write(value) };
    Ok(())
}
