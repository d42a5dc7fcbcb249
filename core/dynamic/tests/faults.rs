//! What plugins do wrong once they run: each is an answer of NaN or an error, never an end, and each is told with the plugin,
//! its library, the call, and the reason.

mod common;

use std::sync::{Mutex, MutexGuard};

use common::{c_library, fixture};
use sconce_dynamic::{Library, load};
use sconce_sdk::serde_json::{Value, json};
use sconce_sdk::{Choice, Noise, Observation, Weighting, health};

/// What is reported is the process's: one test at a time looks at it.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let guard = ONE.lock().unwrap_or_else(|e| e.into_inner());
    health::take();
    guard
}

fn odd() -> &'static Library {
    load(&fixture().built_in).unwrap_or_else(|e| panic!("{e}"));
    load(&fixture().odd).unwrap_or_else(|e| panic!("{e}"))
}

fn fails(params: Value) -> Result<Choice<dyn Weighting>, String> {
    odd();
    let mut table = json!({ "type": "odd-fails" });
    table.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
    Choice::from_table(&table).map_err(|e| e.to_string())
}

/// What was reported, without what differs from machine to machine.
fn reported(library: &Library) -> String {
    let fault = health::take().expect("something is reported").to_string();
    fault.replace(&library.path().display().to_string(), "LIB")
}

/// An error that a panic made names where it was.
fn panicked(text: &str, start: &str, end: &str) {
    let whole = text.starts_with(start) && text.ends_with(end) && text.contains("src/failing.rs:");
    assert!(whole, "{text}\nis not\n{start} … {end}");
}

const LEVEL: Noise = Noise { alpha: 0.6, sigma: 0.8, d_alpha: -1.0, d_sigma: 0.75 };

#[test]
fn a_panic_where_there_is_no_room_for_an_error_is_nan_and_a_report() {
    let _one = alone();
    let weighting = fails(json!({ "when": "asked" })).unwrap();
    assert_eq!(health::check(), Ok(()));
    assert!(weighting.on_x0(0.5).is_nan());
    let start = "the weighting `odd-fails` of fixture-odd 0.2.0 (LIB): `on_x0` panicked at ";
    assert!(health::check().is_err());
    panicked(&reported(odd()), start, ": asked at 0.5");
    // It is not asked again, which would be of a state that nobody knows.
    assert!(weighting.on_x0(0.5).is_nan());
    assert_eq!(health::take(), None);
    // A new one is as good as ever, but the library remembers.
    assert_eq!(fails(json!({})).unwrap().on_x0(0.5), 1.0);
    assert!(odd().fault().is_some());
}

#[test]
fn a_panic_in_a_plugin_within_a_plugin_is_told_of_the_inner_one() {
    let _one = alone();
    odd();
    let inner = json!({ "type": "odd-fails", "when": "asked" });
    let outer = json!({ "type": "uncertainty", "of": inner });
    let weighting = Choice::<dyn Weighting>::from_table(&outer).unwrap();
    assert!(weighting.on_x0(0.5).is_nan());
    panicked(
        &reported(odd()),
        "the weighting `odd-fails` of fixture-odd 0.2.0 (LIB): `on_x0` panicked at ",
        ": asked at 0.5",
    );
}

#[test]
fn panics_while_building_learning_and_dropping_end_nothing() {
    let _one = alone();
    let text = fails(json!({ "explosive": 13 })).unwrap_err().replace(&odd().path().display().to_string(), "LIB");
    panicked(&text, "the weighting `odd-fails` of fixture-odd 0.2.0 (LIB): `build` panicked at ", ": 13 is too much");
    assert_eq!(health::take(), None, "there was room for it");

    assert!(fails(json!({ "when": "started" })).unwrap().start().is_none());
    panicked(
        &reported(odd()),
        "the weighting `odd-fails` of fixture-odd 0.2.0 (LIB): `start` panicked at ",
        ": started",
    );

    let weighting = fails(json!({ "when": "told" })).unwrap();
    let mut state = weighting.start().expect("it learns");
    assert_eq!(state.save(), [1.0]);
    assert_eq!(state.restore(&[2.0]), Err("[2.0] is not what I saved".into()));
    assert_eq!(state.restore(&[1.0]), Ok(()));
    let seen =
        Observation { quantile: 0.5, log_snr: 0.0, weight: 1.0, error: 1.0, loss: 1.0, log_loss: 0.0, importance: 1.0 };
    state.observe(&[seen]);
    panicked(
        &reported(odd()),
        "the weighting `odd-fails` of fixture-odd 0.2.0 (LIB): `observe` panicked at ",
        ": told of 1",
    );
    assert!(state.log_loss(0.0).is_nan(), "it is not asked again");

    drop(fails(json!({ "when": "dropped" })).unwrap());
    assert_eq!(health::take(), None, "there is nothing left to fail");
}

