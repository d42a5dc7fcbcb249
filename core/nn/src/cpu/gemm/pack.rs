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

    pub(super) fn covers(&self, lanes: usize, depth: usize) -> bool {
        match (self.lane.most(lanes), self.depth.most(depth)) {
            (Some(lane), Some(depth)) => lane + depth < self.data.len(),
            _ => false,
        }
    }

    /// Packs up to `width` lanes: `out[d * width + l]`, with zeros in lanes past the last.
    pub(super) fn pack<T: Real>(&self, lanes: Range<usize>, depth: Range<usize>, width: usize, out: &mut [T]) {
        assert!(lanes.len() <= width && out.len() >= depth.len() * width, "a panel is as large as its buffer");
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
        for (d, out) in depth.zip(out.chunks_exact_mut(width)) {
            let at = self.depth.at(d);
            for (l, out) in lanes.clone().zip(out.iter_mut()) {
                *out = data[at + self.lane.at(l)].widen();
            }
            out[lanes.len()..].fill(T::default());
        }
    }
}

/// A float as it lies in memory.
trait Widen: Copy + Sync {
    fn widen<T: Real>(self) -> T;
}

impl Widen for f32 {
    #[inline(always)]
    fn widen<T: Real>(self) -> T {
        T::of(self as f64)
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
        T::of(f32::from_bits((self.to_bits() as u32) << 16) as f64)
    }
}

impl Widen for f16 {
    #[inline(always)]
    fn widen<T: Real>(self) -> T {
        T::of(self.to_f64())
    }
}
