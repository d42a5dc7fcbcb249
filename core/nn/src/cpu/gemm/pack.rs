//! Packing: from an operand wherever it lies in memory, of whatever float type, to panels in the order in which the
//! kernel reads them. Both operands are seen alike: *lanes* (rows of A, columns of B) by *depth* (the summed index).

use std::ops::Range;

use half::{bf16, f16};

use super::{Isa, Real};

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

    /// The largest offset of the first `len`, or none if there are fewer.
    fn most(&self, len: usize) -> Option<usize> {
        match self {
            Index::Stride(stride) => Some(len.checked_sub(1)? * stride),
            Index::Table(table) => table.get(..len)?.iter().max().copied(),
        }
    }

    /// How many of `range`, from its start on, lie side by side.
    #[inline(always)]
    fn run(&self, range: Range<usize>) -> usize {
        match self {
            Index::Stride(1) => range.len(),
            Index::Stride(_) => 1,
            Index::Table(table) => {
                let table = &table[range];
                // Without a branch an element: most often all of them do.
                let straight = table.iter().enumerate().fold(true, |so_far, (i, &at)| so_far & (at == table[0] + i));
                if straight {
                    return table.len();
                }
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

    /// True if the operand has `lanes` lanes by `depth` in its memory.
    pub(super) fn covers(&self, lanes: usize, depth: usize) -> bool {
        match (self.lane.most(lanes), self.depth.most(depth)) {
            (Some(lane), Some(depth)) => lane + depth < self.data.len(),
            _ => false,
        }
    }

    /// The first `lanes` by `depth` elements as a matrix `out` with the lanes side by side.
    pub(in crate::cpu) fn gather<T: Real>(&self, lanes: usize, depth: usize, out: &mut [T]) {
        if lanes * depth > 0 {
            assert!(self.covers(lanes, depth), "an operand reaches past its memory");
            // SAFETY: just checked.
            unsafe { self.pack(Isa::best(), 0..lanes, 0..depth, lanes, out) }
        }
    }

    /// Packs up to `width` lanes: `out[d * width + l]`, with zeros in lanes past the last.
    ///
    /// # Safety
    /// The operand [`covers`](Self::covers) the ends of both ranges, and the machine has the instruction set.
    pub(super) unsafe fn pack<T: Real>(
        &self,
        isa: Isa,
        lanes: Range<usize>,
        depth: Range<usize>,
        width: usize,
        out: &mut [T],
    ) {
        assert!(lanes.len() <= width && out.len() >= depth.len() * width, "a panel is as large as its buffer");
        // SAFETY: passed on from the caller.
        unsafe {
            match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => self.pack_avx512(lanes, depth, width, out),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => self.pack_avx2(lanes, depth, width, out),
                _ => self.pack_typed(Isa::Portable, lanes, depth, width, out),
            }
        }
    }

    /// The same loops, compiled for wider registers.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    unsafe fn pack_avx512<T: Real>(&self, lanes: Range<usize>, depth: Range<usize>, width: usize, out: &mut [T]) {
        // SAFETY: passed on from the caller.
        unsafe { self.pack_typed(Isa::Avx512, lanes, depth, width, out) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn pack_avx2<T: Real>(&self, lanes: Range<usize>, depth: Range<usize>, width: usize, out: &mut [T]) {
        // SAFETY: passed on from the caller.
        unsafe { self.pack_typed(Isa::Avx2, lanes, depth, width, out) }
    }

    #[inline(always)]
    unsafe fn pack_typed<T: Real>(
        &self,
        isa: Isa,
        lanes: Range<usize>,
        depth: Range<usize>,
        width: usize,
        out: &mut [T],
    ) {
        // SAFETY: passed on from the caller.
        unsafe {
            match self.data {
                Data::F32(x) => self.pack_from(x, isa, lanes, depth, width, out),
                Data::F64(x) => self.pack_from(x, isa, lanes, depth, width, out),
                Data::BF16(x) => self.pack_from(x, isa, lanes, depth, width, out),
                Data::F16(x) => self.pack_from(x, isa, lanes, depth, width, out),
            }
        }
    }

    #[inline(always)]
    unsafe fn pack_from<E: Widen, T: Real>(
        &self,
        data: &[E],
        isa: Isa,
        lanes: Range<usize>,
        depth: Range<usize>,
        width: usize,
        out: &mut [T],
    ) {
        if lanes.len() < width {
            out[..depth.len() * width].chunks_exact_mut(width).for_each(|out| out[lanes.len()..].fill(T::default()));
        }
        // Where lanes lie side by side they are copied; where the depth does, blocks of it are transposed.
        let across = self.lane.run(lanes.clone()).max(self.lane.run(lanes.start + lanes.len() / 2..lanes.end));
        let along = self.depth.run(depth.start..depth.end.min(depth.start + BLOCK));
        // SAFETY: passed on from the caller; `out` was checked.
        unsafe {
            if across >= 4.min(lanes.len()) || across >= along {
                self.pack_runs(data, lanes, depth, width, out.as_mut_ptr());
            } else {
                self.pack_transposed(data, isa, lanes, depth, width, out);
            }
        }
    }

    /// Copies runs of lanes, in pieces of a fixed size.
    #[inline(always)]
    unsafe fn pack_runs<E: Widen, T: Real>(
        &self,
        data: &[E],
        lanes: Range<usize>,
        depth: Range<usize>,
        width: usize,
        out: *mut T,
    ) {
        let mut lane = lanes.start;
        while lane < lanes.end {
            let (mut run, mut offset) = (self.lane.run(lane..lanes.end), self.lane.at(lane));
            while run > 0 {
                // SAFETY: the caller promises that these lanes lie in `data` at all depths, and in `out`.
                let size = unsafe {
                    let (from, to) = (data.as_ptr().add(offset), out.add(lane - lanes.start));
                    match run {
                        32.. => self.copy::<32, E, T>(from, depth.clone(), to, width),
                        16.. => self.copy::<16, E, T>(from, depth.clone(), to, width),
                        8.. => self.copy::<8, E, T>(from, depth.clone(), to, width),
                        4.. => self.copy::<4, E, T>(from, depth.clone(), to, width),
                        _ => self.copy::<1, E, T>(from, depth.clone(), to, width),
                    }
                };
                (lane, offset, run) = (lane + size, offset + size, run - size);
            }
        }
    }

    /// N lanes at every depth. Gives N.
    #[inline(always)]
    unsafe fn copy<const N: usize, E: Widen, T: Real>(
        &self,
        from: *const E,
        depth: Range<usize>,
        mut to: *mut T,
        width: usize,
    ) -> usize {
        let mut step = |at: usize| {
            // SAFETY: the caller promises that N values lie at both addresses; an array has the layout of its values.
            let (from, out) = unsafe { (&*from.add(at).cast::<[E; N]>(), &mut *to.cast::<[T; N]>()) };
            out.iter_mut().zip(from).for_each(|(out, x)| *out = x.widen());
            to = to.wrapping_add(width);
        };
        match self.depth {
            Index::Stride(stride) => depth.for_each(|d| step(d * stride)),
            Index::Table(table) => table[depth].iter().for_each(|&at| step(at)),
        }
        N
    }

    /// Reads runs of the depth of up to [`BLOCK`] lanes, and writes them transposed.
    #[inline(always)]
    unsafe fn pack_transposed<E: Widen, T: Real>(
        &self,
        data: &[E],
        isa: Isa,
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
            for first in (0..lanes.len()).step_by(BLOCK) {
                let count = BLOCK.min(lanes.len() - first);
                for (l, block) in block.iter_mut().enumerate().take(count) {
                    let from = at + self.lane.at(lanes.start + first + l);
                    if run == BLOCK {
                        // SAFETY: the caller promises that the run lies in `data`; an array is its values.
                        let from = unsafe { &*data.as_ptr().add(from).cast::<[E; BLOCK]>() };
                        block.iter_mut().zip(from).for_each(|(out, x)| *out = x.widen());
                    } else {
                        block.iter_mut().zip(&data[from..from + run]).for_each(|(out, x)| *out = x.widen());
                    }
                }
                let out = &mut out[(d - depth.start) * width + first..];
                T::transpose(isa, &block, [run, count], out, width);
            }
            d += run;
        }
    }
}

/// Lanes and steps of the depth that are transposed at a time.
pub(super) const BLOCK: usize = 16;

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
