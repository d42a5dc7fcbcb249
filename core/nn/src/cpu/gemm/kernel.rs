//! The innermost loops of the matrix product, one family an instruction set: a tile of C in registers, to which each
//! step of the depth adds the outer product of a column of packed A and a row of packed B.

use std::sync::OnceLock;

use super::pack::{BLOCK, Data};

/// An instruction set that has kernels of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust, on every machine.
    Portable,
    /// AVX2 with fused multiply-add.
    Avx2,
    /// AVX-512 foundation.
    Avx512,
}

impl Isa {
    /// All that this machine can run, the best one last.
    pub fn available() -> Vec<Isa> {
        #[allow(unused_mut)]
        let mut all = vec![Isa::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(Isa::Avx2);
            }
            if is_x86_feature_detected!("avx512f") {
                all.push(Isa::Avx512);
            }
        }
        all
    }

    /// The best that this machine can run.
    pub fn best() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| *Isa::available().last().expect("the portable one is always there"))
    }
}

/// A type that products are computed in: `f32`, or `f64` for gradient checks.
pub trait Real:
    Copy
    + Default
    + Send
    + Sync
    + PartialOrd
    + std::fmt::Debug
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
    + std::ops::MulAssign
    + std::iter::Sum
    + candle_core::WithDType
    + 'static
{
    /// One.
    const ONE: Self;
    /// The nearest value of this type.
    fn of(x: f64) -> Self;
    /// The nearest value of this type.
    fn from_f32(x: f32) -> Self;
    /// A slice as an operand's memory.
    fn data(x: &[Self]) -> Data<'_>;
    /// The kernels of an instruction set that this machine has.
    fn kernel(isa: Isa) -> Kernel<Self>;
    /// `out[d * width + l] = block[l][d]` for the first `[depth, lanes]` of them.
    #[inline(always)]
    fn transpose(isa: Isa, block: &Block<Self>, size: [usize; 2], out: &mut [Self], width: usize) {
        let _ = isa;
        transpose(block, size, out, width)
    }
}

/// A square of values on the way from one order to the other.
pub type Block<T> = [[T; BLOCK]; BLOCK];

#[inline(always)]
fn transpose<T: Real>(block: &Block<T>, [depth, lanes]: [usize; 2], out: &mut [T], width: usize) {
    for (d, out) in (0..depth).zip(out.chunks_mut(width)) {
        for (out, block) in out.iter_mut().zip(&block[..lanes]) {
            *out = block[d];
        }
    }
}

impl Real for f32 {
    const ONE: f32 = 1.0;
    fn of(x: f64) -> f32 {
        x as f32
    }
    #[inline(always)]
    fn from_f32(x: f32) -> f32 {
        x
    }
    fn data(x: &[f32]) -> Data<'_> {
        Data::F32(x)
    }
    #[inline(always)]
    fn transpose(isa: Isa, block: &Block<f32>, size: [usize; 2], out: &mut [f32], width: usize) {
        let [depth, lanes] = size;
        assert!(depth <= BLOCK && lanes <= BLOCK && (depth == 0 || out.len() >= (depth - 1) * width + lanes));
        // SAFETY: the instruction set is there (`Isa::available`), and `out` was checked.
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { x86::transpose512(block, size, out.as_mut_ptr(), width) },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { x86::transpose256(block, size, out.as_mut_ptr(), width) },
            _ => transpose(block, size, out, width),
        }
    }
    fn kernel(isa: Isa) -> Kernel<f32> {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Kernel { rows: 14, cols: 32, run: x86::avx512 },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Kernel { rows: 6, cols: 16, run: x86::avx2 },
            _ => Kernel { rows: 4, cols: 8, run: portable },
        }
    }
}

impl Real for f64 {
    const ONE: f64 = 1.0;
    fn of(x: f64) -> f64 {
        x
    }
    #[inline(always)]
    fn from_f32(x: f32) -> f64 {
        x as f64
    }
    fn data(x: &[f64]) -> Data<'_> {
        Data::F64(x)
    }
    fn kernel(_: Isa) -> Kernel<f64> {
        Kernel { rows: 4, cols: 8, run: portable }
    }
}

