//! Group, layer and root-mean-square normalisation on slices, forward and backward. A slab (one group of one sample, or
//! one row) stays in the cache between the passes over it, so the variance is taken around the mean that is already
//! known, and the backward pass recomputes what the forward pass did not keep. How the work is cut depends on the
//! shape alone, so the gradients do not depend on the number of threads.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::elementwise::{Float, Isa, Kernel, Pointwise, dispatch, filled};

/// The mean and the reciprocal standard deviation of one slab.
pub type Moments<T> = [T; 2];

/// Numbers that are added up in the compute type before the sum goes on in `f64`.
const RUN: usize = 4096;
/// Partial sums kept side by side: four registers of the widest vectors.
const LANES: usize = 64;

/// The sums of the N results of `f` over paired elements.
#[inline(always)]
fn sums<T: Float, const N: usize>(x: &[T], y: &[T], f: impl Fn(T, T) -> [T; N]) -> [f64; N] {
    let mut total = [0.0; N];
    for (x, y) in x.chunks(RUN).zip(y.chunks(RUN)) {
        let mut lanes = [[T::ZERO; LANES]; N];
        let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
        let tail = xs.remainder().iter().zip(ys.remainder());
        for (x, y) in xs.zip(ys) {
            for i in 0..LANES {
                let terms = f(x[i], y[i]);
                for n in 0..N {
                    lanes[n][i] += terms[n];
                }
            }
        }
        for (i, (&x, &y)) in tail.enumerate() {
            let terms = f(x, y);
            for n in 0..N {
                lanes[n][i] += terms[n];
            }
        }
        for n in 0..N {
            total[n] += lanes[n].iter().copied().sum::<T>().to_f64();
        }
    }
    total
}

#[inline(always)]
fn moments<T: Float>(x: &[T], eps: f64, centred: bool) -> Moments<T> {
    let n = x.len() as f64;
    let mean = if centred { T::of(sums(x, x, |x, _| [x])[0] / n) } else { T::ZERO };
    let [squares] = sums(x, x, |x, _| [(x - mean) * (x - mean)]);
    [mean, T::of(1.0 / (squares / n + eps).sqrt())]
}

/// How x `[B C S]` falls into groups: a slab is `channels · span` neighbouring numbers.
#[derive(Clone, Copy, Debug)]
pub struct Groups {
    /// Groups in a sample.
    pub groups: usize,
    /// Channels in a group.
    pub channels: usize,
    /// Positions in a channel, S.
    pub span: usize,
}

impl Groups {
    fn slab(&self) -> usize {
        self.channels * self.span
    }

    /// The channels of slab `i`, as a range of the weights.
    fn range(&self, i: usize) -> std::ops::Range<usize> {
        let first = i % self.groups * self.channels;
        first..first + self.channels
    }
}

/// The scale and the shift of each channel after normalisation; absent is one and zero.
#[derive(Clone, Copy)]
pub struct Affine<'a, T> {
    /// The scales.
    pub weight: Option<&'a [T]>,
    /// The shifts.
    pub bias: Option<&'a [T]>,
}

impl<'a, T: Float> Affine<'a, T> {
    #[inline(always)]
    fn at(&self, i: usize) -> (T, T) {
        (self.weight.map_or(T::ONE, |w| w[i]), self.bias.map_or(T::ZERO, |b| b[i]))
    }

    fn slice(&self, range: std::ops::Range<usize>) -> Affine<'a, T> {
        Affine { weight: self.weight.map(|w| &w[range.clone()]), bias: self.bias.map(|b| &b[range]) }
    }
}

