//! The names that a formula may use: what changes from one evaluation to the next, and the numbers that a recipe gives
//! beside it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use sconce_sdk::ParamError;
use sconce_sdk::names::nearest;

use super::formula::Formula;
use super::functions::{CONSTANTS, FUNCTIONS};
use super::grammar;

/// Numbers by name, which formulas may use: `params = { gamma = 5.0 }`.
pub type Params = BTreeMap<String, f64>;

/// The most numbers that a plugin may be given.
const MAX_PARAMS: usize = 32;
/// The most letters of a name.
pub const MAX_NAME: usize = 40;

/// What a formula's names stand for.
#[derive(Debug)]
pub struct Names<'a> {
    /// The variables, by their place.
    pub variables: &'a [&'a str],
    /// The numbers of the recipe.
    pub params: &'a Params,
    used: RefCell<BTreeSet<String>>,
}

/// What one name stands for.
pub enum Meaning {
    /// A variable's place.
    Variable(usize),
    /// A number.
    Number(f64),
}

impl<'a> Names<'a> {
    /// These variables and numbers.
    pub fn new(variables: &'a [&'a str], params: &'a Params) -> Self {
        Self { variables, params, used: RefCell::default() }
    }

    /// What a name stands for.
    pub fn find(&self, name: &str) -> Option<Meaning> {
        if let Some(place) = self.variables.iter().position(|v| *v == name) {
            return Some(Meaning::Variable(place));
        }
        if let Some(value) = self.params.get(name) {
            self.used.borrow_mut().insert(name.to_owned());
            return Some(Meaning::Number(*value));
        }
        CONSTANTS.iter().find(|(constant, _)| *constant == name).map(|(_, value)| Meaning::Number(*value))
    }

    /// What to write instead of a name that is not known.
    pub fn advice(&self, name: &str) -> String {
        let values = || self.variables.iter().copied().chain(self.params.keys().map(String::as_str));
        let functions = FUNCTIONS.iter().map(|f| f.name);
        // One or two letters are near to anything.
        let near = nearest(name, values().chain(CONSTANTS.map(|(c, _)| c)).chain(functions)).filter(|_| name.len() > 2);
        let there = values().collect::<Vec<_>>().join(", ");
        let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
        format!("{near}there are {there}; `params = {{ {name} = … }}` would add a number of that name")
    }
}

/// Reads the formulas of one plugin, and sees to it that each of its `params` is used by one.
pub struct Reader<'a> {
    params: &'a Params,
    used: BTreeSet<String>,
}

impl<'a> Reader<'a> {
    /// For formulas with these numbers.
    pub fn new(params: &'a Params) -> Result<Self, ParamError> {
        let wrong = |name: &str, what: String| Err(ParamError::new(what).within(name).within("params"));
        if params.len() > MAX_PARAMS {
            let what = format!("{} numbers: a formula takes {MAX_PARAMS} at most", params.len());
            return Err(ParamError::new(what).within("params"));
        }
        for (name, value) in params {
            if !is_name(name) {
                return wrong(name, "a name is a letter, and then letters, digits or _".into());
            }
            if CONSTANTS.iter().any(|(c, _)| c == name) {
                return wrong(name, format!("`{name}` has its value already: take another name"));
            }
            if !value.is_finite() {
                return wrong(name, format!("is {value}, not a finite number"));
            }
        }
        Ok(Self { params, used: BTreeSet::new() })
    }

    /// The formula of a field, of these variables.
    pub fn read(&mut self, field: &str, text: &str, variables: &[&str]) -> Result<Formula, ParamError> {
        if let Some(name) = self.params.keys().find(|name| variables.contains(&name.as_str())) {
            let what = format!("`{name}` is a variable of `{field}`: take another name");
            return Err(ParamError::new(what).within(name).within("params"));
        }
        let names = Names::new(variables, self.params);
        let formula = grammar::read(text, &names).map_err(|fault| fault.explain(text).within(field))?;
        self.used.append(&mut names.used.into_inner());
        Ok(formula)
    }

    /// The formula of a field that need not be there.
    pub fn maybe(
        &mut self,
        field: &str,
        text: &Option<String>,
        variables: &[&str],
    ) -> Result<Option<Formula>, ParamError> {
        text.as_deref().map(|text| self.read(field, text, variables)).transpose()
    }

    /// After the last formula: a number that none of them uses is a mistake.
    pub fn finish(self) -> Result<(), ParamError> {
        match self.params.keys().find(|name| !self.used.contains(*name)) {
            Some(name) => Err(ParamError::new("no formula uses it").within(name).within("params")),
            None => Ok(()),
        }
    }
}

fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
