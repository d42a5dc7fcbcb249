//! Takes the last of the signal out of another schedule, so that a model learns to start from noise alone and can draw
//! true blacks and whites.

use std::sync::{Arc, OnceLock};

use sconce_sdk::{Discrete, prelude::*};

/// Any schedule with no signal left at t = 1 (Lin et al. 2023, algorithm 1): the share of signal s = alpha/sqrt(alpha² +
/// sigma²) becomes (s - s(1)) s(0)/(s(0) - s(1)), where s(0) is at a discrete schedule's first point.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = serde_json::json!({ "of": "scaled-linear" }))]
pub struct ZeroTerminal {
    /// The schedule to change.
    pub of: Choice<dyn Schedule>,
    #[serde(skip)]
    table: OnceLock<Discrete>,
}

impl ZeroTerminal {
    /// Around `of`.
    pub fn new(of: Choice<dyn Schedule>) -> Self {
        Self { of, table: OnceLock::new() }
    }

    fn rescale(&self, first: f64, s: f64) -> f64 {
        let last = Signal::of(&self.of.at(1.0)).share;
        (s - last) * first / (first - last)
    }
}

/// Noise amounts as a share of signal and a power p: alpha = p s, sigma = p sqrt(1 - s²).
struct Signal {
    share: f64,
    d_share: f64,
    power: f64,
    d_power: f64,
}

impl Signal {
    fn of(n: &Noise) -> Self {
        let power = n.alpha.hypot(n.sigma);
        let d_power = (n.alpha * n.d_alpha + n.sigma * n.d_sigma) / power;
        let share = n.alpha / power;
        Self { share, d_share: (n.d_alpha - share * d_power) / power, power, d_power }
    }
}

impl Schedule for ZeroTerminal {
    fn at(&self, t: f64) -> Noise {
        let inner = self.of.at(t);
        if self.of.at(1.0).alpha == 0.0 {
            return inner;
        }
        let signal = Signal::of(&inner);
        let (share, rest, d_share, d_rest) = match self.of.grid() {
            Some(n) => {
                let point = |i| Signal::of(&self.of.at(i as f64 / n as f64)).share;
                let alpha_bar = |i| self.rescale(point(1), point(i)).powi(2);
                let inside = self.table.get_or_init(|| Discrete::from_alpha_bar((1..=n).map(alpha_bar))).at(t);
                (inside.alpha, inside.sigma, inside.d_alpha, inside.d_sigma)
            }
            None => {
                let first = Signal::of(&self.of.at(0.0)).share;
                let share = self.rescale(first, signal.share);
                let d_share = self.rescale(first, signal.share + signal.d_share) - share;
                let rest = ((1.0 - share) * (1.0 + share)).sqrt();
                let d_rest = if rest > 0.0 { -share * d_share / rest } else { inner.d_sigma / signal.power };
                (share, rest, d_share, d_rest)
            }
        };
        Noise {
            alpha: signal.power * share,
            sigma: signal.power * rest,
            d_alpha: signal.d_power * share + signal.power * d_share,
            d_sigma: signal.d_power * rest + signal.power * d_rest,
        }
    }

    fn grid(&self) -> Option<usize> {
        self.of.grid()
    }

    fn at_size(&self, height: usize, width: usize) -> Option<Arc<dyn Schedule>> {
        let of = self.of.at_size(height, width)?;
        Some(Arc::new(Self::new(self.of.with(of))))
    }
}

register!(Schedule, "zero-terminal", ZeroTerminal);

#[cfg(test)]
mod tests {
    use super::*;

    fn around(name: &str) -> ZeroTerminal {
        ZeroTerminal::new(Choice::named(name).unwrap())
    }

    #[test]
    fn nothing_is_left_and_the_first_point_stays() {
        for name in ["scaled-linear", "linear", "cosine"] {
            let (inner, outer) = (Choice::<dyn Schedule>::named(name).unwrap(), around(name));
            assert_eq!(outer.at(1.0).alpha, 0.0, "{name}");
            assert!((outer.at(1.0).sigma - 1.0).abs() < 1e-12, "{name}");
            assert!((outer.at(0.001).alpha - inner.at(0.001).alpha).abs() < 1e-12, "{name}");
        }
        // Lin et al. give no figure for the last but one; it follows from algorithm 1.
        assert!((around("scaled-linear").at(0.999).snr() - 2.0e-7).abs() < 1e-8);
    }

    #[test]
    fn what_is_zero_terminal_already_stays_as_it_is() {
        let flow = Choice::<dyn Schedule>::named("rectified-flow").unwrap();
        assert_eq!(around("rectified-flow").at(0.3), flow.at(0.3));
    }

    /// alpha = cos(1.4 t), sigma = sin(1.4 t): continuous, with some signal left.
    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Arc {}

    impl Schedule for Arc {
        fn at(&self, t: f64) -> Noise {
            let (sin, cos) = (1.4 * t).sin_cos();
            Noise { alpha: cos, sigma: sin, d_alpha: -1.4 * sin, d_sigma: 1.4 * cos }
        }
    }

    register!(Schedule, "arc-for-tests", Arc);

    #[test]
    fn continuous_schedules_are_rescaled_with_their_derivatives() {
        let schedule = around("arc-for-tests");
        assert_eq!((schedule.at(0.0).alpha, schedule.at(1.0).alpha), (1.0, 0.0));
        for t in [0.1, 0.5, 0.9] {
            let (before, here, after) = (schedule.at(t - 1e-6), schedule.at(t), schedule.at(t + 1e-6));
            assert!(((after.alpha - before.alpha) / 2e-6 - here.d_alpha).abs() < 1e-6);
            assert!(((after.sigma - before.sigma) / 2e-6 - here.d_sigma).abs() < 1e-6);
        }
    }
}
