//! Running means of squares kept as their row and column means alone: for a matrix of n x m that is n + m numbers, from
//! which the whole is estimated as the product of both over their common mean (Shazeer & Stern 2018, algorithm 2). A
//! tensor of more dimensions is a stack of matrices over its last two, as in the reference implementations.

use candle_core::{D, DType, Result, Tensor, Var};
use rayon::prelude::*;

/// Elements that one task works on.
const CHUNK: usize = 1 << 14;

/// A tensor of at least two dimensions as a stack of matrices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stack {
    rows: usize,
    cols: usize,
}

impl Stack {
    /// `None` for what has fewer dimensions.
    pub fn of(dims: &[usize]) -> Option<Self> {
        match dims {
            [.., rows, cols] => Some(Self { rows: *rows, cols: *cols }),
            _ => None,
        }
    }

    /// Row means (`.. N`) and column means (`.. M`) of a tensor `.. N M`, at zero.
    pub fn zeros(like: &Var) -> Result<[Tensor; 2]> {
        let dims = like.dims();
        let (lead, last) = dims.split_at(dims.len() - 2);
        let cols: Vec<usize> = lead.iter().chain(&last[1..]).copied().collect();
        let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, like.device());
        Ok([zeros(&dims[..dims.len() - 1])?, zeros(&cols)?])
    }

    /// Moves both means by `1 - beta` towards those of `values² + eps`.
    pub fn follow(&self, row: &mut [f32], col: &mut [f32], values: &[f32], eps: f64, beta: f64) {
        let (rows, cols) = (self.rows, self.cols);
        let toward = |mean: &mut f32, sum: f64, count: usize| {
            *mean = (f64::from(*mean) * beta + (sum / count as f64 + eps) * (1.0 - beta)) as f32;
        };
        // Rows of one matrix: their means, and what they add to the sums of its columns.
        let some_rows = |row: &mut [f32], values: &[f32], cols: usize, sums: &mut [f64]| {
            for (mean, values) in row.iter_mut().zip(values.chunks_exact(cols)) {
                let mut sum = 0.0;
                for (col, value) in sums.iter_mut().zip(values) {
                    let square = f64::from(*value) * f64::from(*value);
                    sum += square;
                    *col += square;
                }
                toward(mean, sum, cols);
            }
        };
        if rows * cols > CHUNK {
            let block = (CHUNK / cols).max(1);
            let each = row.chunks_mut(rows).zip(col.chunks_mut(cols)).zip(values.chunks(rows * cols));
            return each.for_each(|((row, col), values)| {
                let parts = row.par_chunks_mut(block).zip(values.par_chunks(block * cols));
                let sums = parts.map(|(row, values)| {
                    let mut sums = vec![0.0; cols];
                    some_rows(row, values, cols, &mut sums);
                    sums
                });
                let sums: Vec<Vec<f64>> = sums.collect();
                for (i, mean) in col.iter_mut().enumerate() {
                    toward(mean, sums.iter().map(|sums| sums[i]).sum(), rows);
                }
            });
        }
        let several = |rows: usize, cols: usize, row: &mut [f32], col: &mut [f32], values: &[f32]| {
            let mut sums = vec![0.0; cols];
            let each = row.chunks_exact_mut(rows).zip(col.chunks_exact_mut(cols));
            for ((row, col), values) in each.zip(values.chunks_exact(rows * cols)) {
                sums.fill(0.0);
                some_rows(row, values, cols, &mut sums);
                col.iter_mut().zip(&sums).for_each(|(mean, sum)| toward(mean, *sum, rows));
            }
        };
        let matrices = CHUNK / (rows * cols);
        let tasks = (row.par_chunks_mut(matrices * rows), col.par_chunks_mut(matrices * cols));
        let tasks = tasks.into_par_iter().zip(values.par_chunks(matrices * rows * cols));
        tasks.for_each(|((row, col), values)| match (rows, cols) {
            (3, 3) => several(3, 3, row, col, values), // the compiler unrolls what most kernels are
            (1, 1) => several(1, 1, row, col, values),
            _ => several(rows, cols, row, col, values),
        });
    }

    /// Divides `values` by the root of the estimate.
    pub fn divide(&self, row: &[f32], col: &[f32], values: &mut [f32]) {
        let (rows, cols) = (self.rows, self.cols);
        let several = |rows: usize, cols: usize, row: &[f32], col: &[f32], values: &mut [f32]| {
            let each = row.chunks_exact(rows).zip(col.chunks_exact(cols));
            for ((row, col), values) in each.zip(values.chunks_exact_mut(rows * cols)) {
                let mean = mean(row);
                for (row, values) in row.iter().zip(values.chunks_exact_mut(cols)) {
                    let factor = 1.0 / (row / mean).sqrt();
                    values.iter_mut().zip(col).for_each(|(value, col)| *value *= factor / col.sqrt());
                }
            }
        };
        if rows * cols > CHUNK {
            let block = (CHUNK / cols).max(1);
            let each = row.chunks(rows).zip(col.chunks(cols)).zip(values.chunks_mut(rows * cols));
            return each.for_each(|((row, col), values)| {
                let (mean, col): (f32, Vec<f32>) = (mean(row), col.iter().map(|c| 1.0 / c.sqrt()).collect());
                let parts = row.par_chunks(block).zip(values.par_chunks_mut(block * cols));
                parts.for_each(|(row, values)| {
                    for (row, values) in row.iter().zip(values.chunks_exact_mut(cols)) {
                        let factor = 1.0 / (row / mean).sqrt();
                        values.iter_mut().zip(&col).for_each(|(value, col)| *value *= factor * col);
                    }
                });
            });
        }
        let matrices = CHUNK / (rows * cols);
        let tasks = (row.par_chunks(matrices * rows), col.par_chunks(matrices * cols));
        let tasks = tasks.into_par_iter().zip(values.par_chunks_mut(matrices * rows * cols));
        tasks.for_each(|((row, col), values)| match (rows, cols) {
            (3, 3) => several(3, 3, row, col, values),
            (1, 1) => several(1, 1, row, col, values),
            _ => several(rows, cols, row, col, values),
        });
    }
}

