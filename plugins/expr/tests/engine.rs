//! The language: what formulas mean, that their derivatives are right, and that what is wrong is said where it is.

use std::time::{Duration, Instant};

use sconce_expr::engine::{Dual, FUNCTIONS, Params, Reader, Rule};
use sconce_sdk::ParamError;

fn params() -> Params {
    [("gamma", 5.0), ("k", 0.0)].map(|(name, x)| (name.to_owned(), x)).into()
}

fn read(text: &str) -> Result<sconce_expr::engine::Formula, ParamError> {
    Reader::new(&params())?.read("f", text, &["x", "snr"])
}

fn at(text: &str, x: f64) -> f64 {
    read(text).unwrap_or_else(|e| panic!("{text}: {e}")).at(&[x, 2.0])
}

fn slope(text: &str, x: f64) -> f64 {
    let variables = [Dual::variable(x), Dual { value: 2.0, slope: 0.0 }];
    read(text).unwrap_or_else(|e| panic!("{text}: {e}")).along(&variables).slope
}

fn refused(text: &str) -> String {
    read(text).expect_err(text).to_string()
}

#[test]
fn operators_bind_as_in_a_paper() {
    for (text, value) in [
        ("1 + 2 * 3", 7.0),
        ("8 / 2 / 2", 2.0),
        ("-2^2", -4.0),
        ("2^-1", 0.5),
        ("2^3^2", 512.0),
        ("2**3", 8.0),
        ("-x^2", -9.0),
        ("2 * -3", -6.0),
        ("1 - -1", 2.0),
        ("--+-2", -2.0),
        ("(1 + 2) * 3", 9.0),
        ("1 < 2", 1.0),
        ("1 + 1 == 2", 1.0),
        ("(1 < 2) * (2 < 1)", 0.0),
        ("if(x > 1, 10_000, 1 / 0)", 10_000.0),
        (".5e1 + 1.e0 + 2E+1 + 4e-1", 26.4),
        ("min(x, gamma, 1, 7)", 1.0),
        ("max(snr, gamma)", 5.0),
        ("clamp(x, 0, 1)", 1.0),
        ("\n  mod(-1,\n  3)", 2.0),
        ("round(2.5) + round(3.5)", 6.0),
        ("2 * pi", std::f64::consts::TAU),
        ("e", std::f64::consts::E),
        ("lerp(2, 4, 0.25)", 2.5),
    ] {
        assert_eq!(at(text, 3.0), value, "{text}");
    }
    assert!(at("min(0/0 * x, 1)", 3.0).is_nan() && at("max(1, 0/0 * x)", 3.0).is_nan());
}

#[test]
fn parts_that_do_not_change_are_computed_once() {
    assert_eq!(read("x * (gamma^2 + 2 * pi / 3)").unwrap().len(), 3);
    assert_eq!(read("min(1, 2, 3)").unwrap().len(), 1);
}

/// Every function against differences, at places inside the domains of all.
#[test]
fn derivatives_are_those_of_differences() {
    for f in FUNCTIONS.iter().filter(|f| f.name != "lgamma") {
        let text = match (f.name, f.rule) {
            ("beta_cdf" | "beta_quantile", _) => format!("{}(x, 2.5, 1.5)", f.name),
            ("acosh", _) => "acosh(1 + x)".to_owned(),
            (_, Rule::One { .. }) => format!("{}(x)", f.name),
            (_, Rule::Two { .. } | Rule::TwoOrMore { .. }) => format!("{}(x * 1.7, 1.3 - x / 3)", f.name),
            (_, Rule::Three { .. }) => format!("{}(x, x / 5, 1.5 + x)", f.name),
        };
        for x in [0.13, 0.42, 0.77] {
            let h = 1e-6;
            let difference = (at(&text, x + h) - at(&text, x - h)) / (2.0 * h);
            assert!((slope(&text, x) - difference).abs() < 1e-7 * (1.0 + difference.abs()), "{text} at {x}");
        }
    }
    for text in ["x^3 - 2 / x", "x^x", "2^x", "-x * x", "(x + 1)^-2.5", "x^10"] {
        let (x, h) = (0.7, 1e-6);
        let difference = (at(text, x + h) - at(text, x - h)) / (2.0 * h);
        assert!((slope(text, x) - difference).abs() < 1e-8, "{text}");
    }
}

