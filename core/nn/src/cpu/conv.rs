//! Two-dimensional convolution, its input gradient and its weight gradient, each as one matrix product whose right
//! operand is the image seen through a table of offsets: no image-to-column buffer. What lies outside the image is read
//! from a copy with a border of zeros, which costs one pass over the image instead of a test for every tap.

use rayon::prelude::*;

use super::gemm::{Data, Index, Init, Operand, Out, Real, gemm};

/// The sizes of a convolution. Padding is top, bottom, left, right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Images.
    pub batch: usize,
    /// Channels of the input.
    pub channels_in: usize,
    /// Channels of the output.
    pub channels_out: usize,
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Step of the kernel in both directions.
    pub stride: usize,
    /// Rows above and below the image and columns to its left and right that count as zero.
    pub padding: [usize; 4],
}

impl Geometry {
    /// Height and width of the output; none if the stride is 0 or the kernel larger than the padded image.
    pub fn output(&self) -> Option<[usize; 2]> {
        let [top, bottom, left, right] = self.padding;
        let side = |size: usize, kernel: usize| Some(size.checked_sub(kernel)?.checked_div(self.stride)? + 1);
        Some([side(self.input[0] + top + bottom, self.kernel[0])?, side(self.input[1] + left + right, self.kernel[1])?])
    }

    fn out(&self) -> [usize; 2] {
        self.output().expect("the caller has checked that the kernel fits")
    }

    /// Elements of one kernel plane.
    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }
}

/// Images in memory: element (b, c, y, x) lies at the sum of its indices times `strides`.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// The memory, from element (0, 0, 0, 0) on.
    pub data: Data<'a>,
    /// Strides of B, C, H and W.
    pub strides: [usize; 4],
}

impl<'a> Image<'a> {
    /// Row-major `B C H W`.
    pub fn new(data: impl Into<Data<'a>>, channels: usize, [height, width]: [usize; 2]) -> Self {
        Self { data: data.into(), strides: [channels * height * width, height * width, width, 1] }
    }
}

/// y (B O H' W') = x (B C H W) convolved with `weight` (O C K K), plus `bias` (O).
pub fn forward<T: Real>(g: &Geometry, x: Image, weight: Data, bias: Option<&[T]>) -> Vec<T> {
    let [oh, ow] = g.out();
    let border;
    let x = if g.padding == [0; 4] {
        x
    } else {
        border = Bordered::<T>::planar(x, [g.batch, g.channels_in, g.input[0], g.input[1]], g.padding);
        border.image()
    };
    let [sb, sc, sh, sw] = x.strides;
    let lanes = grid([g.batch, oh, ow], [sb, sh * g.stride, sw * g.stride]);
    let depth = grid([g.channels_in, g.kernel[0], g.kernel[1]], [sc, sh, sw]);
    let (size, area) = ([g.channels_out, lanes.len(), depth.len()], oh * ow);
    let mut y = vec![T::default(); g.channels_out * lanes.len()];
    gemm(
        size,
        T::ONE,
        Operand::left(weight, depth.len(), 1),
        Operand { data: x.data, lane: Index::Table(&lanes), depth: Index::Table(&depth) },
        bias.map_or(Init::Zero, Init::Row),
        Out::grouped(&mut y, area, area, g.channels_out * area),
    );
    y
}