#[test]
fn errors_of_parameters_are_those_of_a_linked_plugin() {
    let _one = alone();
    assert_eq!(fails(json!({ "explosive": 7 })).unwrap_err(), "`explosive`: 7 is not allowed; take 8");
    assert_eq!(
        fails(json!({ "wehn": "nan" })).unwrap_err(),
        "`wehn`: unknown field `wehn`, expected `when` or `explosive` (did you mean `when`?)"
    );
    odd();
    let table = json!({ "type": "odd-slope-of", "schedule": { "type": "scaled-linear", "beta_strat": 1 } });
    let error = Choice::<dyn Weighting>::from_table(&table).unwrap_err();
    assert_eq!(error.path, ["schedule", "beta_strat"]);
    assert_eq!(error.help.as_deref(), Some("did you mean `beta_start`?"));
    let table = json!({ "type": "odd-slope-of", "schedule": "scaled-linaer" });
    let error = Choice::<dyn Weighting>::from_table(&table).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`schedule.type`: there is no schedule `scaled-linaer` (did you mean `scaled-linear`?)"
    );
}

#[test]
fn nan_names_the_plugin_and_the_question() {
    let _one = alone();
    let weighting = fails(json!({ "when": "nan" })).unwrap();
    assert!(weighting.on_x0(-1.5).is_nan());
    let words = "the weighting `odd-fails` of fixture-odd 0.2.0 (LIB): `on_x0` gives NaN at log_snr = -1.5";
    assert_eq!(reported(odd()), words);
    // Where the output says nothing, no number is right.
    assert!(weighting.on_output(&Noise { alpha: 0.0, ..LEVEL }, [0.0, 1.0]).is_nan());
    assert_eq!(health::take(), None);
}

#[test]
fn c_plugins_tell_why_too() {
    let _one = alone();
    let make = |name: &str, defines: &[&str]| {
        let named = format!("-DNAME=\"{name}\"");
        let defines: Vec<&str> = defines.iter().copied().chain([named.as_str()]).collect();
        let library = load(&c_library("variants.c", name, &defines)).unwrap_or_else(|e| panic!("{e}"));
        (library, Choice::<dyn Weighting>::named(name))
    };
    let (library, why) = make("c-why", &["-DWHY=\"is out of order\""]);
    assert!(why.unwrap().on_output(&LEVEL, [0.0, 1.0]).is_nan());
    assert_eq!(reported(library), "the weighting `c-why` of variant 0.3 (LIB): `on_x0` is out of order");
    let (library, silent) = make("c-silent", &["-DSTATUS=-7"]);
    assert!(silent.unwrap().on_x0(0.0).is_nan());
    assert_eq!(reported(library), "the weighting `c-silent` of variant 0.3 (LIB): `on_x0` failed, and gave no reason");
    let (library, nan) = make("c-nan", &["-DNAN_ABOVE=2"]);
    let nan = nan.unwrap();
    assert_eq!(nan.on_x0(1.0), 1.0);
    assert!(nan.on_x0(3.0).is_nan());
    assert_eq!(reported(library), "the weighting `c-nan` of variant 0.3 (LIB): `on_x0` gives NaN at log_snr = 3");
    let (_, resolved) = make("c-resolved", &["-DRESOLVED=\"[1]\""]);
    let words = resolved.unwrap_err().to_string();
    assert!(words.ends_with("`build` gives back parameters that are not a JSON object"), "{words}");
    let (_, refuses) = make("c-refuses", &["-DBUILD_STATUS=SCONCE_FAILED"]);
    assert_eq!(refuses.unwrap_err().to_string(), "failed, and gave no reason");
    make("c-params", &[]).1.unwrap();
    let error = Choice::<dyn Weighting>::from_table(&json!({ "type": "c-params", "gamma": 1 })).unwrap_err();
    assert_eq!(error.to_string(), "`gamma`: there are no parameters (leave it out)");
}

#[test]
fn laws_are_checked_and_told_with_their_plugin() {
    let _one = alone();
    let broken = |name: &str, defines: &[&str]| {
        let named = format!("-DNAME=\"{name}\"");
        let defines: Vec<&str> = defines.iter().copied().chain([named.as_str()]).collect();
        let library = load(&c_library("variants.c", name, &defines)).unwrap_or_else(|e| panic!("{e}"));
        let outcome = library.check_laws().map(|checked| checked[0].1.notes.clone()).map_err(|e| e.to_string());
        outcome.map_err(|e| e.replace(&library.path().display().to_string(), "LIB"))
    };
    assert_eq!(broken("l-good", &[]), Ok(vec![]));
    let words = broken("l-nan", &["-DNAN_ABOVE=5"]).unwrap_err();
    let start =
        "the weighting `l-nan` of variant 0.3 (LIB) breaks a law of its kind: `on_x0` gives NaN at log_snr = 12.4";
    assert!(words.starts_with(start), "{words}");
    let words = broken("l-lawless", &["-DLAWLESS"]).unwrap_err();
    let start = "the weighting `l-lawless` of variant 0.3 (LIB) breaks a law of its kind: the weight is -";
    assert!(words.starts_with(start) && words.ends_with(", of {\"type\":\"l-lawless\"}"), "{words}");
}
