//! Several libraries at once, and several threads: each has its own copy of the SDK, and none disturbs another.

mod common;

use std::sync::Arc;
use std::thread;

use common::{c_library, fixture};
use sconce_dynamic::{load, loaded};
use sconce_sdk::registry::{self, Origin};
use sconce_sdk::serde_json::json;
use sconce_sdk::{Choice, Schedule, TimestepSampler, Weighting, health};

#[test]
fn libraries_and_threads() {
    let (one, other) = (load(&fixture().built_in), load(&fixture().odd));
    let (one, other) = (one.unwrap_or_else(|e| panic!("{e}")), other.unwrap_or_else(|e| panic!("{e}")));
    assert_eq!((one.name(), other.name()), ("fixture-built-in", "fixture-odd"));
    assert!(one.skipped().is_empty());
    // One that sees tensors stays out: those of two copies of candle do not know each other.
    let [adapter] = other.skipped() else { panic!("{:?}", other.skipped()) };
    assert_eq!((adapter.kind.as_str(), adapter.name.as_str()), ("adapter", "odd-adapter"));
    assert!(registry::find("adapter", "odd-adapter").is_err());
    let again = load(&fixture().odd).unwrap_or_else(|e| panic!("{e}"));
    assert!(std::ptr::eq(other, again) && loaded().iter().filter(|l| l.name() == "fixture-odd").count() == 1);

    let plugin = registry::find("schedule", "odd_half").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((plugin.name, plugin.krate, plugin.version), ("odd-half", "fixture-odd", "0.2.0"));
    assert!(
        matches!(plugin.origin, Origin::Library { path, sha256 } if path == other.path() && sha256 == other.sha256())
    );

    // A schedule of one library around one of the other, asked by a sampler of either; from many threads.
    let half = json!({ "type": "odd-half", "of": { "type": "zero-terminal", "of": "scaled-linear" } });
    let half = Choice::<dyn Schedule>::from_table(&half).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(half.table()["of"]["of"]["beta_start"], 0.00085, "all defaults are filled in");
    let sampler = json!({ "type": "odd-through", "of": { "type": "log-normal-sigma" } });
    let sampler = Choice::<dyn TimestepSampler>::from_table(&sampler).unwrap_or_else(|e| panic!("{e}"));
    let ask = |i: u32| sampler.quantile(f64::from(i) / 1000.0, &*half).to_bits();
    let alone: Vec<u64> = (0..1000).map(ask).collect();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!((0..1000).map(ask).collect::<Vec<_>>(), alone));
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..200 {
                    Choice::<dyn Weighting>::named("odd-slope-of").unwrap_or_else(|e| panic!("{e}"));
                }
            });
        }
    });
    // A share of the inner one outlives the outer.
    let sized = half.at_size(16, 16);
    assert!(sized.is_none());
    let kept: Arc<dyn Schedule> = half.object().clone();
    drop(half);
    assert!(kept.at(0.5).alpha > 0.0);
    assert_eq!(health::take(), None);
}

#[test]
fn two_threads_that_load_one_file_load_it_once() {
    let path = c_library("variants.c", "c-raced", &["-DNAME=\"c-raced\""]);
    let all: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| load(&path).unwrap_or_else(|e| panic!("{e}")))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(all.windows(2).all(|pair| std::ptr::eq(pair[0], pair[1])));
}
