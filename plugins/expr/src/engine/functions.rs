//! What a formula may call: a line a function, with its derivative beside it. A new one is a new line; the grammar, the
//! docs of `sconce show` and the advice in errors read this table.
//!
//! Where two branches meet, the derivative is that of the branch from which the value is taken: `min` and `max` take the
//! earlier argument of two that are equal, `abs` counts 0 as above 0, `if` looks at its condition alone, and what is flat
//! between jumps (`step`, `round`, a comparison) has derivative 0 on them too.

use std::f64::consts::{E, LN_2, LN_10, PI, SQRT_2};

use sconce_sdk::special::{beta, normal};

use super::block::{self, Each};

/// A function's value.
pub type Value<const N: usize> = fn([f64; N]) -> f64;

/// Its derivatives by its arguments, given these and the value; none by one that has no part in the value there, such as the
/// branch of an `if` that is not taken.
pub type Slopes<const N: usize> = fn([f64; N], f64) -> [Option<f64>; N];

/// How a function is computed, by its number of arguments.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Rule {
    One {
        value: Value<1>,
        slopes: Slopes<1>,
        each: Each<1>,
    },
    Two {
        value: Value<2>,
        slopes: Slopes<2>,
        each: Each<2>,
    },
    /// Of two, and of more by taking them one after another.
    TwoOrMore {
        value: Value<2>,
        slopes: Slopes<2>,
        each: Each<2>,
    },
    Three {
        value: Value<3>,
        slopes: Slopes<3>,
        each: Each<3>,
    },
}

impl Rule {
    /// How many arguments it takes at a time.
    pub(super) fn arguments(&self) -> usize {
        match self {
            Self::One { .. } => 1,
            Self::Two { .. } | Self::TwoOrMore { .. } => 2,
            Self::Three { .. } => 3,
        }
    }
}

/// A function by name.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// The word in formulas.
    pub name: &'static str,
    /// How it is called.
    pub call: &'static str,
    /// What it is.
    pub about: &'static str,
    /// How it is computed.
    pub rule: Rule,
}

/// A rule from its value and its slopes: by itself and for a block.
macro_rules! rule {
    ($arity:ident $value:expr, $slopes:expr) => {
        Rule::$arity { value: $value, slopes: $slopes, each: |columns| block::apply(columns, $value, $slopes) }
    };
}

impl Function {
    /// Whether it takes a series, and so a thousand times what a product takes.
    pub(super) fn is_slow(&self) -> bool {
        self.name.starts_with("beta_")
    }
}

/// Numbers with a name.
pub const CONSTANTS: [(&str, f64); 2] = [("pi", PI), ("e", E)];

/// `|y| …` are the derivatives, `pick …` those of a function that takes one of its arguments as it is, or none.
macro_rules! functions {
    (@ |$y:pat_param| $slopes:expr, $x:pat_param) => { |$x, $y| $slopes.map(Some) };
    (@ pick $slopes:expr, $x:pat_param) => { |$x, _| $slopes };
    ($($name:literal $call:literal $about:literal $arity:ident |$x:pat_param| $value:expr, { $($slopes:tt)* })*) => {
        &[$(Function {
            name: $name,
            call: $call,
            about: $about,
            rule: rule!($arity |$x| $value, functions!(@ $($slopes)*, $x)),
        }),*]
    };
}

