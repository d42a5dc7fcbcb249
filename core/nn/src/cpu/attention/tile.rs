//! The small matrix product inside attention: C (+)= A B on tiles that are in the cache already. B is packed into
//! panels of columns; A is read where it lies, with any strides, so that a product with a transposed matrix (of
//! probabilities, say) needs no transposing.

use crate::cpu::elementwise::{Float, Isa};

/// Columns of a panel; the last one of a matrix may have [`STEP`].
pub const PANEL: usize = 32;
/// What numbers of columns are rounded up to.
pub const STEP: usize = 16;
/// What numbers of rows are rounded up to.
pub const ROWS: usize = 8;

/// `n` rounded up to a multiple of `step`.
#[inline(always)]
pub fn pad(n: usize, step: usize) -> usize {
    n.div_ceil(step) * step
}

/// The matrix B, `depth` rows of `cols` (a multiple of [`STEP`]): panel after panel, each row by row.
#[derive(Default)]
pub struct Panels<T> {
    data: Vec<T>,
    depth: usize,
    cols: usize,
}

impl<T: Float> Panels<T> {
    /// Room for a matrix of zeros.
    pub fn new(depth: usize, cols: usize) -> Self {
        let cols = pad(cols, STEP);
        Self { data: vec![T::ZERO; depth * cols], depth, cols }
    }

    /// The first column, the width and the numbers of each panel.
    #[inline(always)]
    fn panel(&self, first: usize) -> (usize, &[T]) {
        let width = (self.cols - first).min(PANEL);
        (width, &self.data[first * self.depth..(first + width) * self.depth])
    }

    /// Writes a row of the matrix.
    #[inline(always)]
    pub fn set_row(&mut self, row: usize, values: &[T]) {
        for (i, values) in values.chunks(PANEL).enumerate() {
            let first = i * PANEL;
            let width = (self.cols - first).min(PANEL);
            let at = first * self.depth + row * width;
            self.data[at..at + values.len()].copy_from_slice(values);
        }
    }

    /// Writes a column of the matrix.
    #[inline(always)]
    pub fn set_col(&mut self, col: usize, values: &[T]) {
        let first = col / PANEL * PANEL;
        let width = (self.cols - first).min(PANEL);
        let panel = &mut self.data[first * self.depth + col - first..];
        for (slot, &value) in panel.iter_mut().step_by(width).zip(values) {
            *slot = value;
        }
    }
}

/// The matrix A: element (i, k) at `i * row + k * step`.
#[derive(Clone, Copy)]
pub struct Left<'a, T> {
    /// The numbers.
    pub data: &'a [T],
    /// From a row to the next.
    pub row: usize,
    /// From a step of the depth to the next.
    pub step: usize,
}

/// Which part of B a product reads: `depth` rows from row `from`, columns `cols` (multiples of [`STEP`], starting at a
/// panel).
#[derive(Clone, Copy)]
pub struct Part {
    /// The first row.
    pub from: usize,
    /// Rows.
    pub depth: usize,
    /// The first column.
    pub first: usize,
    /// Columns.
    pub cols: usize,
}

/// C = A B, or C += A B where `add`; `rows` is a multiple of [`ROWS`], C has `stride` numbers a row.
#[inline(always)]
pub fn product<I: Isa, T: Float + Tile>(
    a: Left<T>,
    b: &Panels<T>,
    part: Part,
    rows: usize,
    c: &mut [T],
    stride: usize,
    add: bool,
) {
    if rows == 0 || part.cols == 0 || part.depth == 0 {
        return;
    }
    assert!(rows % ROWS == 0 && part.cols % STEP == 0 && part.first % PANEL == 0);
    assert!((rows - 1) * a.row + (part.depth - 1) * a.step < a.data.len());
    assert!((rows - 1) * stride + part.cols <= c.len() && part.cols <= stride);
    assert!(part.first + part.cols <= b.cols && part.from + part.depth <= b.depth);
    for first in (0..part.cols).step_by(PANEL) {
        let (width, panel) = b.panel(part.first + first);
        let mut col = 0;
        while col < width.min(part.cols - first) {
            let left = width.min(part.cols - first) - col;
            let mut row = 0;
            let mut took = 0;
            while row < rows {
                // SAFETY: the asserts above hold A, B and C to the tiles that are read and written here: a tile has at
                // most ROWS rows that divide ROWS, and at most `left` columns.
                let done = unsafe {
                    T::tile::<I>(
                        left,
                        part.depth,
                        a.data.as_ptr().add(row * a.row),
                        [a.row, a.step],
                        panel.as_ptr().add(part.from * width + col),
                        width,
                        c.as_mut_ptr().add(row * stride + first + col),
                        stride,
                        add,
                    )
                };
                row += done[0];
                took = done[1];
            }
            col += took;
        }
    }
}

