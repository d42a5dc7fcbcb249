//! The weighted sum of averages whose profile comes nearest to a wanted one (Karras et al. 2024, section 3.2). The weights are solved in f64 and depend on profiles and times alone, never on a tensor.

use sconce_sdk::Profile;

/// A ridge under the normalised Gram matrix. Neighbouring snapshots of several tracks are so much alike that its smallest
/// eigenvalues are below f64's resolution: without it their weights grow into thousands that cancel, and take the
/// snapshots' rounding with them. This one changes a profile between those tracked by 1e-7 of its norm.
const RIDGE: f64 = 1e-12;

/// Some averages, each a profile at a time, and the Cholesky factor of their Gram matrix.
pub struct Basis {
    members: Vec<(Profile, f64)>,
    /// One over each member's norm.
    scale: Vec<f64>,
    /// The lower triangle, row by row.
    factor: Vec<Vec<f64>>,
}

/// How much each member of a [`Basis`] counts, and what comes of it.
#[derive(Clone, Debug)]
pub struct Mix {
    /// One each; they sum to 1.
    pub weights: Vec<f64>,
    /// |p - p'|/|p|: how far the sum's profile p' is from the wanted one p.
    pub error: f64,
}

impl Basis {
    /// Of averages at times above 0. `precision` is the relative rounding of their stored values: the mix has the least
    /// sum of its own squared error and that of the values.
    pub fn new(members: Vec<(Profile, f64)>, precision: f64) -> Self {
        let scale: Vec<f64> = members.iter().map(|(p, t)| p.product(*t, p, *t).sqrt().recip()).collect();
        let mut factor: Vec<Vec<f64>> = Vec::with_capacity(members.len());
        for (i, (p, t)) in members.iter().enumerate() {
            let mut row = Vec::with_capacity(i + 1);
            for (j, (q, u)) in members[..=i].iter().enumerate() {
                let below: &[f64] = if i == j { &row } else { &factor[j][..j] };
                let known: f64 = row[..j].iter().zip(below).map(|(a, b): (&f64, &f64)| a * b).sum();
                let rest = p.product(*t, q, *u) * scale[i] * scale[j] - known;
                row.push(match i == j {
                    true => (rest + RIDGE + precision.powi(2)).max(RIDGE * 0.01).sqrt(),
                    false => rest / factor[j][j],
                });
            }
            factor.push(row);
        }
        Self { members, scale, factor }
    }

    /// The mix nearest to `wanted` at time `at`: A x = b with A_ij = <p_i, p_j> and b_i = <p_i, wanted>, then x / sum x.
    pub fn nearest(&self, wanted: Profile, at: f64) -> Mix {
        let inner: Vec<f64> = self.members.iter().map(|(p, t)| p.product(*t, &wanted, at)).collect();
        let mut x: Vec<f64> = inner.iter().zip(&self.scale).map(|(b, s)| b * s).collect();
        for (i, row) in self.factor.iter().enumerate() {
            let known: f64 = row[..i].iter().zip(&x).map(|(l, x)| l * x).sum();
            x[i] = (x[i] - known) / row[i];
        }
        for i in (0..x.len()).rev() {
            x[i] /= self.factor[i][i];
            let (above, rest) = x.split_at_mut(i);
            above.iter_mut().zip(&self.factor[i]).for_each(|(x, l)| *x -= l * rest[0]);
        }
        x.iter_mut().zip(&self.scale).for_each(|(x, s)| *x *= s);
        let sum: f64 = x.iter().sum();
        x.iter_mut().for_each(|x| *x /= sum);

        let mut squares = wanted.product(at, &wanted, at);
        let norm = squares;
        for (i, (p, t)) in self.members.iter().enumerate() {
            let others = self.members.iter().zip(&x);
            let gram: f64 = others.map(|((q, u), x)| x * p.product(*t, q, *u)).sum();
            squares += x[i] * (gram - 2.0 * inner[i]);
        }
        Mix { weights: x, error: (squares.max(0.0) / norm).sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basis(snapshots: u32, widths: &[f64]) -> Basis {
        let of = |&s: &f64| {
            let profile = Profile::of_width(s).expect("in range");
            (1..=snapshots).map(move |i| (profile, f64::from(i) / f64::from(snapshots)))
        };
        Basis::new(widths.iter().flat_map(of).collect(), 2f64.powi(-24))
    }

    fn wanted(sigma_rel: f64) -> Profile {
        Profile::of_width(sigma_rel).expect("in range")
    }

    #[test]
    fn a_tracked_average_is_itself() {
        let mix = basis(16, &[0.05, 0.10]).nearest(wanted(0.10), 1.0);
        let (last, others) = mix.weights.split_last().expect("32 of them");
        assert!((last - 1.0).abs() < 1e-6 && others.iter().all(|w| w.abs() < 1e-6), "{:?}", mix.weights);
        assert!(mix.error < 1e-6, "{}", mix.error);
    }

    /// Errors of the profile as numpy's solve gives them for the same equations.
    #[test]
    fn errors_are_those_of_the_exact_solution() {
        for (snapshots, sigma_rel, error) in
            [(8, 0.07, 1.3e-2), (32, 0.07, 9.8e-4), (32, 0.15, 2.3e-3), (32, 0.25, 3.4e-2), (128, 0.03, 7.3e-4)]
        {
            let mix = basis(snapshots, &[0.05, 0.10]).nearest(wanted(sigma_rel), 1.0);
            assert!((mix.error / error - 1.0).abs() < 0.04, "{snapshots} {sigma_rel}: {}", mix.error);
            assert!((mix.weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
    }

    /// Five tracks of 128 snapshots: the condition number is above 1e19, and the plain solution's weights sum to 43,000
    /// in absolute value.
    #[test]
    fn many_snapshots_do_not_blow_the_weights_up() {
        let mix = basis(128, &[0.05, 0.07, 0.10, 0.15, 0.25]);
        for (sigma_rel, most) in [(0.03, 200.0), (0.06, 30.0), (0.12, 30.0), (0.20, 30.0)] {
            let mix = mix.nearest(wanted(sigma_rel), 1.0);
            let size: f64 = mix.weights.iter().map(|w| w.abs()).sum();
            assert!(mix.error < 2e-5 && size < most, "{sigma_rel}: {} at {}", mix.error, size);
        }
    }
}