/// The most elements that a tile of any kernel has.
pub(super) const MAX_TILE: usize = 14 * 32;

/// A register tile of at most `rows` x `cols`.
#[derive(Clone, Copy)]
pub struct Kernel<T> {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) run: Run<T>,
}

/// `(rows, cols, depth, a, b, c, row_stride, alpha, add)`: C (+)= alpha A B on one tile. A holds `rows` values a step of
/// the depth; B and C are read and written `kernel.cols` wide, of which `cols` matter.
///
/// Safety: `a` holds `depth * rows` values, `b` `depth * kernel.cols`, `c` `rows` rows of `kernel.cols`.
type Run<T> = unsafe fn(usize, usize, usize, *const T, *const T, *mut T, usize, T, bool);

/// Picks the instance of a kernel, `tile::<rows, vectors>`, for a number of rows.
#[cfg(target_arch = "x86_64")]
macro_rules! by_rows {
    ($tile:ident, $vectors:literal, $rows:expr, [$($n:literal)+], $args:tt) => {
        match $rows {
            $($n => by_rows!(@call $tile::<$n, $vectors>, $args),)+
            rows => unreachable!("a tile of {rows} rows"),
        }
    };
    (@call $tile:expr, ($($arg:expr),+)) => { $tile($($arg),+) };
}

#[allow(clippy::too_many_arguments)]
unsafe fn portable<T: Real>(
    rows: usize,
    _cols: usize,
    depth: usize,
    a: *const T,
    b: *const T,
    c: *mut T,
    row_stride: usize,
    alpha: T,
    add: bool,
) {
    // SAFETY: passed on from the caller.
    unsafe {
        match rows {
            1 => portable_tile::<T, 1>(depth, a, b, c, row_stride, alpha, add),
            2 => portable_tile::<T, 2>(depth, a, b, c, row_stride, alpha, add),
            3 => portable_tile::<T, 3>(depth, a, b, c, row_stride, alpha, add),
            4 => portable_tile::<T, 4>(depth, a, b, c, row_stride, alpha, add),
            rows => unreachable!("a tile of {rows} rows"),
        }
    }
}

