//! The running average of a product of two low-rank factors. The average of B A is not the product of the averages, and
//! is of no low rank itself; but P = B A seen through fixed random matrices is linear in it, and small: P Omega tells its
//! column space and Psi P the rest (Tropp, Yurtsever, Udell & Cevher 2017, arXiv 1609.00048, algorithms 4 and 7). So these
//! two are averaged, added and subtracted as any weights are, and the product's best approximation of some rank is taken
//! from them when it is needed.

use std::sync::OnceLock;

use candle_core::{DType, Result, Tensor, bail};
use sconce_core::adapter::{Averaged, Mean};
use sconce_nn::Param;
use sconce_nn::rng::Stream;
use sconce_nn::small::{Columns, back_substitute};

use super::lora::{DOWN, UP};
use super::parts::ALPHA;

/// What is averaged of one layer's factors.
pub(super) struct Sketch {
    /// B: O R, with ones behind for a convolution.
    pub up: Param,
    /// A: R I, or R I K K.
    pub down: Param,
    /// alpha / rank.
    pub scale: f64,
    /// Where the layer is: what its random matrices are drawn by.
    pub place: String,
    /// Omega and Psi, once they are needed.
    pub random: OnceLock<[Tensor; 2]>,
}

impl Sketch {
    /// B and A as matrices.
    fn factors(&self) -> Result<[Tensor; 2]> {
        let matrix = |p: &Param| p.tensor()?.detach().to_dtype(DType::F32)?.flatten_from(1);
        Ok([matrix(&self.up)?, matrix(&self.down)?])
    }

    /// Omega, I K, and Psi, L O: K two more than twice the rank, L twice as many.
    fn random(&self) -> Result<&[Tensor; 2]> {
        if let Some(found) = self.random.get() {
            return Ok(found);
        }
        let [up, down] = self.factors()?;
        let ((o, r), i) = (up.dims2()?, down.dim(1)?);
        let k = (2 * r + 2).min(o).min(i);
        let l = (2 * k).min(o);
        // A square one is the identity: the product itself is averaged where it is no larger than what tells of it.
        let draw = |what: &str, rows: usize, columns: usize| match rows == columns {
            true => Tensor::eye(rows, DType::F32, up.device()),
            false => {
                let drawn = Stream::new(0, &format!("{what} {}", self.place)).normal((rows, columns), up.device())?;
                drawn / (rows.max(columns) as f64).sqrt()
            }
        };
        let made = [draw("omega", i, k)?, draw("psi", l, o)?];
        Ok(self.random.get_or_init(|| made))
    }
}

impl Mean for Sketch {
    fn views(&self) -> Result<Vec<(&'static str, Tensor)>> {
        let ([up, down], [omega, psi]) = (self.factors()?, self.random()?);
        let range = up.matmul(&down.matmul(omega)?)?; // O K
        let corange = psi.matmul(&up)?.matmul(&down)?; // L I
        Ok(vec![("product.range", range), ("product.corange", corange)])
    }