fn mean(values: &[f32]) -> f32 {
    (values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64) as f32
}

/// The root of the mean square, by chunks of fixed size.
pub(super) fn rms(values: &[f32]) -> f64 {
    let square = |v: &[f32]| v.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
    let sums: Vec<f64> = values.par_chunks(CHUNK).map(square).collect();
    (sums.iter().sum::<f64>() / values.len() as f64).sqrt()
}

/// What brings the root of the mean square down to `limit`: a factor of at most 1.
pub(super) fn clip(values: &[f32], limit: f64) -> f32 {
    (1.0 / (rms(values) / limit).max(1.0)) as f32
}

/// [`Stack::follow`] with the device's own operations.
pub(super) fn follow(row: &Var, col: &Var, values: &Tensor, eps: f64, beta: f64) -> Result<()> {
    let square = (values.sqr()? + eps)?;
    let toward = |var: &Var, mean: Tensor| var.set(&((var.as_tensor() * beta)? + (mean * (1.0 - beta))?)?.detach());
    toward(row, square.mean(D::Minus1)?)?;
    toward(col, square.mean(D::Minus2)?)
}

/// [`Stack::divide`] with the device's own operations.
pub(super) fn divide(row: &Var, col: &Var, values: &Tensor) -> Result<Tensor> {
    let row = row.as_tensor().broadcast_div(&row.as_tensor().mean_keepdim(D::Minus1)?)?;
    let root = |t: Tensor| t.sqrt()?.recip();
    let factor = root(row.unsqueeze(D::Minus1)?)?.broadcast_mul(&root(col.as_tensor().unsqueeze(D::Minus2)?)?)?;
    (values * factor)?.detach().contiguous()
}

/// [`clip`] with the device's own operations: `values` with at most that root mean square.
pub(super) fn clipped(values: &Tensor, limit: f64) -> Result<Tensor> {
    let factor = (root_mean_square(values)? / limit)?.maximum(1.0)?.recip()?;
    values.broadcast_mul(&factor)
}

/// [`rms`] with the device's own operations, a scalar.
pub(super) fn root_mean_square(values: &Tensor) -> Result<Tensor> {
    values.detach().sqr()?.mean_all()?.sqrt()
}
