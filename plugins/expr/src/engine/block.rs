//! A formula at many places: each operation is done for a block of them before the next, so that its loop is machine code of
//! its own, and what stays the same over the block is computed once. Every number is to the bit what one place alone gets:
//! both go through [`chain`].

use super::calculus::{Dual, Number, chain};
use super::formula::{Formula, Op};
use super::functions::Rule;

/// Places of a block: a formula's columns stay in the fastest cache.
pub const BLOCK: usize = 128;

/// An operation on columns: its value is left in the first.
pub type Each<const N: usize> = fn(&mut [Column; N]);

/// A number on the stack, at each place of a block.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its value where it is the same at all; the rest is then not read.
    still: Option<f64>,
    values: [f64; BLOCK],
    slopes: [f64; BLOCK],
}

impl Column {
    fn at(&self, i: usize) -> Dual {
        match self.still {
            Some(value) => Dual::constant(value),
            None => Dual { value: self.values[i], slope: self.slopes[i] },
        }
    }
}

/// What [`Each`] is made of: a function's value and its derivatives, compiled into the loop.
#[inline(always)]
pub(super) fn apply<const N: usize>(
    columns: &mut [Column; N],
    value: impl Fn([f64; N]) -> f64 + Copy,
    slopes: impl Fn([f64; N], f64) -> [Option<f64>; N] + Copy,
) {
    let still: [bool; N] = std::array::from_fn(|k| columns[k].still.is_some());
    if still == [true; N] {
        columns[0].still = Some(value(std::array::from_fn(|k| columns[k].at(0).value)));
        return;
    }
    // A loop for each way in which one of two stays: what a constant's derivative would cost falls away.
    if N == 2 && still[0] {
        run(columns, std::array::from_fn(|k| k == 0), value, slopes);
    } else if N == 2 && still[1] {
        run(columns, std::array::from_fn(|k| k == 1), value, slopes);
    } else {
        for column in columns.iter_mut() {
            if let Some(value) = column.still {
                column.values = [value; BLOCK];
                column.slopes = [0.0; BLOCK];
            }
        }
        run(columns, [false; N], value, slopes);
    }
}

#[inline(always)]
fn run<const N: usize>(
    columns: &mut [Column; N],
    still: [bool; N],
    value: impl Fn([f64; N]) -> f64 + Copy,
    slopes: impl Fn([f64; N], f64) -> [Option<f64>; N] + Copy,
) {
    let constants: [f64; N] = std::array::from_fn(|k| columns[k].still.unwrap_or_default());
    let (mut all, mut by) = ([0.0; BLOCK], [0.0; BLOCK]);
    for i in 0..BLOCK {
        let x = std::array::from_fn(|k| match still[k] {
            true => Dual::constant(constants[k]),
            false => Dual { value: columns[k].values[i], slope: columns[k].slopes[i] },
        });
        Dual { value: all[i], slope: by[i] } = chain(x, value, slopes);
    }
    columns[0] = Column { still: None, values: all, slopes: by };
}

impl Formula {
    /// Its value and derivative by the first variable at each of many places; the other variables stay as they are. To the
    /// bit what [`Formula::along`] gives.
    pub fn each(&self, first: &[f64], rest: &[f64], out: &mut [[f64; 2]]) {
        let column = Column { still: Some(0.0), values: [0.0; BLOCK], slopes: [0.0; BLOCK] };
        let mut stack = if first.len() < BLOCK { Vec::new() } else { vec![column; self.depth().max(1)] };
        let (blocks, left) = first.as_chunks::<BLOCK>();
        let (outs, out_left) = out.split_at_mut(first.len() - left.len());
        for (block, out) in blocks.iter().zip(outs.chunks_mut(BLOCK)) {
            self.block(block, rest, &mut stack);
            out.iter_mut().enumerate().for_each(|(i, out)| *out = stack[0].at(i).into());
        }
        let mut variables: Vec<Dual> = [0.0].iter().chain(rest).map(|x| Dual::constant(*x)).collect();
        for (x, out) in left.iter().zip(out_left) {
            variables[0] = Dual::variable(*x);
            *out = self.along(&variables).into();
        }
    }

    fn block(&self, first: &[f64; BLOCK], rest: &[f64], stack: &mut [Column]) {
        let mut top = 0;
        for op in self.ops() {
            top = match *op {
                Op::Number(x) => put(stack, top, x),
                Op::Variable(0) => {
                    stack[top] = Column { still: None, values: *first, slopes: [1.0; BLOCK] };
                    top + 1
                }
                Op::Variable(i) => put(stack, top, rest[i - 1]),
                Op::Apply(Rule::One { each, .. }) => take(stack, top, each),
                Op::Apply(Rule::Two { each, .. } | Rule::TwoOrMore { each, .. }) => take(stack, top, each),
                Op::Apply(Rule::Three { each, .. }) => take(stack, top, each),
            };
        }
    }
}

fn put(stack: &mut [Column], top: usize, x: f64) -> usize {
    stack[top].still = Some(x);
    top + 1
}

fn take<const N: usize>(stack: &mut [Column], top: usize, each: Each<N>) -> usize {
    let at = top - N;
    each(stack[at..].first_chunk_mut().expect("reading it saw to the arguments"));
    at + 1
}
