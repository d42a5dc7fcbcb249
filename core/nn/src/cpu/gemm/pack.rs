//! Packing: from an operand wherever it lies in memory, of whatever float type, to panels in the order in which the
//! kernel reads them. Both operands are seen alike: *lanes* (rows of A, columns of B) by *depth* (the summed index).

use std::ops::Range;

use half::{bf16, f16};

use super::Real;

/// Memory of one of the float types; narrow ones are widened while they are packed.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Double precision.
    F64(&'a [f64]),
    /// bfloat16.
    BF16(&'a [bf16]),
    /// IEEE half precision.
    F16(&'a [f16]),
}

impl<'a> Data<'a> {
    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Data::F32(x) => x.len(),
            Data::F64(x) => x.len(),
            Data::BF16(x) => x.len(),
            Data::F16(x) => x.len(),
        }
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Widens elements `at`, `at + stride` … into `out`.
    pub(crate) fn copy_to<T: Real>(&self, at: usize, stride: usize, out: &mut [T]) {
        fn copy<E: Widen, T: Real>(x: &[E], stride: usize, out: &mut [T]) {
            match stride {
                1 => out.iter_mut().zip(x).for_each(|(out, x)| *out = x.widen()),
                _ => out.iter_mut().zip(x.iter().step_by(stride.max(1))).for_each(|(out, x)| *out = x.widen()),
            }
        }
        match self.from(at) {
            Data::F32(x) => copy(x, stride, out),
            Data::F64(x) => copy(x, stride, out),
            Data::BF16(x) => copy(x, stride, out),
            Data::F16(x) => copy(x, stride, out),
        }
    }

    /// The same memory from element `start` on.
    pub fn from(self, start: usize) -> Self {
        match self {
            Data::F32(x) => Data::F32(&x[start..]),
            Data::F64(x) => Data::F64(&x[start..]),
            Data::BF16(x) => Data::BF16(&x[start..]),
            Data::F16(x) => Data::F16(&x[start..]),
        }
    }
}

macro_rules! data_from {
    ($($type:ty => $variant:ident),+) => {
        $(
            impl<'a> From<&'a [$type]> for Data<'a> {
                fn from(x: &'a [$type]) -> Self {
                    Data::$variant(x)
                }
            }
            impl<'a> From<&'a Vec<$type>> for Data<'a> {
                fn from(x: &'a Vec<$type>) -> Self {
                    Data::$variant(x)
                }
            }
            impl<'a, const N: usize> From<&'a [$type; N]> for Data<'a> {
                fn from(x: &'a [$type; N]) -> Self {
                    Data::$variant(x)
                }
            }
        )+
    };
}
data_from!(f32 => F32, f64 => F64, bf16 => BF16, f16 => F16);

/// Where the i-th lane, or the i-th step of the depth, lies.
#[derive(Clone, Copy, Debug)]
pub enum Index<'a> {
    /// At `i * stride`.
    Stride(usize),
    /// At `table[i]`.
    Table(&'a [usize]),
}

impl Index<'_> {
    #[inline]
    fn at(&self, i: usize) -> usize {
        match self {
            Index::Stride(stride) => i * stride,
            Index::Table(table) => table[i],
        }
    }

    /// The largest offset in `range`, or none if it is empty or past the table.
    fn most(&self, range: Range<usize>) -> Option<usize> {
        match self {
            Index::Stride(stride) => (!range.is_empty()).then(|| (range.end - 1) * stride),
            Index::Table(table) => table.get(range)?.iter().max().copied(),
        }
    }

    /// How many of `range`, from its start on, lie side by side.
    fn run(&self, range: Range<usize>) -> usize {
        match self {
            Index::Stride(1) => range.len(),
            Index::Stride(_) => 1,
            Index::Table(table) => {
                let table = &table[range];
                1 + table.windows(2).take_while(|pair| pair[1] == pair[0] + 1).count()
            }
        }
    }
}

