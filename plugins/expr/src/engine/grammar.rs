//! The grammar, on winnow's expression parser. Operations are put in a list as they are read, operands first, which is
//! the order in which a stack does them; so there is no tree, and no walk through one that depth could break.

use std::ops::Range;

use sconce_sdk::names::nearest;
use winnow::Parser;
use winnow::combinator::{Infix, Prefix, expression, fail, opt};
use winnow::stream::{LocatingSlice, Location, Stateful, Stream};
use winnow::token::{one_of, take_while};

use super::fault::{Fault, missing_operator, missing_value};
use super::formula::{Draft, Formula, MAX_DEPTH, MAX_LENGTH, MAX_SLOW, Op};
use super::functions::{FUNCTIONS, Function, Rule, operators};
use super::names::{MAX_NAME, Meaning, Names};

type Input<'i> = Stateful<LocatingSlice<&'i str>, State<'i>>;
type Read<T> = Result<T, Fault>;
/// Where a value was written.
type Span = Range<usize>;

/// What the grammar knows beside the text that is left.
#[derive(Debug)]
struct State<'i> {
    text: &'i str,
    names: &'i Names<'i>,
    draft: Draft,
    /// How many brackets are open.
    brackets: usize,
}

/// Reads a formula.
pub(super) fn read(text: &str, names: &Names) -> Read<Formula> {
    if text.len() > MAX_LENGTH {
        let what = format!("is {} bytes long: a formula has {MAX_LENGTH} at most", text.len());
        return Err(Fault::new(0..1, what).help("give its numbers as `params`, or write a plugin"));
    }
    let state = State { text, names, draft: Draft::default(), brackets: 0 };
    let mut input = Input { input: LocatingSlice::new(text), state };
    space(&mut input)?;
    value(&mut input)?;
    if input.eof_offset() > 0 {
        return Err(missing_operator(text, here(&input)));
    }
    Ok(input.state.draft.finish())
}

/// A whole expression. From the loosest: comparisons; + and -; * and /; a sign; ^, from the right.
fn value(i: &mut Input) -> Read<Span> {
    expression(operand).prefix(prefix).infix(infix).parse_next(i)
}

/// A run of signs, however long, counts as one.
fn prefix<'i>(i: &mut Input<'i>) -> Read<Prefix<Input<'i>, Span, Fault>> {
    let (start, mut signs, mut negative) = (here(i), 0, false);
    while let Some(sign) = opt(one_of(['-', '+'])).parse_next(i)? {
        signs += 1;
        negative ^= sign == '-';
        space(i)?;
    }
    match (signs, negative) {
        (0, _) => Err(missing_value(i.state.text, start)),
        (_, true) => Ok(Prefix(30, |i, of| apply(i, operators::NEGATE, of))),
        (_, false) => Ok(Prefix(30, |_, of| Ok(of))),
    }
}

fn infix<'i>(i: &mut Input<'i>) -> Read<Infix<Input<'i>, Span, Fault>> {
    const SYMBOLS: [&str; 12] = ["<=", ">=", "==", "!=", "**", "<", ">", "+", "-", "*", "/", "^"];
    macro_rules! two {
        ($rule:ident) => {
            |i, a, b| apply(i, operators::$rule, a.start..b.end)
        };
    }
    let rest = &i.state.text[here(i)..];
    let Some(symbol) = SYMBOLS.into_iter().find(|s| rest.starts_with(s)) else { return fail(i) };
    let _ = i.next_slice(symbol.len());
    space(i)?;
    Ok(match symbol {
        "<" => Infix::Neither(5, two!(LESS)),
        ">" => Infix::Neither(5, two!(MORE)),
        "<=" => Infix::Neither(5, two!(AT_MOST)),
        ">=" => Infix::Neither(5, two!(AT_LEAST)),
        "==" => Infix::Neither(5, two!(EQUAL)),
        "!=" => Infix::Neither(5, two!(OTHER)),
        "+" => Infix::Left(10, two!(ADD)),
        "-" => Infix::Left(10, two!(SUBTRACT)),
        "*" => Infix::Left(20, two!(MULTIPLY)),
        "/" => Infix::Left(20, two!(DIVIDE)),
        _ => Infix::Right(40, |i, a, b| {
            i.state.draft.power();
            Ok(a.start..b.end)
        }),
    })
}

/// A number, a name, a call, or something in brackets.
fn operand(i: &mut Input) -> Read<Span> {
    let start = here(i);
    match i.state.text[start..].chars().next() {
        Some('(') => {
            open(i)?;
            value(i)?;
            close(i, start, "")?;
            Ok(start..here(i))
        }
        Some('0'..='9' | '.') => number(i),
        Some(c) if c.is_ascii_alphabetic() || c == '_' => named(i),
        _ => fail(i),
    }
}