/// The gradient of x (B C H W) from `dy` (B O H' W').
///
/// The rows and columns of x fall into stride x stride phases, by the taps of the kernel that reach them: each phase
/// is a plain convolution of dy with those taps, flipped, so that no product with an inserted zero is ever made.
pub fn input_grad<T: Real>(g: &Geometry, dy: Data, weight: Data) -> Vec<T> {
    let [oh, ow] = g.out();
    let [height, width] = g.input;
    let (rows, cols) = (phases(g, 0, g.padding[0]), phases(g, 1, g.padding[2]));
    let needed = |phases: &[Phase], out: usize| {
        let before = phases.iter().map(|p| (p.taps - 1).saturating_sub(p.first)).max().unwrap_or(0);
        let after = phases.iter().map(|p| (p.first + p.count).saturating_sub(out)).max().unwrap_or(0);
        [before, after]
    };
    let ([top, bottom], [left, right]) = (needed(&rows, oh), needed(&cols, ow));
    let dy = Image::new(dy, g.channels_out, [oh, ow]);
    let border;
    let dy = if [top, bottom, left, right] == [0; 4] {
        dy
    } else {
        border = Bordered::<T>::planar(dy, [g.batch, g.channels_out, oh, ow], [top, bottom, left, right]);
        border.image()
    };
    let [sb, sc, sh, sw] = dy.strides;
    let mut dx = vec![T::default(); g.batch * g.channels_in * height * width];
    for row in &rows {
        for col in &cols {
            let start = (row.first + top + 1 - row.taps) * sh + (col.first + left + 1 - col.taps) * sw;
            let lanes = grid([g.batch, row.count, col.count], [sb, sh, sw]);
            let depth = grid([g.channels_out, row.taps, col.taps], [sc, sh, sw]);
            let flipped = (0..g.channels_out).flat_map(|o| {
                (0..row.taps).rev().flat_map(move |i| {
                    (0..col.taps).rev().map(move |j| {
                        let (ky, kx) = (row.tap + i * g.stride, col.tap + j * g.stride);
                        o * g.channels_in * g.taps() + ky * g.kernel[1] + kx
                    })
                })
            });
            let flipped: Vec<usize> = flipped.collect();
            let size = [g.channels_in, lanes.len(), depth.len()];
            let a = Operand { data: weight, lane: Index::Stride(g.taps()), depth: Index::Table(&flipped) };
            let b = Operand { data: dy.data.from(start), lane: Index::Table(&lanes), depth: Index::Table(&depth) };
            if g.stride == 1 {
                let area = height * width;
                let out = Out::grouped(&mut dx, area, area, g.channels_in * area);
                gemm(size, T::ONE, a, b, Init::Zero, out);
                continue;
            }
            let mut part = vec![T::default(); size[0] * size[1]];
            gemm(size, T::ONE, a, b, Init::Zero, Out::new(&mut part, size[1]));
            let area = row.count * col.count;
            dx.par_chunks_mut(height * width).enumerate().for_each(|(plane, dx)| {
                let (image, channel) = (plane / g.channels_in, plane % g.channels_in);
                let part = &part[(channel * g.batch + image) * area..][..area];
                for (y, part) in part.chunks_exact(col.count).enumerate() {
                    let dx = &mut dx[(row.start + y * g.stride) * width + col.start..];
                    for (dx, &value) in dx.iter_mut().step_by(g.stride).zip(part) {
                        *dx = value;
                    }
                }
            });
        }
    }
    dx
}

/// The gradient of the weight (O C K K) from x (B C H W) and `dy` (B O H' W').
///
/// Computed with the channels of x innermost: then the taps of a pixel are long runs in memory.
pub fn weight_grad<T: Real>(g: &Geometry, x: Image, dy: Data) -> Vec<T> {
    let [oh, ow] = g.out();
    let x = Bordered::interleaved(x, [g.batch, g.channels_in, g.input[0], g.input[1]], g.padding);
    let [sb, sc, sh, sw] = x.strides;
    let lanes = grid([g.kernel[0], g.kernel[1], g.channels_in], [sh, sw, sc]);
    let depth = grid([g.batch, oh, ow], [sb, sh * g.stride, sw * g.stride]);
    let pixels = grid([g.batch, 1, oh * ow], [g.channels_out * oh * ow, 0, 1]);
    let size = [g.channels_out, lanes.len(), depth.len()];
    let mut dw = vec![T::default(); size[0] * size[1]];
    gemm(
        size,
        T::ONE,
        Operand { data: dy, lane: Index::Stride(oh * ow), depth: Index::Table(&pixels) },
        Operand { data: T::data(&x.data), lane: Index::Table(&lanes), depth: Index::Table(&depth) },
        Init::Zero,
        Out::new(&mut dw, size[1]),
    );
    if g.taps() == 1 {
        return dw;
    }
    let mut planar = vec![T::default(); dw.len()]; // O C K K from O K K C
    planar.par_chunks_mut(size[1]).zip(dw.par_chunks(size[1])).for_each(|(planar, dw)| {
        for (tap, dw) in dw.chunks_exact(g.channels_in).enumerate() {
            for (planar, &value) in planar[tap..].iter_mut().step_by(g.taps()).zip(dw) {
                *planar = value;
            }
        }
    });
    planar
}

