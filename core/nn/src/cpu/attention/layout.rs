//! Where the rows of an attention lie: heads may be a dimension of their own or side by side in longer rows, and views
//! are read as they are.

/// Where the row of D numbers (sample, head, position) starts: a sum of multiples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strides {
    /// From a sample to the next.
    pub batch: usize,
    /// From a head to the next.
    pub head: usize,
    /// From a position to the next.
    pub row: usize,
}

impl Strides {
    /// `B L H*D`.
    pub fn packed(length: usize, heads: usize, width: usize) -> Self {
        Self { batch: length * heads * width, head: width, row: heads * width }
    }

    /// `B H L D`.
    pub fn split(length: usize, heads: usize, width: usize) -> Self {
        Self { batch: length * heads * width, head: length * width, row: width }
    }

    #[inline(always)]
    fn at(&self, batch: usize, head: usize, row: usize) -> usize {
        batch * self.batch + head * self.head + row * self.row
    }
}

/// Queries, keys, values, or a gradient of them.
#[derive(Clone, Copy)]
pub struct Rows<'a, T> {
    /// The numbers.
    pub data: &'a [T],
    /// Where each row starts.
    pub strides: Strides,
}

/// The rows of one head of one sample.
#[derive(Clone, Copy)]
pub struct Head<'a, T> {
    data: &'a [T],
    row: usize,
    /// Numbers in a row.
    pub width: usize,
}

impl<'a, T> Rows<'a, T> {
    /// The rows of one head, `width` numbers each.
    pub fn head(&self, batch: usize, head: usize, width: usize) -> Head<'a, T> {
        Head { data: &self.data[self.strides.at(batch, head, 0)..], row: self.strides.row, width }
    }
}

impl<'a, T> Head<'a, T> {
    /// Row `i`.
    #[inline(always)]
    pub fn row(&self, i: usize) -> &'a [T] {
        &self.data[i * self.row..i * self.row + self.width]
    }
}

/// Memory that several tasks write to, each its own rows.
#[derive(Clone, Copy)]
pub struct Shared<T> {
    data: *mut T,
    len: usize,
    strides: Strides,
}

// SAFETY: each row is written by the one task that it belongs to, which every user of this type sees to.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    /// Rows of `data` that lie as `strides` say.
    pub fn new(data: &mut [T], strides: Strides) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len(), strides }
    }

    /// One row of `width` numbers.
    ///
    /// # Safety
    /// No other task reads or writes this row meanwhile.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn row(&self, batch: usize, head: usize, row: usize, width: usize) -> &mut [T] {
        let at = self.strides.at(batch, head, row);
        assert!(at + width <= self.len);
        // SAFETY: in bounds, and the caller's own.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(at), width) }
    }
}
