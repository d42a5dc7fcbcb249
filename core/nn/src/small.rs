//! Linear algebra of the few columns that low-rank factors have: an orthonormal basis, and singular values. In f64, by
//! the methods that are most exact on small matrices rather than fastest on large ones.

use candle_core::{DType, Device, Result, Tensor};

use crate::rng::Stream;

/// Columns beyond the rank that the range is looked for with, and passes over the matrix that sharpen it (Halko, Martinsson &
/// Tropp 2011, algorithm 4.4).
const MORE: usize = 8;
const PASSES: usize = 3;

/// A matrix's first singular vectors and values, somewhat more than `rank` of them: U, S and V of U S Vᵀ. The matrix is on the
/// CPU in f32. `place`: what the random start is drawn by.
pub fn largest(matrix: &Tensor, rank: usize, place: &str) -> Result<(Columns, Vec<f64>, Columns)> {
    let (o, i) = matrix.dims2()?;
    let columns = (rank + MORE).min(o).min(i);
    let turned = matrix.t()?.contiguous()?;
    let mut range = matrix.matmul(&Stream::new(0, place).normal((i, columns), &Device::Cpu)?)?; // O K
    for _ in 0..PASSES {
        let (basis, _) = Columns::of(&range)?.orthonormal();
        let (basis, _) = Columns::of(&turned.matmul(&basis.matrix()?)?)?.orthonormal();
        range = matrix.matmul(&basis.matrix()?)?;
    }
    let (left, _) = Columns::of(&range)?.orthonormal(); // O K
    let (right, r) = Columns::of(&turned.matmul(&left.matrix()?)?)?.orthonormal(); // I K, and K K
    // The matrix is left (right r)ᵀ = left rᵀ rightᵀ.
    let (v, values, u) = r.singular();
    Ok((left.times(&u), values, right.times(&v)))
}

/// The singular vectors and values of a LoRA's product B A, from its factors as matrices, `O R` and `R I`: U, S and V.
pub fn of_product(up: &Tensor, down: &Tensor) -> Result<(Columns, Vec<f64>, Columns)> {
    let (left, a) = Columns::of(up)?.orthonormal(); // O R, R R
    let (right, b) = Columns::of(&down.t()?)?.orthonormal(); // I R, R R
    let (u, values, v) = a.times(&b.transposed()).singular();
    Ok((left.times(&u), values, right.times(&v)))
}

/// A product U S Vᵀ as the two factors of a LoRA at a rank, each with the root of the values: `rank I` and `O rank`.
pub fn halves(left: &Columns, values: &[f64], right: &Columns, rank: usize) -> Result<(Tensor, Tensor)> {
    let kept = rank.min(values.len());
    Ok((right.rooted(values, kept).matrix()?.t()?.contiguous()?, left.rooted(values, kept).matrix()?))
}

/// Columns of f64.
#[derive(Clone, Debug)]
pub struct Columns(pub Vec<Vec<f64>>);

impl Columns {
    /// A matrix of these columns, in f32: rows by columns.
    pub fn matrix(&self) -> Result<Tensor> {
        let columns: Vec<Vec<f32>> = self.0.iter().map(|c| c.iter().map(|x| *x as f32).collect()).collect();
        Tensor::new(columns, &Device::Cpu)?.t()?.contiguous()
    }

    /// The first `kept` columns, each times the root of its value: one side of a product U S Vᵀ.
    pub fn rooted(&self, values: &[f64], kept: usize) -> Self {
        let root = |(column, s): (&Vec<f64>, &f64)| column.iter().map(|x| x * s.sqrt()).collect();
        Self(self.0.iter().zip(values).take(kept).map(root).collect())
    }

    /// The columns of a matrix.
    pub fn of(matrix: &Tensor) -> Result<Self> {
        Ok(Self(matrix.t()?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec2()?))
    }

    /// `self` `small`.
    pub fn times(&self, small: &Self) -> Self {
        let column = |weights: &Vec<f64>| {
            let mut sum = vec![0.0; self.0.first().map_or(0, Vec::len)];
            self.0.iter().zip(weights).for_each(|(column, w)| add(&mut sum, *w, column));
            sum
        };
        Self(small.0.iter().map(column).collect())
    }

    /// `self`ᵀ `other`.
    pub fn transposed_times(&self, other: &Self) -> Self {
        Self(other.0.iter().map(|b| self.0.iter().map(|a| dot(a, b)).collect()).collect())
    }

    /// The rows as columns.
    pub fn transposed(&self) -> Self {
        let rows = self.0.first().map_or(0, Vec::len);
        Self((0..rows).map(|i| self.0.iter().map(|column| column[i]).collect()).collect())
    }

    /// Q and R of `self` = Q R, with as many columns as `self`. A column that depends on those before it is a column of
    /// zeros in Q. Gram & Schmidt, twice: the second pass takes out what rounding left of the first.
    pub fn orthonormal(&self) -> (Self, Self) {
        let (mut q, mut r): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (Vec::new(), Vec::new());
        for column in &self.0 {
            let (mut rest, mut along) = (column.clone(), vec![0.0; self.0.len()]);
            for _ in 0..2 {
                for (q, along) in q.iter().zip(&mut along) {
                    let part = dot(q, &rest);
                    *along += part;
                    add(&mut rest, -part, q);
                }
            }
            let norm = dot(&rest, &rest).sqrt();
            // What is left of a dependent column is rounding, in no direction of its own.
            if norm > 1e-14 * dot(column, column).sqrt() {
                along[q.len()] = norm;
                rest.iter_mut().for_each(|x| *x /= norm);
            } else {
                rest.fill(0.0);
            }
            q.push(rest);
            r.push(along);
        }
        (Self(q), Self(r))
    }

