//! What a formula is computed in: plain numbers, or numbers with a derivative, so that a slope is exact and costs one pass.

use super::functions::{Rule, Slopes, Value};

/// A number that a formula can be computed in.
pub trait Number: Copy {
    /// A number that does not change.
    fn constant(x: f64) -> Self;

    /// A function of as many arguments as its rule says.
    fn apply<const N: usize>(arguments: [Self; N], value: Value<N>, slopes: Slopes<N>) -> Self;

    /// Takes a rule's arguments off a stack of `top` numbers and leaves its value there; how many there are then.
    fn step(rule: &Rule, stack: &mut [Self], top: usize) -> usize {
        match *rule {
            Rule::One { value, slopes, .. } => Self::leave(stack, top, value, slopes),
            Rule::Two { value, slopes, .. } | Rule::TwoOrMore { value, slopes, .. } => {
                Self::leave(stack, top, value, slopes)
            }
            Rule::Three { value, slopes, .. } => Self::leave(stack, top, value, slopes),
        }
    }

    /// [`Number::step`] for a known count of arguments.
    fn leave<const N: usize>(stack: &mut [Self], top: usize, value: Value<N>, slopes: Slopes<N>) -> usize {
        let at = top - N;
        stack[at] = Self::apply(std::array::from_fn(|i| stack[at + i]), value, slopes);
        at + 1
    }
}

impl Number for f64 {
    fn constant(x: f64) -> Self {
        x
    }

    fn apply<const N: usize>(x: [f64; N], value: Value<N>, _: Slopes<N>) -> f64 {
        value(x)
    }
}

/// A number and its derivative by one variable.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Dual {
    /// The number.
    pub value: f64,
    /// Its derivative.
    pub slope: f64,
}

impl Dual {
    /// The variable itself.
    pub fn variable(value: f64) -> Self {
        Self { value, slope: 1.0 }
    }
}

impl Number for Dual {
    fn constant(value: f64) -> Self {
        Self { value, slope: 0.0 }
    }

    fn apply<const N: usize>(x: [Dual; N], value: Value<N>, slopes: Slopes<N>) -> Dual {
        chain(x, value, slopes)
    }
}

impl From<Dual> for [f64; 2] {
    fn from(dual: Dual) -> Self {
        [dual.value, dual.slope]
    }
}

/// The chain rule. What does not change adds nothing, however steep the function is there: sqrt(0) is 0 with slope 0
/// where the 0 is a constant. Nor does a branch that is not taken, whatever it is.
#[inline(always)]
pub(super) fn chain<const N: usize>(
    x: [Dual; N],
    value: impl Fn([f64; N]) -> f64,
    slopes: impl Fn([f64; N], f64) -> [Option<f64>; N],
) -> Dual {
    let at = x.map(|x| x.value);
    let value = value(at);
    let mut slope = 0.0;
    if x.iter().any(|x| x.slope != 0.0) {
        for (by, x) in slopes(at, value).into_iter().zip(x) {
            if let Some(by) = by.filter(|_| x.slope != 0.0) {
                slope += by * x.slope;
            }
        }
    }
    Dual { value, slope }
}