/// The gradient of the bias (O): the sum of `dy` (B O H' W') over all but its channels.
pub fn bias_grad<T: Real>(g: &Geometry, dy: Data) -> Vec<T> {
    let [oh, ow] = g.out();
    let area = oh * ow;
    let sum = |channel: usize| -> T {
        let mut row = [T::default(); 256];
        let starts = (0..g.batch).flat_map(|b| {
            let plane = (b * g.channels_out + channel) * area;
            (0..area).step_by(256).map(move |at| (plane + at, 256.min(area - at)))
        });
        starts
            .map(|(at, len)| {
                dy.copy_to(at, 1, &mut row[..len]);
                let mut lanes = [T::default(); 16];
                row[..len].chunks(16).for_each(|x| lanes.iter_mut().zip(x).for_each(|(sum, &x)| *sum += x));
                lanes.into_iter().sum::<T>()
            })
            .sum()
    };
    (0..g.channels_out).into_par_iter().map(sum).collect()
}

/// The rows (or columns) of the input that the same taps of the kernel reach.
struct Phase {
    /// The first of them; the others follow at the stride.
    start: usize,
    /// How many there are.
    count: usize,
    /// The first tap that reaches them; the others follow at the stride.
    tap: usize,
    /// How many taps do, at least one.
    taps: usize,
    /// The row of the output that the first tap carries to the first of them.
    first: usize,
}

fn phases(g: &Geometry, axis: usize, before: usize) -> Vec<Phase> {
    let (size, kernel, stride) = (g.input[axis], g.kernel[axis], g.stride);
    let phase = |tap: usize| {
        let start = (tap + stride * before - before) % stride;
        let count = size.saturating_sub(start).div_ceil(stride);
        Phase { start, count, tap, taps: (kernel - tap).div_ceil(stride), first: (start + before) / stride }
    };
    (0..stride.min(kernel)).map(phase).filter(|phase| phase.count > 0).collect()
}

/// The offsets of a grid of indices, row-major.
fn grid([a, b, c]: [usize; 3], [sa, sb, sc]: [usize; 3]) -> Vec<usize> {
    let mut offsets = Vec::with_capacity(a * b * c);
    for i in 0..a {
        for j in 0..b {
            let at = i * sa + j * sb;
            offsets.extend((0..c).map(|k| at + k * sc));
        }
    }
    offsets
}

/// A copy of images in the compute type, with a border of zeros.
struct Bordered<T> {
    data: Vec<T>,
    strides: [usize; 4],
}

impl<T: Real> Bordered<T> {
    /// `B C H W`.
    fn planar(x: Image, [batch, channels, height, width]: [usize; 4], [top, bottom, left, right]: [usize; 4]) -> Self {
        let (full_height, full_width) = (height + top + bottom, width + left + right);
        let plane = full_height * full_width;
        let [sb, sc, sh, sw] = x.strides;
        let mut data = vec![T::default(); batch * channels * plane];
        data.par_chunks_mut(plane.max(1)).with_min_len((8192 / plane.max(1)).max(1)).enumerate().for_each(
            |(i, out)| {
                let at = i / channels * sb + i % channels * sc;
                for y in 0..height {
                    let out = &mut out[(y + top) * full_width + left..][..width];
                    x.data.copy_to(at + y * sh, sw, out);
                }
            },
        );
        Self { data, strides: [channels * plane, plane, full_width, 1] }
    }

    /// `B H W C`.
    fn interleaved(x: Image, [batch, channels, height, width]: [usize; 4], padding: [usize; 4]) -> Self {
        let [top, bottom, left, right] = padding;
        let (full_height, full_width) = (height + top + bottom, width + left + right);
        let row = full_width * channels;
        let [sb, sc, sh, sw] = x.strides;
        let mut data = vec![T::default(); batch * full_height * row];
        data.par_chunks_mut(row.max(1)).with_min_len((8192 / row.max(1)).max(1)).enumerate().for_each(|(i, out)| {
            let (image, y) = (i / full_height, i % full_height);
            if y < top || y >= top + height {
                return;
            }
            let pixels = Operand {
                data: x.data.from(image * sb + (y - top) * sh),
                lane: Index::Stride(sc),
                depth: Index::Stride(sw),
            };
            pixels.gather(channels, width, &mut out[left * channels..][..width * channels]);
        });
        Self { data, strides: [full_height * row, 1, row, channels] }
    }

    fn image(&self) -> Image<'_> {
        Image { data: T::data(&self.data), strides: self.strides }
    }
}