/// A matrix operand: element (lane, depth) lies at `lane offset + depth offset`.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The memory.
    pub data: Data<'a>,
    /// Rows of a left operand, columns of a right one.
    pub lane: Index<'a>,
    /// The summed index.
    pub depth: Index<'a>,
}

impl<'a> Operand<'a> {
    /// A (m x k): element (i, p) at `i * row_stride + p * col_stride`.
    pub fn left(data: impl Into<Data<'a>>, row_stride: usize, col_stride: usize) -> Self {
        Self { data: data.into(), lane: Index::Stride(row_stride), depth: Index::Stride(col_stride) }
    }

    /// B (k x n): element (p, j) at `p * row_stride + j * col_stride`.
    pub fn right(data: impl Into<Data<'a>>, row_stride: usize, col_stride: usize) -> Self {
        Self { data: data.into(), lane: Index::Stride(col_stride), depth: Index::Stride(row_stride) }
    }

    fn covers(&self, lanes: Range<usize>, depth: Range<usize>) -> bool {
        match (self.lane.most(lanes), self.depth.most(depth)) {
            (Some(lane), Some(depth)) => lane + depth < self.data.len(),
            _ => false,
        }
    }

    /// Packs up to `width` lanes: `out[d * width + l]`, with zeros in lanes past the last.
    pub(in crate::cpu) fn pack<T: Real>(&self, lanes: Range<usize>, depth: Range<usize>, width: usize, out: &mut [T]) {
        assert!(lanes.len() <= width && out.len() >= depth.len() * width, "a panel is as large as its buffer");
        assert!(self.covers(lanes.clone(), depth.clone()), "an operand reaches past its memory");
        if lanes.is_empty() || depth.is_empty() {
            return;
        }
        if lanes.len() < width {
            out.chunks_exact_mut(width).for_each(|out| out[lanes.len()..].fill(T::default()));
        }
        match self.data {
            Data::F32(x) => self.pack_from(x, lanes, depth, width, out),
            Data::F64(x) => self.pack_from(x, lanes, depth, width, out),
            Data::BF16(x) => self.pack_from(x, lanes, depth, width, out),
            Data::F16(x) => self.pack_from(x, lanes, depth, width, out),
        }
    }

    fn pack_from<E: Widen, T: Real>(
        &self,
        data: &[E],
        lanes: Range<usize>,
        depth: Range<usize>,
        width: usize,
        out: &mut [T],
    ) {
        // Where lanes lie side by side they are copied; where the depth does, blocks of it are transposed.
        let across = self.lane.run(lanes.clone()).max(self.lane.run(lanes.start + lanes.len() / 2..lanes.end));
        let along = self.depth.run(depth.start..depth.end.min(depth.start + BLOCK));
        if across >= 4.min(lanes.len()) || across >= along {
            self.pack_runs(data, lanes, depth, width, out);
        } else {
            for first in (0..lanes.len()).step_by(BLOCK) {
                let block = lanes.start + first..lanes.end.min(lanes.start + first + BLOCK);
                self.pack_transposed(data, block, depth.clone(), width, &mut out[first..]);
            }
        }
    }

    /// Copies runs of lanes, in pieces of a fixed size.
    fn pack_runs<E: Widen, T: Real>(
        &self,
        data: &[E],
        lanes: Range<usize>,
        depth: Range<usize>,
        width: usize,
        out: &mut [T],
    ) {
        for first in lanes.clone().step_by(PIECES) {
            let mut pieces = [[(0, 0); PIECES]; 4]; // (lane, offset) of pieces of 16, 8, 4 and 1 lanes
            let mut counts = [0; 4];
            let mut lane = first;
            let end = lanes.end.min(first + PIECES);
            while lane < end {
                let (mut run, mut offset) = (self.lane.run(lane..end), self.lane.at(lane));
                while run > 0 {
                    let (kind, size) = match run {
                        16.. => (0, 16),
                        8.. => (1, 8),
                        4.. => (2, 4),
                        _ => (3, 1),
                    };
                    pieces[kind][counts[kind]] = (lane - lanes.start, offset);
                    counts[kind] += 1;
                    (lane, offset, run) = (lane + size, offset + size, run - size);
                }
            }
            for (d, out) in depth.clone().zip(out.chunks_mut(width)) {
                let at = self.depth.at(d);
                // SAFETY: `pack` has checked that all lanes at all depths lie in `data`, and that `out` holds the lanes.
                unsafe {
                    pieces[0][..counts[0]].iter().for_each(|&(l, from)| copy::<16, E, T>(data, from + at, out, l));
                    pieces[1][..counts[1]].iter().for_each(|&(l, from)| copy::<8, E, T>(data, from + at, out, l));
                    pieces[2][..counts[2]].iter().for_each(|&(l, from)| copy::<4, E, T>(data, from + at, out, l));
                    pieces[3][..counts[3]].iter().for_each(|&(l, from)| copy::<1, E, T>(data, from + at, out, l));
                }
            }
        }
    }