/// Every function.
#[rustfmt::skip]
#[allow(unused_variables)]
pub const FUNCTIONS: &[Function] = functions! {
    "min"   "min(a, b, ...)" "the smallest"                       TwoOrMore |[a, b]| if before(a, b) { a } else { b }, { pick first(before(a, b)) }
    "max"   "max(a, b, ...)" "the largest"                        TwoOrMore |[a, b]| if after(a, b) { a } else { b }, { pick first(after(a, b)) }
    "clamp" "clamp(x, low, high)" "x, kept from low to high"      Three |[x, low, high]| if x < low { low } else if x > high { high } else { x }, { pick [(!(x < low || x > high)).then_some(1.0), (x < low).then_some(1.0), (x >= low && x > high).then_some(1.0)] }
    "if"    "if(c, a, b)" "a where c is not 0, else b"            Three |[c, a, b]| if c != 0.0 { a } else { b }, { pick [None, (c != 0.0).then_some(1.0), (c == 0.0).then_some(1.0)] }
    "lerp"  "lerp(a, b, x)" "a + (b - a) x"                       Three |[a, b, x]| a + (b - a) * x, { |y| [1.0 - x, x, b - a] }
    "step"  "step(x)" "0 below 0, else 1"                         One |[x]| f64::from(x >= 0.0), { pick [None] }
    "sign"  "sign(x)" "-1, 0 or 1"                                One |[x]| if x == 0.0 { 0.0 } else { x.signum() }, { pick [None] }
    "abs"   "abs(x)" "without its sign"                           One |[x]| x.abs(), { |y| [if x < 0.0 { -1.0 } else { 1.0 }] }
    "floor" "floor(x)" "down to a whole number"                   One |[x]| x.floor(), { pick [None] }
    "ceil"  "ceil(x)" "up to a whole number"                      One |[x]| x.ceil(), { pick [None] }
    "round" "round(x)" "to a whole number, halves to the even one" One |[x]| x.round_ties_even(), { pick [None] }
    "mod"   "mod(a, b)" "what is left of a after whole b"         Two |[a, b]| a.rem_euclid(b), { |y| [1.0, -((a - y) / b)] }
    "exp"   "exp(x)" "e^x"                                        One |[x]| x.exp(), { |y| [y] }
    "expm1" "expm1(x)" "e^x - 1, exact near 0"                    One |[x]| x.exp_m1(), { |y| [y + 1.0] }
    "ln"    "ln(x)" "the natural logarithm"                       One |[x]| x.ln(), { |y| [1.0 / x] }
    "log1p" "log1p(x)" "ln(1 + x), exact near 0"                  One |[x]| x.ln_1p(), { |y| [1.0 / (1.0 + x)] }
    "log2"  "log2(x)" "the logarithm to base 2"                   One |[x]| x.log2(), { |y| [1.0 / (x * LN_2)] }
    "log10" "log10(x)" "the logarithm to base 10"                 One |[x]| x.log10(), { |y| [1.0 / (x * LN_10)] }
    "sqrt"  "sqrt(x)" "the square root"                           One |[x]| x.sqrt(), { |y| [0.5 / y] }
    "cbrt"  "cbrt(x)" "the cube root"                             One |[x]| x.cbrt(), { |y| [1.0 / (3.0 * y * y)] }
    "pow"   "pow(a, b)" "a^b"                                     Two |[a, b]| power(a, b), { |y| power_slopes(a, b, y) }
    "hypot" "hypot(a, b)" "sqrt(a^2 + b^2)"                       Two |[a, b]| a.hypot(b), { |y| if y == 0.0 { [1.0, 1.0] } else { [a / y, b / y] } }
    "sin"   "sin(x)" "the sine of radians"                        One |[x]| x.sin(), { |y| [x.cos()] }
    "cos"   "cos(x)" "the cosine"                                 One |[x]| x.cos(), { |y| [-x.sin()] }
    "tan"   "tan(x)" "the tangent"                                One |[x]| x.tan(), { |y| [1.0 + y * y] }
    "asin"  "asin(x)" "the angle of a sine"                       One |[x]| x.asin(), { |y| [1.0 / ((1.0 - x) * (1.0 + x)).sqrt()] }
    "acos"  "acos(x)" "the angle of a cosine"                     One |[x]| x.acos(), { |y| [-1.0 / ((1.0 - x) * (1.0 + x)).sqrt()] }
    "atan"  "atan(x)" "the angle of a tangent"                    One |[x]| x.atan(), { |y| [1.0 / (1.0 + x * x)] }
    "atan2" "atan2(y, x)" "the angle of the point (x, y)"         Two |[a, b]| a.atan2(b), { |y| [b / (a * a + b * b), -a / (a * a + b * b)] }
    "sinh"  "sinh(x)" "the hyperbolic sine"                       One |[x]| x.sinh(), { |y| [x.cosh()] }
    "cosh"  "cosh(x)" "the hyperbolic cosine"                     One |[x]| x.cosh(), { |y| [x.sinh()] }
    "tanh"  "tanh(x)" "the hyperbolic tangent"                    One |[x]| x.tanh(), { |y| [(1.0 - y) * (1.0 + y)] }
    "asinh" "asinh(x)" "the inverse of sinh"                      One |[x]| x.asinh(), { |y| [1.0 / x.hypot(1.0)] }
    "acosh" "acosh(x)" "the inverse of cosh"                      One |[x]| x.acosh(), { |y| [1.0 / ((x - 1.0) * (x + 1.0)).sqrt()] }
    "atanh" "atanh(x)" "the inverse of tanh"                      One |[x]| x.atanh(), { |y| [1.0 / ((1.0 - x) * (1.0 + x))] }
    "sigmoid" "sigmoid(x)" "1/(1 + e^-x)"                         One |[x]| sigmoid(x), { |y| [y * sigmoid(-x)] }
    "logit" "logit(x)" "ln(x/(1 - x))"                            One |[x]| x.ln() - (-x).ln_1p(), { |y| [1.0 / (x * (1.0 - x))] }
    "softplus" "softplus(x)" "ln(1 + e^x)"                        One |[x]| x.max(0.0) + (-x.abs()).exp().ln_1p(), { |y| [sigmoid(x)] }
    "erf"   "erf(x)" "the error function"                         One |[x]| libm::erf(x), { |y| [bell(x * SQRT_2) * 2.0 * SQRT_2] }
    "erfc"  "erfc(x)" "1 - erf(x), exact where it is small"       One |[x]| libm::erfc(x), { |y| [bell(x * SQRT_2) * -2.0 * SQRT_2] }
    "normal" "normal(x)" "the standard normal distribution function" One |[x]| normal::normal(x), { |y| [bell(x)] }
    "probit" "probit(u)" "the standard normal quantile"           One |[u]| normal::probit(u), { |y| [1.0 / bell(y)] }
    "lgamma" "lgamma(x)" "the logarithm of the gamma function"    One |[x]| libm::lgamma(x), { |y| [f64::NAN] }
    "beta_cdf" "beta_cdf(x, a, b)" "the beta distribution function with numbers a, b, at most 10,000" Three |[x, a, b]| of_beta(a, b, || beta::incomplete_beta(a, b, x)), { |y| [beta_density(x, a, b), f64::NAN, f64::NAN] }
    "beta_quantile" "beta_quantile(u, a, b)" "its quantile"       Three |[u, a, b]| of_beta(a, b, || beta::quantile(u, a, b)), { |y| [1.0 / beta_density(y, a, b), f64::NAN, f64::NAN] }
};