/// `F(w (x - mean) / sqrt(variance + eps) + b)` over each group, and the moments of each (Wu & He 2018).
pub fn group_norm<F: Pointwise, T: Float>(
    x: &[T],
    groups: Groups,
    affine: Affine<T>,
    eps: f64,
) -> (Vec<T>, Vec<Moments<T>>) {
    let slab = groups.slab();
    assert_eq!(x.len() % slab, 0);
    let mut stats = vec![[T::ZERO; 2]; x.len() / slab];
    let write = |out: &mut [MaybeUninit<T>]| {
        (out.par_chunks_mut(slab), x.par_chunks(slab), stats.par_iter_mut()).into_par_iter().enumerate().for_each(
            |(i, (out, x, stats))| {
                let affine = affine.slice(groups.range(i));
                *stats = dispatch(Group { out, x, span: groups.span, affine, eps, f: PhantomData::<F> });
            },
        );
    };
    // SAFETY: the slabs of `out` are those of x, and `Group` writes all channels of each.
    let out = unsafe { filled(x.len(), write) };
    (out, stats)
}

struct Group<'a, F, T> {
    out: &'a mut [MaybeUninit<T>],
    x: &'a [T],
    span: usize,
    affine: Affine<'a, T>,
    eps: f64,
    f: PhantomData<F>,
}

impl<F: Pointwise, T: Float> Kernel for Group<'_, F, T> {
    type Out = Moments<T>;
    #[inline(always)]
    fn run<I: Isa>(self) -> Moments<T> {
        let [mean, rstd] = moments(self.x, self.eps, true);
        let channels = self.out.chunks_exact_mut(self.span).zip(self.x.chunks_exact(self.span));
        for (c, (out, x)) in channels.enumerate() {
            let (weight, bias) = self.affine.at(c);
            let scale = weight * rstd;
            for (out, &x) in out.iter_mut().zip(x) {
                out.write(F::value::<I, T>((x - mean).fma::<I>(scale, bias)));
            }
        }
        [mean, rstd]
    }
}

/// The gradients of [`group_norm`]: of x, of the weight and of the bias (the last two are by-products).
pub fn group_norm_grad<F: Pointwise, T: Float>(
    x: &[T],
    dy: &[T],
    stats: &[Moments<T>],
    groups: Groups,
    affine: Affine<T>,
) -> (Vec<T>, Vec<T>, Vec<T>) {
    let slab = groups.slab();
    assert!(x.len() == dy.len() && x.len() == stats.len() * slab);
    let mut sums = vec![[0.0; 2]; x.len() / groups.span]; // B C
    let write = |dx: &mut [MaybeUninit<T>]| {
        (dx.par_chunks_mut(slab), x.par_chunks(slab), dy.par_chunks(slab), sums.par_chunks_mut(groups.channels), stats)
            .into_par_iter()
            .enumerate()
            .for_each(|(i, (dx, x, dy, sums, &moments))| {
                let affine = affine.slice(groups.range(i));
                dispatch(GroupGrad { dx, x, dy, sums, moments, span: groups.span, affine, f: PhantomData::<F> });
            });
    };
    // SAFETY: the slabs of `dx` are those of x, and `GroupGrad` writes all channels of each.
    let dx = unsafe { filled(x.len(), write) };
    let channels = groups.groups * groups.channels;
    let total = |which: usize| -> Vec<T> {
        (0..channels).map(|c| T::of(sums.iter().skip(c).step_by(channels).map(|sums| sums[which]).sum())).collect()
    };
    let (dweight, dbias) = (total(1), total(0));
    (dx, dweight, dbias)
}

struct GroupGrad<'a, F, T> {
    dx: &'a mut [MaybeUninit<T>],
    x: &'a [T],
    dy: &'a [T],
    /// Of each channel: the sums of dz and of dz times normalised x.
    sums: &'a mut [[f64; 2]],
    moments: Moments<T>,
    span: usize,
    affine: Affine<'a, T>,
    f: PhantomData<F>,
}