    /// Reads runs of the depth of up to [`BLOCK`] lanes, and writes them transposed.
    fn pack_transposed<E: Widen, T: Real>(
        &self,
        data: &[E],
        lanes: Range<usize>,
        depth: Range<usize>,
        width: usize,
        out: &mut [T],
    ) {
        let mut block = [[T::default(); BLOCK]; BLOCK]; // lane, depth
        let mut d = depth.start;
        while d < depth.end {
            let run = self.depth.run(d..depth.end.min(d + BLOCK));
            let at = self.depth.at(d);
            for (block, lane) in block.iter_mut().zip(lanes.clone()) {
                let from = at + self.lane.at(lane);
                if run == BLOCK {
                    // SAFETY: `pack` has checked that the run lies in `data`.
                    unsafe { copy::<BLOCK, E, T>(data, from, block, 0) };
                } else {
                    block.iter_mut().zip(&data[from..from + run]).for_each(|(out, x)| *out = x.widen());
                }
            }
            let out = &mut out[(d - depth.start) * width..];
            T::transpose(&block, [run, lanes.len()], out, width);
            d += run;
        }
    }
}

/// Lanes and steps of the depth that are transposed at a time.
pub(super) const BLOCK: usize = 16;
/// Lanes whose pieces are listed at a time: the widest panel of B.
const PIECES: usize = 32;

/// Widens N values.
///
/// # Safety
/// `data[from..from + N]` and `out[to..to + N]` exist.
#[inline(always)]
unsafe fn copy<const N: usize, E: Widen, T: Real>(data: &[E], from: usize, out: &mut [T], to: usize) {
    debug_assert!(from + N <= data.len() && to + N <= out.len());
    // SAFETY: the caller's promise; an array has the layout of a slice of its length.
    let (x, out) =
        unsafe { (&*data.as_ptr().add(from).cast::<[E; N]>(), &mut *out.as_mut_ptr().add(to).cast::<[T; N]>()) };
    for (out, x) in out.iter_mut().zip(x) {
        *out = x.widen();
    }
}

/// A float as it lies in memory.
trait Widen: Copy + Sync {
    fn widen<T: Real>(self) -> T;
}

impl Widen for f32 {
    #[inline(always)]
    fn widen<T: Real>(self) -> T {
        T::from_f32(self)
    }
}

impl Widen for f64 {
    #[inline(always)]
    fn widen<T: Real>(self) -> T {
        T::of(self)
    }
}

impl Widen for bf16 {
    #[inline(always)]
    fn widen<T: Real>(self) -> T {
        T::from_f32(f32::from_bits((self.to_bits() as u32) << 16))
    }
}

impl Widen for f16 {
    /// Without a branch, so that loops over it are vectorized: the exponent is corrected by a multiplication, which
    /// makes subnormal numbers right too; infinities and NaN keep the full exponent.
    #[inline(always)]
    fn widen<T: Real>(self) -> T {
        let bits = self.to_bits() as u32;
        let magnitude = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits((254 - 15) << 23);
        let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
        T::from_f32(f32::from_bits(magnitude.to_bits() | special | (bits & 0x8000) << 16))
    }
}
