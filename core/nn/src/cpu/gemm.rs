//! The matrix product that everything else is made of: C = alpha A B + what C starts from. It packs blocks of both
//! operands into panels that fit the caches and runs a register-tiled kernel over them (Goto & van de Geijn 2008,
//! "Anatomy of high-performance matrix multiplication"). An operand is memory plus two address functions ([`Operand`]),
//! so that a convolution is the same product with a table of pixel offsets, and no image-to-column buffer exists.

mod kernel;
mod pack;

use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;

pub use kernel::{Isa, Real};
pub use pack::{Data, Index, Operand};

use kernel::Kernel;

/// What C holds before the product is added.
#[derive(Clone, Copy, Debug)]
pub enum Init<'a, T> {
    /// Nothing: C is overwritten.
    Zero,
    /// Its present content: the product accumulates.
    Keep,
    /// One value a row (a convolution's bias).
    Row(&'a [T]),
    /// One value a column (a linear layer's bias).
    Col(&'a [T]),
}

/// Where C lies: element (i, j) at `i * row_stride + j / group * group_stride + j % group`. Groups of columns let one
/// product write a whole batch of images, each of which has its own block of rows.
pub struct Out<'a, T> {
    data: &'a mut [T],
    row_stride: usize,
    group: usize,
    group_stride: usize,
}

impl<'a, T> Out<'a, T> {
    /// A plain row-major matrix.
    pub fn new(data: &'a mut [T], row_stride: usize) -> Self {
        Self { data, row_stride, group: usize::MAX, group_stride: 0 }
    }

    /// Columns in groups of `group`, `group_stride` elements apart.
    pub fn grouped(data: &'a mut [T], row_stride: usize, group: usize, group_stride: usize) -> Self {
        Self { data, row_stride, group, group_stride }
    }

    fn last(&self, m: usize, n: usize) -> usize {
        let full = (n - 1) / self.group;
        let col = if full == 0 { n - 1 } else { full * self.group_stride + (self.group - 1).max((n - 1) % self.group) };
        (m - 1) * self.row_stride + col
    }
}

/// C (m x n) = alpha A (m x k) B (k x n) + `init`. Threads share the work when there is enough of it.
///
/// ```
/// use sconce_nn::cpu::gemm::{Init, Operand, Out, gemm};
/// let (a, b) = ([1f32, 2., 3., 4.], [1f32, 0., 0., 1.]);
/// let mut c = [0f32; 4];
/// gemm([2, 2, 2], 1.0, Operand::left(&a, 2, 1), Operand::right(&b, 2, 1), Init::Zero, Out::new(&mut c, 2));
/// assert_eq!(c, a);
/// ```
pub fn gemm<T: Real>(size: [usize; 3], alpha: T, a: Operand, b: Operand, init: Init<T>, out: Out<T>) {
    gemm_with(Isa::best(), size, alpha, a, b, init, out)
}

/// [`gemm`] on a chosen instruction set, which the machine must have: for tests and benchmarks.
pub fn gemm_with<T: Real>(isa: Isa, size: [usize; 3], alpha: T, a: Operand, b: Operand, init: Init<T>, out: Out<T>) {
    let [m, n, k] = size;
    if m == 0 || n == 0 {
        return;
    }
    assert!(k == 0 || a.covers(m, k) && b.covers(n, k), "an operand of a {size:?} product reaches past its memory");
    assert!(out.last(m, n) < out.data.len(), "the output of a {size:?} product reaches past its memory");
    match init {
        Init::Row(bias) => assert_eq!(bias.len(), m, "a row bias has one value a row"),
        Init::Col(bias) => assert_eq!(bias.len(), n, "a column bias has one value a column"),
        Init::Zero | Init::Keep => {}
    }
    let c = Shared {
        data: out.data.as_mut_ptr(),
        row_stride: out.row_stride,
        group: out.group,
        group_stride: out.group_stride,
    };
    let kernel = T::kernel(isa);
    let parallel = rayon::current_num_threads() > 1 && 2 * m * n * k.max(1) >= SERIAL_FLOPS;
    let job = Job { isa, kernel, mr: even(m, kernel.rows), alpha, a, b, init, c, parallel };
    for rows in blocks(m, job.mr * (ROWS / job.mr).max(1)) {
        for cols in blocks(n, COLS / kernel.cols * kernel.cols) {
            job.block(rows.clone(), cols, k);
        }
    }
}

/// Below this a product runs on the thread that calls it.
const SERIAL_FLOPS: usize = 2_000_000;
/// Depth of a packed block: a panel of B of this depth stays in the second-level cache near the kernel.
const DEPTH: usize = 384;
/// Rows and columns packed at a time.
const ROWS: usize = 2048;
const COLS: usize = 4096;
/// Rows and columns of one task: its part of packed A stays in the second-level cache.
const TILE_ROWS: usize = 336;
const TILE_COLS: usize = 512;

/// Memory of the packed panels of B that a task takes at a time where it packs its own.
const NEAR_BYTES: usize = 256 << 10;

