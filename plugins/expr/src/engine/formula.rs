//! A formula that was read: operations on a small stack, in the order in which they are done. Reading it checked that the
//! stack suffices and that every name is known, so computing it cannot fail, and takes as many steps as it has operations.

use super::calculus::{Dual, Number};
use super::functions::{Rule, operators};

/// The most bytes a formula may have.
pub const MAX_LENGTH: usize = 2000;
/// How deep brackets and unfinished operations may nest.
pub const MAX_DEPTH: usize = 64;
/// The most functions that take a series.
pub const MAX_SLOW: usize = 8;
/// Most formulas need no more of the stack than this.
const SHALLOW: usize = 8;

/// One operation.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Puts a number on the stack.
    Number(f64),
    /// Puts the variable of this place on the stack.
    Variable(usize),
    /// Takes a rule's arguments from it and puts its value there.
    Apply(Rule),
}

/// A formula of numbered variables.
#[derive(Clone, Debug)]
pub struct Formula {
    ops: Vec<Op>,
    depth: usize,
    slow: usize,
}

/// A formula that is being read.
#[derive(Debug, Default)]
pub(super) struct Draft {
    ops: Vec<Op>,
    /// Numbers on the stack now, and at most.
    height: usize,
    depth: usize,
    /// Functions that take a series.
    slow: usize,
}

impl Draft {
    /// Adds an operation that puts a number on the stack, if there is room.
    pub fn push(&mut self, op: Op) -> bool {
        self.ops.push(op);
        self.height += 1;
        self.depth = self.depth.max(self.height);
        self.height <= MAX_DEPTH
    }

    /// Raises what is below the top of the stack to the power that is there.
    pub fn power(&mut self) {
        let exponent = if let Some(Op::Number(n)) = self.ops.last() { Some(*n) } else { None };
        match exponent.and_then(operators::whole_power) {
            Some(rule) => {
                self.ops.pop();
                self.height -= 1;
                self.apply(rule)
            }
            None => self.apply(operators::POWER),
        }
    }

    /// Adds a rule whose arguments are on the stack. What does not change is computed here and now.
    pub fn apply(&mut self, rule: Rule) {
        let arguments = rule.arguments();
        self.height -= arguments - 1;
        let from = self.ops.len() - arguments.min(self.ops.len());
        let numbers: Option<Vec<f64>> =
            self.ops[from..].iter().map(|op| if let Op::Number(x) = op { Some(*x) } else { None }).collect();
        match numbers.filter(|numbers| numbers.len() == arguments) {
            Some(mut numbers) => {
                f64::step(&rule, &mut numbers, arguments);
                self.ops.truncate(from);
                self.ops.push(Op::Number(numbers[0]));
            }
            None => self.ops.push(Op::Apply(rule)),
        }
    }

    /// Notes a function that takes a series, if there may be one more.
    pub fn slow(&mut self) -> bool {
        self.slow += 1;
        self.slow <= MAX_SLOW
    }

    /// The formula, when all of it was read.
    pub fn finish(self) -> Formula {
        Formula { ops: self.ops, depth: self.depth, slow: self.slow }
    }
}

impl Formula {
    /// Its value; the variables are in the order in which they were declared.
    pub fn at(&self, variables: &[f64]) -> f64 {
        self.run(variables)
    }

    /// Its value and its derivative along that of the variables.
    pub fn along(&self, variables: &[Dual]) -> Dual {
        self.run(variables)
    }

    /// The value and derivative of a formula of one variable.
    pub fn slope(&self, x: f64) -> Dual {
        self.run(&[Dual::variable(x)])
    }

    /// Whether the variable of this place has a part in it.
    pub fn uses(&self, variable: usize) -> bool {
        self.ops.iter().any(|op| matches!(op, Op::Variable(i) if *i == variable))
    }

    /// How many of its functions take a series: [`MAX_SLOW`] at most.
    pub fn slow(&self) -> usize {
        self.slow
    }

    /// How many operations it takes.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Never: a formula has a value.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    pub(super) fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// How much of a stack it needs.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    fn run<N: Number>(&self, variables: &[N]) -> N {
        if self.depth <= SHALLOW {
            self.run_on::<N, SHALLOW>(variables)
        } else {
            self.run_on::<N, MAX_DEPTH>(variables)
        }
    }

    fn run_on<N: Number, const DEPTH: usize>(&self, variables: &[N]) -> N {
        let (mut stack, mut top) = ([N::constant(0.0); DEPTH], 0);
        for op in &self.ops {
            top = match op {
                Op::Number(x) => {
                    stack[top] = N::constant(*x);
                    top + 1
                }
                Op::Variable(i) => {
                    stack[top] = variables[*i];
                    top + 1
                }
                Op::Apply(rule) => N::step(rule, &mut stack, top),
            };
        }
        stack[0]
    }
}