    fn tensors(&self, means: &[Tensor], rank: Option<usize>) -> Result<Averaged> {
        let [range, corange] = means else { bail!("{}: a product is averaged by two tensors", self.place) };
        let (o, known) = range.dims2()?;
        let i = corange.dim(1)?;
        let rank = rank.unwrap_or(self.down.shape().dims()[0]);
        if rank == 0 || (rank > known && known < o.min(i)) {
            bail!("{}: of the average ranks from 1 to {known} are known, not {rank}", self.place);
        }
        let (y, z, psi) = (Columns::of(range)?, Columns::of(corange)?, Columns::of(&self.random()?[1])?);
        if y.0.iter().chain(&z.0).flatten().any(|v| !v.is_finite()) {
            bail!("{}: the average of the product is not finite", self.place);
        }
        // P = Q X, with Q an orthonormal basis of P Omega and X the least-squares solution of (Psi Q) X = Psi P.
        let (q, _) = y.orthonormal(); // O K
        let (basis, r) = psi.times(&q).orthonormal(); // L K, K K
        let x = back_substitute(&r, &basis.transposed_times(&z)); // K I
        let (tall, r) = x.transposed().orthonormal(); // I K, K K
        let (right, values, left) = r.singular();
        let (left, right) = (q.times(&left), tall.times(&right));

        let kept = rank.min(values.len());
        let factor = |side: &Columns, long: usize| {
            let mut half = side.rooted(&values, kept);
            half.0.resize(rank, vec![0.0; long]); // a layer's side may be less than the rank
            half.matrix() // long R
        };
        let shaped = |t: Tensor, like: &Param, dims: [usize; 2]| {
            let like = like.tensor()?;
            t.contiguous()?.reshape([&dims, &like.dims()[2..]].concat())?.to_device(like.device())
        };
        let down = shaped(factor(&right, i)?.t()?, &self.down, [rank, self.down.shape().dims()[1]])?;
        let up = shaped(factor(&left, o)?, &self.up, [o, rank])?;
        let squares = |values: &[f64]| values.iter().map(|s| s * s).sum::<f64>();
        Ok(Averaged {
            tensors: [(DOWN.to_owned(), down), (UP.to_owned(), up)].into(),
            constants: [(ALPHA.to_owned(), self.scale * rank as f64)].into(),
            left_out: squares(&values[kept..]),
            whole: squares(&values),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn norm(t: &Tensor) -> Result<f64> {
        Ok(f64::from(t.sqr()?.sum_all()?.to_scalar::<f32>()?).sqrt())
    }

    fn draw(what: &str, shape: &[usize]) -> Result<Tensor> {
        Stream::new(1, what).normal(shape, &Device::Cpu)
    }

    /// Products along a path whose average is of rank 2R: found in full at that rank, and at rank R as well as the best
    /// approximation is (Eckart & Young), which is nearer than the product of the averages.
    #[test]
    fn the_average_of_products_is_found() -> Result<()> {
        const R: usize = 3;
        let (b, a) = ([draw("b", &[40, R])?, draw("db", &[40, R])?], [draw("a", &[R, 24])?, draw("da", &[R, 24])?]);
        let (up, down) = (Param::new("b", b[0].clone()), Param::new("a", a[0].clone()));
        let sketch = Sketch { up, down, scale: 0.5, place: "here".into(), random: OnceLock::new() };
        let mut sums: Option<[Tensor; 4]> = None;
        const STEPS: usize = 8;
        for step in 0..STEPS {
            let at = 0.5 * step as f64 / STEPS as f64;
            sketch.up.set(&(&b[0] + (&b[1] * at)?)?)?;
            sketch.down.set(&(&a[0] + (&a[1] * at)?)?)?;
            let [up, down] = sketch.factors()?;
            let [range, corange] = sketch.views()?.try_into().expect("two views");
            let now = [range.1, corange.1, up, down];
            sums = Some(match sums {
                None => now,
                Some(sums) => std::array::from_fn(|i| (&sums[i] + &now[i]).expect("alike")),
            });
        }
        let [range, corange, up, down] = sums.expect("eight steps").map(|t| (t / STEPS as f64).expect("a tensor"));
        let mean = |i: usize| 0.5 * i as f64 / STEPS as f64;
        let product = |at: f64| (&b[0] + (&b[1] * at)?)?.matmul(&(&a[0] + (&a[1] * at)?)?);
        let mut truth = product(mean(0))?;
        for step in 1..STEPS {
            truth = (truth + product(mean(step))?)?;
        }
        let truth = (truth / STEPS as f64)?;

        let error = |p: &Tensor| norm(&(p - &truth)?).and_then(|e| Ok(e / norm(&truth)?));
        let found = |rank| -> Result<(f64, Averaged)> {
            let found = sketch.tensors(&[range.clone(), corange.clone()], rank)?;
            assert_eq!(found.constants[ALPHA], 0.5 * rank.unwrap_or(R) as f64);
            Ok((error(&found.tensors[UP].matmul(&found.tensors[DOWN])?)?, found))
        };
        let (whole, _) = found(Some(2 * R))?;
        let (best, averaged) = found(None)?;
        let factors = error(&up.matmul(&down)?)?;
        assert!(whole < 1e-5, "rank {}: {whole}", 2 * R);
        assert!(best < 0.9 * factors, "{best} against {factors}");
        assert!((best - (averaged.left_out / averaged.whole).sqrt()).abs() < 1e-5, "{best}");
        assert!(sketch.tensors(&[range, corange], Some(9)).is_err());
        Ok(())
    }

    #[test]
    fn nothing_stays_nothing() -> Result<()> {
        let (up, down) =
            (Param::new("b", Tensor::zeros((6, 2, 1, 1), DType::F32, &Device::Cpu)?), draw("a", &[2, 5, 3, 3])?);
        let place = "here".to_owned();
        let sketch = Sketch { up, down: Param::new("a", down), scale: 1.0, place, random: OnceLock::new() };
        let views: Vec<Tensor> = sketch.views()?.into_iter().map(|v| v.1).collect();
        let found = sketch.tensors(&views, None)?;
        assert_eq!((found.tensors[UP].dims(), found.tensors[DOWN].dims()), (&[6, 2, 1, 1][..], &[2, 5, 3, 3][..]));
        assert_eq!(norm(&found.tensors[UP])?, 0.0);
        Ok(())
    }
}