/// Many places at once are the same as one by one, to the bit, whole blocks and the rest, for every function and what stays
/// the same in any of its arguments.
#[test]
fn many_places_are_the_same_as_one_by_one() {
    let mut texts: Vec<String> = Vec::new();
    for f in FUNCTIONS {
        let forms: &[&str] = match f.rule {
            Rule::One { .. } => &["(x)", "(snr)"],
            Rule::Two { .. } | Rule::TwoOrMore { .. } => {
                &["(x, snr)", "(snr, x)", "(x, 2 * x)", "(snr, 0.5)", "(k, x)"]
            }
            Rule::Three { .. } => {
                &["(x, snr, 3)", "(0.4, x, 2.5)", "(x, abs(x), snr)", "(0.3, snr, x)", "(x > 1, x, snr)"]
            }
        };
        texts.extend(forms.iter().map(|form| format!("{}{form}", f.name)));
    }
    for operator in ["+", "-", "*", "/", "^", "<", "<=", ">", ">=", "==", "!="] {
        texts.extend(["x", "snr", "0", "2"].map(|b| format!("x {operator} {b}")));
        texts.push(format!("snr {operator} x"));
    }
    texts.extend((-9..=9).map(|n| format!("x^{n} + x^{n}.5")));
    texts.extend(["7", "snr", "x", "-x", "k - x * (x - (x + (x * x)))", "sqrt(k) + x"].map(str::to_owned));
    let special = [0.0, -0.0, 1.0, 2.0, -1.0, 1e-300, 1e300, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    let xs: Vec<f64> = (0..300).map(|i| (f64::from(i) * 0.37).sin() * 2.5).chain(special).collect();
    for text in texts {
        let formula = read(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        for xs in [&xs[..], &xs[..100], &xs[54..], &[]] {
            let mut out = vec![[0.0; 2]; xs.len()];
            formula.each(xs, &[2.0], &mut out);
            for (x, found) in xs.iter().zip(out) {
                let want: [f64; 2] = formula.along(&[Dual::variable(*x), Dual { value: 2.0, slope: 0.0 }]).into();
                let same = |k: usize| want[k].to_bits() == found[k].to_bits() || want[k].is_nan() && found[k].is_nan();
                assert!(same(0) && same(1), "{text} at {x}: {found:?}, alone {want:?}");
            }
        }
    }
}

/// A power that is a rule of its own is the power of any numbers.
#[test]
fn whole_powers_are_powers() {
    for n in -9..=9 {
        for x in [0.0, 0.3, -1.7, 1e200] {
            let [own, any] = [format!("x^{n}"), format!("pow(x, {n})")].map(|text| (at(&text, x), slope(&text, x)));
            assert!(
                own.0.to_bits() == any.0.to_bits() && own.1.to_bits() == any.1.to_bits(),
                "{x}^{n}: {own:?}, {any:?}"
            );
        }
    }
}

#[test]
fn at_a_kink_the_derivative_is_that_of_the_branch_taken() {
    for (text, x, want) in [
        ("abs(x)", 0.0, 1.0),
        ("min(x, 2 * x)", 0.0, 1.0),
        ("max(2 * x, x)", 0.0, 2.0),
        ("clamp(x, 0, 1)", 0.0, 1.0),
        ("clamp(x, 0, 1)", 1.0, 1.0),
        ("if(x < 1, x, 3 * x)", 1.0, 3.0),
        ("step(x) + floor(x) + (x > 0)", 0.0, 0.0),
        // A branch that is not taken has no say.
        ("if(x > 0, sqrt(x), 0)", 0.0, 0.0),
        ("if(x > 1, ln(x - 1), x^2)", 0.5, 1.0),
        // What does not change adds nothing.
        ("sqrt(k) + x", 0.5, 1.0),
        ("x^0", 0.0, 0.0),
        ("x^2", 0.0, 0.0),
        ("0^x", 2.0, 0.0),
    ] {
        assert_eq!(slope(text, x), want, "{text} at {x}");
    }
    assert_eq!(slope("sqrt(x)", 0.0), f64::INFINITY);
}

/// Every kind of mistake: reviewed text.
#[test]
fn errors_point_into_the_formula() {
    let said = [
        "min(srn, gamma)",
        "",
        "1 +",
        "1 + * x",
        "min(x",
        "(x + 1",
        "x)",
        "2x",
        "x snr",
        "min(x)",
        "exp(x, 1)",
        "sqr(x)",
        "log(x)",
        "min + 1",
        "x(1)",
        "1 < x < 2",
        "x = 1",
        "x, 1",
        "(x, 1)",
        "x & 1",
        "x % 2",
        "x ? 1 : 2",
        "1e999",
        "1.2.3",
        "λ + 1",
        "x·2",
        "x # 1",
        "\"x\"",
        "1e",
        "sin x",
        "x\u{1b}[31m",
        "min(x; 1)",
    ]
    .map(refused)
    .join("\n\n");
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors.txt");
    if std::env::var_os("SCONCE_UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &said).unwrap();
    }
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(said == reviewed, "not as in {}:\n{said}", path.display());
}

#[test]
fn params_are_numbers_with_names_of_their_own_and_each_is_used() {
    let with = |params: &[(&str, f64)], text: &str| {
        let params: Params = params.iter().map(|(name, x)| ((*name).to_owned(), *x)).collect();
        let mut reader = Reader::new(&params)?;
        let formula = reader.read("f", text, &["x"])?;
        reader.finish().map(|()| formula.at(&[2.0]))
    };
    assert_eq!(with(&[("a", 3.0)], "a * x").unwrap(), 6.0);
    assert_eq!(with(&[("min", 3.0)], "min(min, x)").unwrap(), 2.0);
    for (params, text, said) in [
        (&[("a", 3.0)][..], "x", "`params.a`: no formula uses it"),
        (&[("x", 3.0)], "x", "is a variable"),
        (&[("pi", 3.0)], "x", "has its value already"),
        (&[("2a", 3.0)], "x", "a name is a letter"),
        (&[("λ", 3.0)], "x", "a name is a letter"),
        (&[("a", f64::NAN)], "a", "not a finite number"),
    ] {
        let error = with(params, text).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    let many: Params = (0..100).map(|i| (format!("a{i}"), 0.0)).collect();
    assert!(Reader::new(&many).err().is_some_and(|e| e.message.contains("32 at most")));
}

/// Formulas made to harm: each is refused, or computed, at once, on a small stack.
#[test]
fn hostile_formulas_are_refused_quickly() {
    let hostile = || {
        let started = Instant::now();
        let within_length = |part: &str| part.repeat(1990 / part.len());
        for text in [
            "1+".repeat(5_000_000),
            "(".repeat(100_000),
            within_length("("),
            within_length("-"),
            within_length("abs("),
            within_length("min(1,"),
            within_length("1^"),
            within_length("-2^"),
            within_length("1<"),
            within_length("λ"),
            within_length("\u{202e}"),
            within_length("\0"),
            within_length("e"),
            within_length("9"),
            within_length("1e9"),
            within_length("."),
            within_length("1+("),
            within_length("beta_quantile(x,2,3)+"),
            format!("{}x", "beta_cdf(".repeat(9)),
            format!("{}x{}", "(".repeat(65), ")".repeat(65)),
            format!("{}x", "x+(".repeat(63)),
        ] {
            let said = refused(&text);
            assert!(said.len() < 2000, "{} bytes", said.len());
        }
        for (text, value) in [
            (format!("{}2", within_length("-")), 2.0),
            (format!("{}x{}", "(".repeat(64), ")".repeat(64)), 1.5),
            (format!("{}x{}", "abs(".repeat(64), ")".repeat(64)), 1.5),
            (format!("{}1", within_length("x*0+")), 1.0),
            ("9^9^9^9".into(), f64::INFINITY),
            ("x^1e308".into(), f64::INFINITY),
            ("-9^99999".into(), f64::NEG_INFINITY),
            ("if(beta_quantile(x, 1e300, 1e300) > 0, 1, 0)".into(), 0.0),
        ] {
            assert_eq!(at(&text, 1.5), value, "{text}");
        }
        // Right-associative: the stack of numbers runs out, not the program's.
        assert!(refused(&format!("{}x", "x^".repeat(70))).contains("64 deep"));
        started.elapsed()
    };
    let took = std::thread::Builder::new().stack_size(1 << 20).spawn(hostile).unwrap().join().unwrap();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

/// Bytes that a search over grammar-like rubbish makes: nothing panics.
#[test]
fn rubbish_never_panics() {
    let pieces = [
        "x",
        "snr",
        "min(",
        "if(",
        ",",
        ")",
        "(",
        "+",
        "-",
        "*",
        "/",
        "^",
        "<",
        "==",
        "1",
        ".5",
        "e3",
        "gamma",
        " ",
        "λ",
        "!",
        "=",
        "pi",
        "\n",
        "_",
        "1e",
        "sqrt(",
        "\u{1f600}",
    ];
    let mut state = 7u64;
    let mut next = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let mut understood = 0;
    for _ in 0..20_000 {
        let text: String = (0..next(14)).map(|_| pieces[next(pieces.len())]).collect();
        if let Ok(formula) = read(&text) {
            understood += 1;
            let variables = [Dual::variable(0.5), Dual { value: 2.0, slope: 0.0 }];
            assert_eq!(formula.at(&[0.5, 2.0]).to_bits(), formula.along(&variables).value.to_bits(), "{text}");
        }
    }
    assert!(understood > 100, "{understood}");
}