/// The operators between two values, from the loosest to the tightest.
#[allow(unused_variables)]
pub mod operators {
    use super::{Rule, block, power, power_slopes};

    macro_rules! comparison {
        ($name:ident, $op:tt) => {
            /// 1 where it holds, else 0.
pub const $name: Rule = rule!(Two |[a, b]| f64::from(a $op b), |_, _| [None, None]);
        };
    }
    comparison!(LESS, <);
    comparison!(MORE, >);
    comparison!(AT_MOST, <=);
    comparison!(AT_LEAST, >=);
    comparison!(EQUAL, ==);
    comparison!(OTHER, !=);

    /// a + b.
    pub const ADD: Rule = rule!(Two | [a, b] | a + b, |_, _| [1.0, 1.0].map(Some));
    /// a - b.
    pub const SUBTRACT: Rule = rule!(Two | [a, b] | a - b, |_, _| [1.0, -1.0].map(Some));
    /// a b.
    pub const MULTIPLY: Rule = rule!(Two | [a, b] | a * b, |[a, b], _| [b, a].map(Some));
    /// a/b.
    pub const DIVIDE: Rule = rule!(Two | [a, b] | a / b, |[_, b], y| [1.0 / b, -y / b].map(Some));
    /// -a.
    pub const NEGATE: Rule = rule!(One | [a] | -a, |_, _| [-1.0].map(Some));
    /// a^b.
    pub const POWER: Rule = rule!(Two | [a, b] | power(a, b), |[a, b], y| power_slopes(a, b, y).map(Some));

    /// The powers that formulas are full of, as rules of their own: [`POWER`] to the bit, without its questions.
    pub fn whole_power(n: f64) -> Option<Rule> {
        macro_rules! to {
            ($n:literal) => {
                rule!(One | [a] | a.powi($n), |[a], _| [Some(f64::from($n) * a.powi($n - 1))])
            };
        }
        match n {
            -2.0 => Some(to!(-2)),
            -1.0 => Some(to!(-1)),
            2.0 => Some(to!(2)),
            3.0 => Some(to!(3)),
            4.0 => Some(to!(4)),
            _ => None,
        }
    }
}

/// The order that `min` goes by. What is no number comes first, so that it is not lost.
fn before(a: f64, b: f64) -> bool {
    a <= b || a.is_nan()
}

/// The order that `max` goes by, likewise.
fn after(a: f64, b: f64) -> bool {
    a >= b || a.is_nan()
}

fn first(it_is: bool) -> [Option<f64>; 2] {
    if it_is { [Some(1.0), None] } else { [None, Some(1.0)] }
}

/// Small whole powers by multiplication, which is what a square means everywhere else in this program.
fn power(a: f64, b: f64) -> f64 {
    if b.fract() == 0.0 && b.abs() <= 8.0 { a.powi(b as i32) } else { a.powf(b) }
}

fn power_slopes(a: f64, b: f64, y: f64) -> [f64; 2] {
    [if b == 0.0 { 0.0 } else { b * power(a, b - 1.0) }, if y == 0.0 { 0.0 } else { y * a.ln() }]
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The standard normal density.
fn bell(x: f64) -> f64 {
    (-0.5 * x * x).exp() / (2.0 * PI).sqrt()
}

/// Larger shapes than any distribution of noise has take a series of thousands of terms.
const LARGEST_SHAPE: f64 = 1e4;

fn of_beta(a: f64, b: f64, value: impl Fn() -> f64) -> f64 {
    let right = |shape: f64| shape > 0.0 && shape <= LARGEST_SHAPE;
    if right(a) && right(b) { value() } else { f64::NAN }
}

fn beta_density(x: f64, a: f64, b: f64) -> f64 {
    ((a - 1.0) * x.ln() + (b - 1.0) * (-x).ln_1p() - beta::ln_beta(a, b)).exp()
}