fn number(i: &mut Input) -> Read<Span> {
    let start = here(i);
    let digits = |i: &mut Input| -> Read<()> { take_while(0.., ('0'..='9', '_')).void().parse_next(i) };
    digits(i)?;
    if opt('.').parse_next(i)?.is_some() {
        digits(i)?;
    }
    let exponent = match i.state.text.as_bytes()[here(i)..] {
        [b'e' | b'E', b'-' | b'+', b'0'..=b'9', ..] => 2,
        [b'e' | b'E', b'0'..=b'9', ..] => 1,
        _ => 0,
    };
    if exponent > 0 {
        let _ = i.next_slice(exponent);
        digits(i)?;
    }
    let span = start..here(i);
    space(i)?;
    match i.state.text[span.clone()].replace('_', "").parse::<f64>() {
        Ok(x) if x.is_finite() => push(i, Op::Number(x), span),
        Ok(_) => Err(Fault::new(span, "this number is too large")),
        Err(_) => Err(Fault::new(span, "this is no number")),
    }
}

/// A variable, a number of the recipe's, a constant, or a call.
fn named(i: &mut Input) -> Read<Span> {
    let start = here(i);
    take_while(1.., ('a'..='z', 'A'..='Z', '0'..='9', '_')).void().parse_next(i)?;
    let (span, text, names) = (start..here(i), i.state.text, i.state.names);
    let name = &text[span.clone()];
    if name.len() > MAX_NAME {
        return Err(Fault::new(span, format!("a name of {} letters: there is none so long", name.len())));
    }
    space(i)?;
    let function = FUNCTIONS.iter().find(|f| f.name == name);
    if text[here(i)..].starts_with('(') {
        return match function {
            Some(function) => call(i, function, span),
            None if names.find(name).is_some() => {
                Err(Fault::new(here(i)..here(i) + 1, format!("`{name}` is no function: an operator is missing here")))
            }
            None => Err(unknown_function(name, span)),
        };
    }
    match (names.find(name), function) {
        (Some(Meaning::Variable(place)), _) => push(i, Op::Variable(place), span),
        (Some(Meaning::Number(x)), _) => push(i, Op::Number(x), span),
        (None, Some(f)) => Err(Fault::new(span, format!("`{name}` is a function: write {}", f.call))),
        (None, None) => Err(Fault::new(span, format!("there is no `{name}` here")).help(names.advice(name))),
    }
}

fn unknown_function(name: &str, span: Span) -> Fault {
    let names: Vec<&str> = FUNCTIONS.iter().map(|f| f.name).collect();
    let named = if name == "log" { Some("ln") } else { nearest(name, names.iter().copied()) };
    let near = named.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
    Fault::new(span, format!("there is no function `{name}`")).help(format!("{near}there are {}", names.join(", ")))
}

/// The arguments of a function, and the function.
fn call(i: &mut Input, function: &Function, name: Span) -> Read<Span> {
    let bracket = here(i);
    if function.is_slow() && !i.state.draft.slow() {
        let what = format!("a formula has {MAX_SLOW} functions like `{}` at most, which are slow", function.name);
        return Err(Fault::new(name, what).help("write a plugin instead"));
    }
    open(i)?;
    let mut count = 0;
    loop {
        value(i)?;
        count += 1;
        if let (Rule::TwoOrMore { .. }, 2..) = (function.rule, count) {
            apply(i, function.rule, name.clone())?;
        }
        if opt(',').parse_next(i)?.is_none() {
            break;
        }
        space(i)?;
    }
    close(i, bracket, " or a `,`")?;
    let whole = name.start..here(i);
    let right = match function.rule {
        Rule::One { .. } => count == 1,
        Rule::Two { .. } => count == 2,
        Rule::TwoOrMore { .. } => count >= 2,
        Rule::Three { .. } => count == 3,
    };
    match (right, function.rule) {
        (false, _) => {
            let given = if count == 1 { "1 value".to_owned() } else { format!("{count} values") };
            Err(Fault::new(name, format!("`{}` is given {given}: write {}", function.name, function.call)))
        }
        (true, Rule::TwoOrMore { .. }) => Ok(whole),
        (true, rule) => apply(i, rule, whole),
    }
}

fn open(i: &mut Input) -> Read<()> {
    i.state.brackets += 1;
    if i.state.brackets > MAX_DEPTH {
        return Err(too_deep(here(i)..here(i) + 1));
    }
    let _ = i.next_slice(1);
    space(i)
}

fn close(i: &mut Input, opened: usize, or: &str) -> Read<()> {
    let (at, text) = (here(i), i.state.text);
    if !text[at..].starts_with(')') {
        return Err(match text[at..].chars().next() {
            None => Fault::new(opened..opened + 1, "this bracket is not closed"),
            Some(',') => Fault::new(at..at + 1, "a `,` stands between the values of a function alone"),
            Some(_) => missing_operator(text, at).or_closing(or),
        });
    }
    i.state.brackets -= 1;
    let _ = i.next_slice(1);
    space(i)
}

fn push(i: &mut Input, op: Op, span: Span) -> Read<Span> {
    if i.state.draft.push(op) { Ok(span) } else { Err(too_deep(span)) }
}

fn apply(i: &mut Input, rule: Rule, span: Span) -> Read<Span> {
    i.state.draft.apply(rule);
    Ok(span)
}

fn too_deep(span: Span) -> Fault {
    Fault::new(span, format!("is nested more than {MAX_DEPTH} deep here")).help("write a plugin instead")
}

fn space(i: &mut Input) -> Read<()> {
    take_while(0.., (' ', '\t', '\r', '\n')).void().parse_next(i)
}

fn here(i: &Input) -> usize {
    i.current_token_start()
}