/// A register of an instruction set.
pub trait Vector<T>: Copy {
    /// Numbers in it.
    const LANES: usize;
    /// # Safety
    /// The instruction set is there, and `at` holds [`Self::LANES`] numbers.
    unsafe fn load(at: *const T) -> Self;
    /// # Safety
    /// As for [`Self::load`].
    unsafe fn store(self, at: *mut T);
    /// # Safety
    /// The instruction set is there.
    unsafe fn splat(x: T) -> Self;
    /// self * b + c.
    ///
    /// # Safety
    /// The instruction set is there.
    unsafe fn fma(self, b: Self, c: Self) -> Self;
}

/// A register tile of R rows by V vectors.
///
/// # Safety
/// A holds R rows of `depth` steps, B `depth` rows of V vectors, C R rows of V vectors, and the instruction set is
/// there.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub unsafe fn micro<T: Float, X: Vector<T>, const R: usize, const V: usize>(
    depth: usize,
    a: *const T,
    [row, step]: [usize; 2],
    b: *const T,
    width: usize,
    c: *mut T,
    stride: usize,
    add: bool,
) -> [usize; 2] {
    // SAFETY: passed on from the caller.
    unsafe {
        let mut sum = [[X::splat(T::ZERO); V]; R];
        if add {
            for r in 0..R {
                for v in 0..V {
                    sum[r][v] = X::load(c.add(r * stride + v * X::LANES));
                }
            }
        }
        let (mut a, mut b) = (a, b);
        for _ in 0..depth {
            let mut y = [X::splat(T::ZERO); V];
            for v in 0..V {
                y[v] = X::load(b.add(v * X::LANES));
            }
            for r in 0..R {
                let x = X::splat(*a.add(r * row));
                for v in 0..V {
                    sum[r][v] = x.fma(y[v], sum[r][v]);
                }
            }
            a = a.wrapping_add(step);
            b = b.wrapping_add(width);
        }
        for r in 0..R {
            for v in 0..V {
                sum[r][v].store(c.add(r * stride + v * X::LANES));
            }
        }
    }
    [R, V * X::LANES]
}

impl<T: Float> Vector<T> for [T; 8] {
    const LANES: usize = 8;
    #[inline(always)]
    unsafe fn load(at: *const T) -> Self {
        // SAFETY: `at` holds eight numbers.
        unsafe { at.cast::<Self>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut T) {
        // SAFETY: as for `load`.
        unsafe { at.cast::<Self>().write_unaligned(self) }
    }
    #[inline(always)]
    unsafe fn splat(x: T) -> Self {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        std::array::from_fn(|i| self[i] * b[i] + c[i])
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    macro_rules! vector {
        ($register:ty, $lanes:literal, $load:ident, $store:ident, $splat:ident, $fma:ident) => {
            impl super::Vector<f32> for $register {
                const LANES: usize = $lanes;
                #[inline(always)]
                unsafe fn load(at: *const f32) -> Self {
                    // SAFETY: the trait's contract.
                    unsafe { $load(at) }
                }
                #[inline(always)]
                unsafe fn store(self, at: *mut f32) {
                    // SAFETY: the trait's contract.
                    unsafe { $store(at, self) }
                }
                #[inline(always)]
                unsafe fn splat(x: f32) -> Self {
                    // SAFETY: the trait's contract.
                    unsafe { $splat(x) }
                }
                #[inline(always)]
                unsafe fn fma(self, b: Self, c: Self) -> Self {
                    // SAFETY: the trait's contract.
                    unsafe { $fma(self, b, c) }
                }
            }
        };
    }
    vector!(__m256, 8, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_fmadd_ps);
    vector!(__m512, 16, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_fmadd_ps);
}

/// Picks the register tile for an instruction set; `tile` gives the rows and columns that it did.
pub trait Tile: Sized {
    /// # Safety
    /// A holds [`ROWS`] rows of `depth` steps, B `depth` rows and C [`ROWS`] rows of `cols` numbers, `cols` a multiple
    /// of [`STEP`]; the instruction set is there.
    #[allow(clippy::too_many_arguments)]
    unsafe fn tile<I: Isa>(
        cols: usize,
        depth: usize,
        a: *const Self,
        strides: [usize; 2],
        b: *const Self,
        width: usize,
        c: *mut Self,
        stride: usize,
        add: bool,
    ) -> [usize; 2];
}

impl Tile for f32 {
    #[inline(always)]
    unsafe fn tile<I: Isa>(
        cols: usize,
        depth: usize,
        a: *const f32,
        strides: [usize; 2],
        b: *const f32,
        width: usize,
        c: *mut f32,
        stride: usize,
        add: bool,
    ) -> [usize; 2] {
        // SAFETY: passed on from the caller; `dispatch` detected what I stands for.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            {
                use std::arch::x86_64::{__m256, __m512};
                if I::WIDE && cols >= 32 {
                    return micro::<f32, __m512, 8, 2>(depth, a, strides, b, width, c, stride, add);
                } else if I::WIDE {
                    return micro::<f32, __m512, 8, 1>(depth, a, strides, b, width, c, stride, add);
                } else if I::FMA {
                    return micro::<f32, __m256, 4, 2>(depth, a, strides, b, width, c, stride, add);
                }
            }
            let _ = cols;
            micro::<f32, [f32; 8], 4, 1>(depth, a, strides, b, width, c, stride, add)
        }
    }
}