impl<F: Pointwise, T: Float> Kernel for GroupGrad<'_, F, T> {
    type Out = ();
    /// With z = w n + b, n the normalised x, dz = dy F'(z) and g = w dz: dx = (g - mean g - n mean(g n)) / deviation.
    #[inline(always)]
    fn run<I: Isa>(self) {
        let [mean, rstd] = self.moments;
        let span = self.span;
        let dz = |x: T, dy: T, weight: T, bias: T| dy * F::slope::<I, T>((x - mean).fma::<I>(weight * rstd, bias));
        let (mut mean_g, mut mean_gn) = (0.0, 0.0);
        for (c, (x, dy)) in self.x.chunks_exact(span).zip(self.dy.chunks_exact(span)).enumerate() {
            let (weight, bias) = self.affine.at(c);
            let [sum, product] = sums(x, dy, |x, dy| {
                let dz = dz(x, dy, weight, bias);
                [dz, dz * ((x - mean) * rstd)]
            });
            self.sums[c] = [sum, product];
            mean_g += weight.to_f64() * sum;
            mean_gn += weight.to_f64() * product;
        }
        let n = self.x.len() as f64;
        let (mean_g, mean_gn) = (T::of(mean_g / n), T::of(mean_gn / n));
        let channels = self.dx.chunks_exact_mut(span).zip(self.x.chunks_exact(span)).zip(self.dy.chunks_exact(span));
        for (c, ((dx, x), dy)) in channels.enumerate() {
            let (weight, bias) = self.affine.at(c);
            for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
                let n = (x - mean) * rstd;
                dx.write((weight * dz(x, dy, weight, bias) - mean_g - n * mean_gn) * rstd);
            }
        }
    }
}

/// What a row is normalised by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RowNorm {
    /// Mean and deviation (Ba et al. 2016).
    Layer,
    /// The root mean square alone (Zhang & Sennrich 2019).
    Rms,
}

/// Rows that one task takes: at most 64 tasks, so that the partial gradients of the weights stay few.
fn rows_per_task(rows: usize) -> usize {
    rows.div_ceil(64).max(16)
}

/// Normalises each row of `width` numbers, and gives the moments of each.
pub fn row_norm<T: Float>(
    x: &[T],
    width: usize,
    norm: RowNorm,
    affine: Affine<T>,
    eps: f64,
) -> (Vec<T>, Vec<Moments<T>>) {
    assert_eq!(x.len() % width, 0);
    let mut stats = vec![[T::ZERO; 2]; x.len() / width];
    let rows = rows_per_task(stats.len());
    let write = |out: &mut [MaybeUninit<T>]| {
        (out.par_chunks_mut(rows * width), x.par_chunks(rows * width), stats.par_chunks_mut(rows))
            .into_par_iter()
            .for_each(|(out, x, stats)| dispatch(Rows { out, x, stats, norm, affine, eps }));
    };
    // SAFETY: the rows of `out` are those of x, and `Rows` writes all of each.
    let out = unsafe { filled(x.len(), write) };
    (out, stats)
}

struct Rows<'a, T> {
    out: &'a mut [MaybeUninit<T>],
    x: &'a [T],
    stats: &'a mut [Moments<T>],
    norm: RowNorm,
    affine: Affine<'a, T>,
    eps: f64,
}

impl<T: Float> Kernel for Rows<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let width = self.x.len() / self.stats.len();
        let rows = self.out.chunks_exact_mut(width).zip(self.x.chunks_exact(width));
        for ((out, x), stats) in rows.zip(self.stats) {
            let [mean, rstd] = moments(x, self.eps, self.norm == RowNorm::Layer);
            *stats = [mean, rstd];
            match (self.affine.weight, self.affine.bias) {
                (Some(weight), Some(bias)) => {
                    for (((out, &x), &w), &b) in out.iter_mut().zip(x).zip(&weight[..width]).zip(&bias[..width]) {
                        out.write(((x - mean) * rstd).fma::<I>(w, b));
                    }
                }
                _ => {
                    for (j, (out, &x)) in out.iter_mut().zip(x).enumerate() {
                        let (w, b) = self.affine.at(j);
                        out.write(((x - mean) * rstd).fma::<I>(w, b));
                    }
                }
            }
        }
    }
}