    /// U, S and V of `self` = U S Vᵀ, the singular values falling. Columns are rotated against each other until all are
    /// orthogonal (one-sided Jacobi; Hestenes 1958). Where a singular value is 0, the column of U is too.
    pub fn singular(&self) -> (Self, Vec<f64>, Self) {
        let n = self.0.len();
        let mut u = self.0.clone();
        let mut v: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
        for _ in 0..60 {
            let mut still = true;
            for p in 0..n {
                for q in p + 1..n {
                    let (a, b, c) = (dot(&u[p], &u[p]), dot(&u[q], &u[q]), dot(&u[p], &u[q]));
                    if c.abs() <= 1e-15 * (a * b).sqrt() {
                        continue;
                    }
                    still = false;
                    let zeta = (b - a) / (2.0 * c);
                    let tangent = zeta.signum() / (zeta.abs() + zeta.hypot(1.0));
                    let cos = tangent.hypot(1.0).recip();
                    rotate(&mut u, p, q, cos, cos * tangent);
                    rotate(&mut v, p, q, cos, cos * tangent);
                }
            }
            if still {
                break;
            }
        }
        let norms: Vec<f64> = u.iter().map(|c| dot(c, c).sqrt()).collect();
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&i, &j| norms[j].total_cmp(&norms[i]));
        let unit = |i: &usize| u[*i].iter().map(|x| if norms[*i] > 0.0 { x / norms[*i] } else { 0.0 }).collect();
        (
            Self(order.iter().map(unit).collect()),
            order.iter().map(|&i| norms[i]).collect(),
            Self(order.iter().map(|&i| v[i].clone()).collect()),
        )
    }
}

/// Solves R x = b for each column b, R upper triangular. Where R's diagonal is 0, x is 0.
pub fn back_substitute(r: &Columns, b: &Columns) -> Columns {
    let solve = |b: &Vec<f64>| {
        let mut x = b.clone();
        for j in (0..x.len()).rev() {
            x[j] = if r.0[j][j] == 0.0 { 0.0 } else { x[j] / r.0[j][j] };
            let (above, rest) = x.split_at_mut(j);
            add(above, -rest[0], &r.0[j][..j]);
        }
        x
    };
    Columns(b.0.iter().map(solve).collect())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(sum: &mut [f64], weight: f64, column: &[f64]) {
    sum.iter_mut().zip(column).for_each(|(s, c)| *s += weight * c);
}

fn rotate(columns: &mut [Vec<f64>], p: usize, q: usize, cos: f64, sin: f64) {
    let (left, right) = columns.split_at_mut(q);
    for (x, y) in left[p].iter_mut().zip(&mut right[0]) {
        (*x, *y) = (cos * *x - sin * *y, sin * *x + cos * *y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(rows: usize, columns: usize) -> Columns {
        let draw = |j| Stream::new(5, "small").at(j as u64, 0).normals(rows).into_iter().map(f64::from).collect();
        Columns((0..columns).map(draw).collect())
    }

    fn apart(a: &Columns, b: &Columns) -> f64 {
        a.0.iter().flatten().zip(b.0.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    fn identity(n: usize) -> Columns {
        Columns((0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect())
    }

    #[test]
    fn the_factors_multiply_to_the_matrix() {
        let m = random(9, 5);
        let (q, r) = m.orthonormal();
        assert!(apart(&q.times(&r), &m) < 1e-14 && apart(&q.transposed_times(&q), &identity(5)) < 1e-14);
        let (u, s, v) = m.singular();
        let scaled = Columns(u.0.iter().zip(&s).map(|(c, s)| c.iter().map(|x| x * s).collect()).collect());
        assert!(
            apart(&scaled.times(&v.transposed()), &m) < 1e-13 && apart(&u.transposed_times(&u), &identity(5)) < 1e-13
        );
        assert!(s.windows(2).all(|w| w[0] >= w[1]));
        let x = back_substitute(&r, &q.transposed_times(&m));
        assert!(apart(&x, &identity(5)) < 1e-13);
    }

    #[test]
    fn dependent_columns_are_zeros() {
        let mut m = random(6, 2);
        m.0.push(m.0[0].iter().map(|x| -2.0 * x).collect());
        let (q, r) = m.orthonormal();
        assert!(q.0[2].iter().all(|x| *x == 0.0) && apart(&q.times(&r), &m) < 1e-14);
        let (_, s, _) = m.singular();
        assert!(s[2] < 1e-14 * s[0]);
        let (u, s, _) = Columns(vec![vec![0.0; 3]; 2]).singular();
        assert!(s == [0.0, 0.0] && apart(&u, &Columns(vec![vec![0.0; 3]; 2])) == 0.0);
    }
}