impl Tile for f64 {
    #[inline(always)]
    unsafe fn tile<I: Isa>(
        _: usize,
        depth: usize,
        a: *const f64,
        strides: [usize; 2],
        b: *const f64,
        width: usize,
        c: *mut f64,
        stride: usize,
        add: bool,
    ) -> [usize; 2] {
        // SAFETY: passed on from the caller.
        unsafe { micro::<f64, [f64; 8], 2, 1>(depth, a, strides, b, width, c, stride, add) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::elementwise::float::{Avx2, Avx512, Baseline};

    fn check<I: Isa, T: Float + Tile>(most: f64) {
        let number = |i: usize| T::of((i * 7919 % 101) as f64 / 50.0 - 1.0);
        for (rows, depth, cols) in [(8, 1, 16), (16, 5, 32), (24, 33, 48), (8, 40, 80)] {
            let (from, stride) = (2, cols + 3);
            let mut b = Panels::new(depth + from, cols);
            for k in 0..depth + from {
                b.set_row(k, &(0..cols).map(|j| number(k * cols + j)).collect::<Vec<_>>());
            }
            let part = Part { from, depth, first: 0, cols };
            // A by rows and by columns: the strides differ, the matrix is the same.
            for (row, step) in [(depth, 1), (1, rows)] {
                let mut a = vec![T::ZERO; rows * depth];
                (0..rows * depth).for_each(|i| a[i / depth * row + i % depth * step] = number(i * 3));
                for add in [false, true] {
                    let mut c = vec![T::ONE; rows * stride];
                    product::<I, T>(Left { data: &a, row, step }, &b, part, rows, &mut c, stride, add);
                    for (i, c) in c.chunks(stride).enumerate() {
                        for j in 0..cols {
                            let term = |k| (number((i * depth + k) * 3) * number((k + from) * cols + j)).to_f64();
                            let want = (0..depth).map(term).sum::<f64>() + f64::from(add);
                            assert!((c[j].to_f64() - want).abs() < most, "{rows} {depth} {cols} at {i} {j}");
                        }
                        assert!(c[cols..].iter().all(|&c| c == T::ONE), "nothing is written past the columns");
                    }
                }
            }
        }
    }

    #[test]
    fn products_are_right_on_every_instruction_set() {
        check::<Baseline, f32>(1e-4);
        check::<Baseline, f64>(1e-12);
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                check::<Avx2, f32>(1e-4);
                check::<Avx2, f64>(1e-12);
            }
            if is_x86_feature_detected!("avx512f") {
                check::<Avx512, f32>(1e-4);
                check::<Avx512, f64>(1e-12);
            }
        }
    }

    #[test]
    fn a_matrix_is_the_same_by_rows_and_by_columns() {
        let (mut by_rows, mut by_cols) = (Panels::<f64>::new(5, 70), Panels::new(5, 70));
        for k in 0..5 {
            by_rows.set_row(k, &(0..70).map(|j| (k * 70 + j) as f64).collect::<Vec<_>>());
        }
        for j in 0..70 {
            by_cols.set_col(j, &(0..5).map(|k| (k * 70 + j) as f64).collect::<Vec<_>>());
        }
        assert_eq!(by_rows.data, by_cols.data);
    }
}