/// The largest step up to `most` that splits `total` into even parts.
fn even(total: usize, most: usize) -> usize {
    total.div_ceil(total.div_ceil(most).max(1)).max(1)
}

fn blocks(total: usize, step: usize) -> impl Iterator<Item = Range<usize>> {
    (0..total).step_by(step.max(1)).map(move |at| at..total.min(at + step))
}

struct Shared<T> {
    data: *mut T,
    row_stride: usize,
    group: usize,
    group_stride: usize,
}

// SAFETY: tasks write disjoint tiles of the output, which `Job::block` hands out.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// The address of column `j` relative to its row, and how many columns follow it in its group.
    fn col(&self, j: usize) -> (usize, usize) {
        if j < self.group {
            return (j, self.group - j);
        }
        (j / self.group * self.group_stride + j % self.group, self.group - j % self.group)
    }
}

struct Job<'a, T: Real> {
    isa: Isa,
    kernel: Kernel<T>,
    mr: usize,
    alpha: T,
    a: Operand<'a>,
    b: Operand<'a>,
    init: Init<'a, T>,
    c: Shared<T>,
    parallel: bool,
}

impl<T: Real> Job<'_, T> {
    /// One block of C: pack a slice of the depth of both operands, multiply, and go on to the next slice.
    fn block(&self, rows: Range<usize>, cols: Range<usize>, k: usize) {
        let (mr, nr) = (self.mr, self.kernel.cols);
        let step = even(k, DEPTH);
        let row_panels = rows.len().div_ceil(mr);
        let col_panels = cols.len().div_ceil(nr);
        // With few rows a panel of B is read once: each task packs its own, and multiplies it while it is in the cache.
        let near = even(col_panels, (NEAR_BYTES / (nr * step.max(1) * size_of::<T>())).max(1));
        let enough = !self.parallel || col_panels.div_ceil(near) >= 2 * rayon::current_num_threads();
        let own = rows.len() <= TILE_ROWS && enough;
        let (tile_rows, tile_cols) = if own { (row_panels, near) } else { self.tiles(row_panels, col_panels) };
        let across = col_panels.div_ceil(tile_cols);
        let tiles = row_panels.div_ceil(tile_rows) * across;
        let tile = |index: usize| {
            let (r, c) = (index / across * tile_rows, index % across * tile_cols);
            (r..row_panels.min(r + tile_rows), c..col_panels.min(c + tile_cols))
        };
        let span = |panels: Range<usize>, width: usize, all: &Range<usize>| {
            all.start + panels.start * width..all.end.min(all.start + panels.end * width)
        };
        let overwrite = matches!(self.init, Init::Zero);
        if k == 0 || !overwrite {
            self.for_each(tiles, |index| {
                let (r, c) = tile(index);
                self.start(span(r, mr, &rows), span(c, nr, &cols));
            });
        }
        let shared = if own { 0 } else { col_panels };
        with_buffer::<T, _>(row_panels * mr * step, |pa| {
            with_buffer::<T, _>(shared * nr * step, |pb| {
                for depth in blocks(k, step) {
                    let (ka, kb) = (mr * depth.len(), nr * depth.len());
                    let (pa, pb) = (Panels(pa.as_mut_ptr()), Panels(pb.as_mut_ptr()));
                    let pack_a = |i: usize| {
                        let lanes = span(i..i + 1, mr, &rows);
                        // SAFETY: only this task touches panel `i` of the buffer, which holds `row_panels` panels of at
                        // most `mr * step`; `gemm_with` checked that the operand covers the product.
                        unsafe {
                            let panel = std::slice::from_raw_parts_mut(pa.at(i * ka), ka);
                            self.a.pack(self.isa, lanes.clone(), depth.clone(), lanes.len(), panel)
                        };
                    };
                    let pack_b = |j: usize, panel: *mut T| {
                        // SAFETY: as for A; `panel` has room for `kb` values that only this task touches.
                        unsafe {
                            let panel = std::slice::from_raw_parts_mut(panel, kb);
                            self.b.pack(self.isa, span(j..j + 1, nr, &cols), depth.clone(), nr, panel)
                        };
                    };
                    self.for_each(row_panels + shared, |index| match index.checked_sub(row_panels) {
                        Some(j) => pack_b(j, pb.at(j * kb)),
                        None => pack_a(index),
                    });
                    let add = depth.start > 0 || !overwrite;
                    let multiply = |r: Range<usize>, j: usize, panel: *const T| {
                        for i in r {
                            let (y, x) = (span(i..i + 1, mr, &rows), span(j..j + 1, nr, &cols));
                            // SAFETY: both panels are packed, and no other task writes this tile of C.
                            unsafe { self.tile(depth.len(), pa.at(i * ka), panel, y, x, add) };
                        }
                    };
                    self.for_each(tiles, |index| {
                        let (r, c) = tile(index);
                        if !own {
                            return c.for_each(|j| multiply(r.clone(), j, pb.at(j * kb)));
                        }
                        with_buffer::<T, _>(kb, |panel| {
                            for j in c {
                                pack_b(j, panel.as_mut_ptr());
                                multiply(r.clone(), j, panel.as_ptr());
                            }
                        });
                    });
                }
            })
        });
    }

    /// Panels a task takes, down and across: large for the caches, but enough tasks to keep every thread busy.
    fn tiles(&self, row_panels: usize, col_panels: usize) -> (usize, usize) {
        let mut down = even(row_panels, (TILE_ROWS / self.mr).max(1));
        let mut across = even(col_panels, TILE_COLS / self.kernel.cols);
        let want = if self.parallel { 4 * rayon::current_num_threads() } else { 1 };
        while row_panels.div_ceil(down) * col_panels.div_ceil(across) < want && (down > 4 || across > 2) {
            if across > 2 && across * self.kernel.cols >= down * self.mr || down <= 4 {
                across = across.div_ceil(2);
            } else {
                down = down.div_ceil(2);
            }
        }
        (down, across)
    }

    fn for_each(&self, count: usize, task: impl Fn(usize) + Sync + Send) {
        if self.parallel {
            (0..count).into_par_iter().for_each(task);
        } else {
            (0..count).for_each(task);
        }
    }

    /// Writes what a block of C starts from.
    fn start(&self, rows: Range<usize>, cols: Range<usize>) {
        for i in rows {
            let mut j = cols.start;
            while j < cols.end {
                let (at, left) = self.c.col(j);
                let len = left.min(cols.end - j);
                // SAFETY: `gemm_with` checked that the output holds row `i` and column `j + len - 1`, and `col` that
                // these columns lie side by side; no other task writes this block.
                let c = unsafe { std::slice::from_raw_parts_mut(self.c.data.add(i * self.c.row_stride + at), len) };
                match self.init {
                    Init::Zero => c.fill(T::default()),
                    Init::Keep => {}
                    Init::Row(bias) => c.fill(bias[i]),
                    Init::Col(bias) => c.copy_from_slice(&bias[j..j + len]),
                }
                j += len;
            }
        }
    }

    /// One register tile: straight into C where it is whole, else through a buffer on the stack.
    ///
    /// # Safety
    /// `a` and `b` are packed panels of `depth`; the caller alone writes this tile of C.
    unsafe fn tile(&self, depth: usize, a: *const T, b: *const T, rows: Range<usize>, cols: Range<usize>, add: bool) {
        let (at, left) = self.c.col(cols.start);
        let (height, width) = (rows.len(), cols.len());
        // SAFETY: `gemm_with` checked that C holds these rows and columns.
        let c = unsafe { self.c.data.add(rows.start * self.c.row_stride + at) };
        if width == self.kernel.cols && left >= width {
            // SAFETY: the whole tile lies in C.
            return unsafe { (self.kernel.run)(height, width, depth, a, b, c, self.c.row_stride, self.alpha, add) };
        }
        let mut buffer = [T::default(); kernel::MAX_TILE];
        let nr = self.kernel.cols;
        // SAFETY: the buffer holds the largest tile of any kernel.
        unsafe { (self.kernel.run)(height, width, depth, a, b, buffer.as_mut_ptr(), nr, self.alpha, false) };
        for (i, row) in rows.zip(buffer.chunks(nr)) {
            let mut j = 0;
            while j < width {
                let (at, left) = self.c.col(cols.start + j);
                let len = left.min(width - j);
                // SAFETY: as in `start`.
                let c = unsafe { std::slice::from_raw_parts_mut(self.c.data.add(i * self.c.row_stride + at), len) };
                for (c, &x) in c.iter_mut().zip(&row[j..]) {
                    *c = if add { *c + x } else { x };
                }
                j += len;
            }
        }
    }
}

struct Panels<T>(*mut T);

// SAFETY: each panel is written by one task while packing, and only read afterwards.
unsafe impl<T: Send> Sync for Panels<T> {}
unsafe impl<T: Send> Send for Panels<T> {}

impl<T> Panels<T> {
    fn at(&self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset)
    }
}

thread_local! {
    /// Packing buffers between products. They are taken out while in use, so that a task that this thread steals in
    /// the middle of a product finds none and makes its own.
    static SPARE: Cell<Vec<Vec<Line>>> = const { Cell::new(Vec::new()) };
}

/// A cache line, for its alignment.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

fn with_buffer<T: Real, R>(len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    let lines = (len * size_of::<T>()).div_ceil(size_of::<Line>());
    let mut spare = SPARE.take();
    let mut buffer = spare.pop().unwrap_or_default();
    SPARE.set(spare);
    if buffer.len() < lines {
        buffer.resize(lines, Line([0; 64]));
    }
    // SAFETY: the buffer holds at least `len` values of T, is aligned to 64 bytes, and any bits are a T.
    let result = f(unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<T>(), len) });
    let mut spare = SPARE.take();
    spare.push(buffer);
    SPARE.set(spare);
    result
}