/// The gradients of [`row_norm`]: of x, and of (weight, bias) where `params` asks for them.
pub fn row_norm_grad<T: Float>(
    x: &[T],
    dy: &[T],
    stats: &[Moments<T>],
    norm: RowNorm,
    weight: Option<&[T]>,
    params: Params,
) -> (Vec<T>, Option<(Vec<T>, Vec<T>)>) {
    let width = x.len() / stats.len();
    assert!(x.len() == dy.len() && x.len() == stats.len() * width);
    let rows = rows_per_task(stats.len());
    let tasks = stats.len().div_ceil(rows);
    // One row of partial sums for each task; a single empty one where nobody asks.
    let wide = if params == Params::Train { 2 * width } else { 0 };
    let mut partial = vec![T::ZERO; tasks * wide];
    let mut slots: Vec<&mut [T]> = if wide == 0 {
        (0..tasks).map(|_| Default::default()).collect()
    } else {
        partial.chunks_exact_mut(wide).collect()
    };
    let chunk = rows * width;
    let write = |dx: &mut [MaybeUninit<T>]| {
        (dx.par_chunks_mut(chunk), x.par_chunks(chunk), dy.par_chunks(chunk), stats.par_chunks(rows), &mut slots)
            .into_par_iter()
            .for_each(|(dx, x, dy, stats, params)| dispatch(RowsGrad { dx, x, dy, stats, norm, weight, params }));
    };
    // SAFETY: the rows of `dx` are those of x, and `RowsGrad` writes all of each.
    let dx = unsafe { filled(x.len(), write) };
    let params = (wide > 0).then(|| {
        let mut sum = vec![T::ZERO; wide];
        for row in partial.chunks_exact(wide) {
            sum.iter_mut().zip(row).for_each(|(sum, &part)| *sum += part);
        }
        let dbias = sum.split_off(width);
        (sum, dbias)
    });
    (dx, params)
}

/// Whether the weights of a normalisation get a gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Params {
    /// They are constants.
    Frozen,
    /// They get one.
    Train,
}

struct RowsGrad<'a, 'b, T> {
    dx: &'a mut [MaybeUninit<T>],
    x: &'a [T],
    dy: &'a [T],
    stats: &'a [Moments<T>],
    norm: RowNorm,
    weight: Option<&'a [T]>,
    /// [weight, bias], or empty.
    params: &'a mut &'b mut [T],
}

impl<T: Float> Kernel for RowsGrad<'_, '_, T> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let width = self.x.len() / self.stats.len();
        let mut scaled = vec![T::ZERO; if self.weight.is_some() { width } else { 0 }];
        let rows = self.dx.chunks_exact_mut(width).zip(self.x.chunks_exact(width)).zip(self.dy.chunks_exact(width));
        for (((dx, x), dy), &[mean, rstd]) in rows.zip(self.stats) {
            if !self.params.is_empty() {
                let (dweight, dbias) = self.params.split_at_mut(width);
                for (((dw, db), &x), &dy) in dweight.iter_mut().zip(dbias).zip(x).zip(dy) {
                    *dw = (dy * rstd).fma::<I>(x - mean, *dw);
                    *db += dy;
                }
            }
            let g = match self.weight {
                Some(weight) => {
                    for ((g, &dy), &w) in scaled.iter_mut().zip(dy).zip(weight) {
                        *g = dy * w;
                    }
                    &scaled[..]
                }
                None => dy,
            };
            let [sum, product] = sums(g, x, |g, x| [g, g * ((x - mean) * rstd)]);
            let n = width as f64;
            let mean_g = if self.norm == RowNorm::Layer { T::of(sum / n) } else { T::ZERO };
            let mean_gn = T::of(product / n);
            for ((dx, &g), &x) in dx.iter_mut().zip(g).zip(x) {
                dx.write((g - mean_g - (x - mean) * rstd * mean_gn) * rstd);
            }
        }
    }
}