#[inline(always)]
unsafe fn portable_tile<T: Real, const R: usize>(
    depth: usize,
    a: *const T,
    b: *const T,
    c: *mut T,
    row_stride: usize,
    alpha: T,
    add: bool,
) {
    const N: usize = 8;
    // SAFETY: the panels hold `depth` steps of R and N values.
    let (a, b) = unsafe { (std::slice::from_raw_parts(a, depth * R), std::slice::from_raw_parts(b, depth * N)) };
    let mut sum = [[T::default(); N]; R];
    for (a, b) in a.chunks_exact(R).zip(b.chunks_exact(N)) {
        for r in 0..R {
            for n in 0..N {
                sum[r][n] += a[r] * b[n];
            }
        }
    }
    for (r, row) in sum.iter().enumerate() {
        // SAFETY: C holds R rows of N values.
        let c = unsafe { std::slice::from_raw_parts_mut(c.add(r * row_stride), N) };
        for (c, &x) in c.iter_mut().zip(row) {
            *c = if add { *c + alpha * x } else { alpha * x };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Block;

    /// 16 x 16 values in four rounds of exchanges: of single values, pairs, and twice of quarters of a register.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn transpose512(block: &Block<f32>, [depth, lanes]: [usize; 2], out: *mut f32, width: usize) {
        let zero = _mm512_setzero_ps();
        let (mut one, mut two, mut rows) = ([zero; 16], [zero; 16], [zero; 16]);
        for i in 0..8 {
            // SAFETY: a row of the block is 16 values.
            let (a, b) =
                unsafe { (_mm512_loadu_ps(block[2 * i].as_ptr()), _mm512_loadu_ps(block[2 * i + 1].as_ptr())) };
            one[2 * i] = _mm512_unpacklo_ps(a, b);
            one[2 * i + 1] = _mm512_unpackhi_ps(a, b);
        }
        for i in (0..16).step_by(4) {
            for j in 0..2 {
                let (a, b) = (_mm512_castps_pd(one[i + j]), _mm512_castps_pd(one[i + j + 2]));
                two[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                two[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
            }
        }
        for j in 0..4 {
            let even = _mm512_shuffle_f32x4::<0x88>(two[j], two[4 + j]);
            let odd = _mm512_shuffle_f32x4::<0xdd>(two[j], two[4 + j]);
            let even_below = _mm512_shuffle_f32x4::<0x88>(two[8 + j], two[12 + j]);
            let odd_below = _mm512_shuffle_f32x4::<0xdd>(two[8 + j], two[12 + j]);
            rows[j] = _mm512_shuffle_f32x4::<0x88>(even, even_below);
            rows[4 + j] = _mm512_shuffle_f32x4::<0x88>(odd, odd_below);
            rows[8 + j] = _mm512_shuffle_f32x4::<0xdd>(even, even_below);
            rows[12 + j] = _mm512_shuffle_f32x4::<0xdd>(odd, odd_below);
        }
        let mask = ((1u32 << lanes) - 1) as u16;
        for (d, &row) in rows.iter().enumerate().take(depth) {
            // SAFETY: the caller promises `depth` rows of `lanes` values, `width` apart.
            unsafe { _mm512_mask_storeu_ps(out.add(d * width), mask, row) };
        }
    }

    /// Squares of 8 x 8 values in three rounds of exchanges: of single values, pairs, and halves of a register.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn transpose256(block: &Block<f32>, [depth, lanes]: [usize; 2], out: *mut f32, width: usize) {
        for (lane, d) in (0..lanes).step_by(8).flat_map(|lane| (0..depth).step_by(8).map(move |d| (lane, d))) {
            // SAFETY: the square is in the block.
            let row = |i: usize| unsafe { _mm256_loadu_ps(block[lane + i].as_ptr().add(d)) };
            let mut one = [_mm256_setzero_ps(); 8];
            for i in 0..4 {
                one[2 * i] = _mm256_unpacklo_ps(row(2 * i), row(2 * i + 1));
                one[2 * i + 1] = _mm256_unpackhi_ps(row(2 * i), row(2 * i + 1));
            }
            let mut two = one;
            for i in [0, 4] {
                for j in 0..2 {
                    let (a, b) = (_mm256_castps_pd(one[i + j]), _mm256_castps_pd(one[i + j + 2]));
                    two[i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
                    two[i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
                }
            }
            let count = lanes - lane;
            for j in 0..8.min(depth - d) {
                let (a, b) = (two[j % 4], two[4 + j % 4]);
                let row =
                    if j < 4 { _mm256_permute2f128_ps::<0x20>(a, b) } else { _mm256_permute2f128_ps::<0x31>(a, b) };
                // SAFETY: the caller promises `depth` rows of `lanes` values, `width` apart.
                unsafe { store_first(row, count, out.add((d + j) * width + lane)) };
            }
        }
    }

    /// The first values of a register, or all eight: a store by a mask is slow on some machines.
    #[inline(always)]
    unsafe fn store_first(row: __m256, count: usize, mut to: *mut f32) {
        // SAFETY: the caller has room for so many values.
        unsafe {
            if count >= 8 {
                return _mm256_storeu_ps(to, row);
            }
            let mut rest = _mm256_castps256_ps128(row);
            if count & 4 != 0 {
                _mm_storeu_ps(to, rest);
                rest = _mm256_extractf128_ps::<1>(row);
                to = to.add(4);
            }
            if count & 2 != 0 {
                _mm_storel_pd(to.cast(), _mm_castps_pd(rest));
                rest = _mm_movehl_ps(rest, rest);
                to = to.add(2);
            }
            if count & 1 != 0 {
                _mm_store_ss(to, rest);
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    pub unsafe fn avx512(
        rows: usize,
        cols: usize,
        depth: usize,
        a: *const f32,
        b: *const f32,
        c: *mut f32,
        row_stride: usize,
        alpha: f32,
        add: bool,
    ) {
        // SAFETY: the instruction set is there (`Isa::available`), the rest is passed on from the caller.
        unsafe {
            if cols > 16 {
                by_rows!(tile512, 2, rows, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], (depth, a, b, c, row_stride, alpha, add))
            } else {
                by_rows!(tile512, 1, rows, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], (depth, a, b, c, row_stride, alpha, add))
            }
        }
    }

    /// R rows by V vectors of 16: at 14 x 2, 28 of the 32 registers accumulate.
    #[target_feature(enable = "avx512f")]
    unsafe fn tile512<const R: usize, const V: usize>(
        depth: usize,
        mut a: *const f32,
        mut b: *const f32,
        c: *mut f32,
        row_stride: usize,
        alpha: f32,
        add: bool,
    ) {
        let mut sum = [[_mm512_setzero_ps(); V]; R];
        // SAFETY: `a` holds `depth` steps of R values, `b` of 32, and C R rows of 32.
        unsafe {
            for r in 0..R {
                for v in 0..V {
                    _mm_prefetch::<_MM_HINT_T0>(c.add(r * row_stride + 16 * v).cast());
                }
            }
            for _ in 0..depth {
                let mut y = [_mm512_setzero_ps(); V];
                for v in 0..V {
                    y[v] = _mm512_loadu_ps(b.add(16 * v));
                }
                for r in 0..R {
                    let x = _mm512_set1_ps(*a.add(r));
                    for v in 0..V {
                        sum[r][v] = _mm512_fmadd_ps(x, y[v], sum[r][v]);
                    }
                }
                a = a.add(R);
                b = b.add(32);
            }
            let alpha = _mm512_set1_ps(alpha);
            for r in 0..R {
                for v in 0..V {
                    let at = c.add(r * row_stride + 16 * v);
                    let old = if add { _mm512_loadu_ps(at) } else { _mm512_setzero_ps() };
                    _mm512_storeu_ps(at, _mm512_fmadd_ps(alpha, sum[r][v], old));
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    pub unsafe fn avx2(
        rows: usize,
        cols: usize,
        depth: usize,
        a: *const f32,
        b: *const f32,
        c: *mut f32,
        row_stride: usize,
        alpha: f32,
        add: bool,
    ) {
        // SAFETY: as for `avx512`.
        unsafe {
            if cols > 8 {
                by_rows!(tile256, 2, rows, [1 2 3 4 5 6], (depth, a, b, c, row_stride, alpha, add))
            } else {
                by_rows!(tile256, 1, rows, [1 2 3 4 5 6], (depth, a, b, c, row_stride, alpha, add))
            }
        }
    }

    /// R rows by V vectors of 8: at 6 x 2, 12 of the 16 registers accumulate.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile256<const R: usize, const V: usize>(
        depth: usize,
        mut a: *const f32,
        mut b: *const f32,
        c: *mut f32,
        row_stride: usize,
        alpha: f32,
        add: bool,
    ) {
        let mut sum = [[_mm256_setzero_ps(); V]; R];
        // SAFETY: `a` holds `depth` steps of R values, `b` of 16, and C R rows of 16.
        unsafe {
            for _ in 0..depth {
                let mut y = [_mm256_setzero_ps(); V];
                for v in 0..V {
                    y[v] = _mm256_loadu_ps(b.add(8 * v));
                }
                for r in 0..R {
                    let x = _mm256_set1_ps(*a.add(r));
                    for v in 0..V {
                        sum[r][v] = _mm256_fmadd_ps(x, y[v], sum[r][v]);
                    }
                }
                a = a.add(R);
                b = b.add(16);
            }
            let alpha = _mm256_set1_ps(alpha);
            for r in 0..R {
                for v in 0..V {
                    let at = c.add(r * row_stride + 8 * v);
                    let old = if add { _mm256_loadu_ps(at) } else { _mm256_setzero_ps() };
                    _mm256_storeu_ps(at, _mm256_fmadd_ps(alpha, sum[r][v], old));
                }
            }
        }
    }
}
