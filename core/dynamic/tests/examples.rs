//! The examples in examples/plugins: built as their read-me says, loaded, held to the laws, and compared with their formulas.

mod common;

use std::path::{Path, PathBuf};

use sconce_dynamic::{Library, load};
use sconce_sdk::serde_json::json;
use sconce_sdk::{Choice, Noise, Observation, Schedule, TimestepSampler, Weighting, health};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/plugins")
}

fn compiled(compiler: &str, source: &str, name: &str, flags: &[&str]) -> &'static Library {
    let folder = common::scratch().join("examples");
    std::fs::create_dir_all(&folder).unwrap();
    let library = folder.join(common::dylib(name));
    common::compile(compiler, &examples().join(source), &library, flags);
    lawful(&library)
}

fn lawful(path: &Path) -> &'static Library {
    let library = load(path).unwrap_or_else(|e| panic!("{e}"));
    let checked = library.check_laws().unwrap_or_else(|e| panic!("{e}"));
    assert!(checked.iter().all(|(_, checked)| checked.notes.is_empty()), "{checked:?}", checked = checked[0].1);
    library
}

/// x_t = (1 - t) x0 + t eps.
struct Straight;

impl Schedule for Straight {
    fn at(&self, t: f64) -> Noise {
        Noise { alpha: 1.0 - t, sigma: t, d_alpha: -1.0, d_sigma: 1.0 }
    }
}

#[test]
fn in_rust() {
    let folder = common::cargo(&examples().join("weighting-rust"));
    let library = lawful(&folder.join(common::dylib("sconce_tempered_snr")));
    assert_eq!(
        (library.name(), library.version(), library.sdk()),
        ("sconce-tempered-snr", "0.1.0", "sconce-sdk 0.1.0")
    );
    let weighting = Choice::<dyn Weighting>::named("tempered_snr").unwrap();
    assert_eq!(weighting.table(), json!({ "type": "tempered-snr", "gamma": 5.0, "power": 0.5 }));
    assert_eq!(weighting.on_x0(0.3), 0.3f64.exp().min(5.0).powf(0.5));
    assert_eq!(weighting.on_x0(f64::INFINITY), 5.0f64.powf(0.5));
}

#[test]
fn in_c() {
    compiled("cc", "timesteps-c/log_snr_uniform.c", "log_snr_uniform", &["-std=c99"]);
    let sampler = Choice::<dyn TimestepSampler>::from_table(&json!({ "type": "log_snr_uniform", "low": -6 })).unwrap();
    assert_eq!(sampler.table(), json!({ "type": "log-snr-uniform", "low": -6, "high": 8 }));
    for u in [0.0, 0.25, 0.999] {
        let log_snr = 8.0 - u * 14.0;
        let t = sampler.quantile(u, &Straight);
        assert!((Straight.at(t).log_snr() - log_snr).abs() < 1e-9, "{u}: {t}");
        assert!((sampler.cumulative(t, &Straight) - u).abs() < 1e-9);
    }
    assert_eq!((sampler.cumulative(1.0, &Straight), sampler.density(1.0, &Straight)), (1.0, 0.0));
    let wrong = |table| Choice::<dyn TimestepSampler>::from_table(&table).unwrap_err().to_string();
    assert_eq!(
        wrong(json!({ "type": "log-snr-uniform", "hihg": 1 })),
        "`hihg`: unknown field `hihg` (did you mean `high`?)"
    );
    assert_eq!(wrong(json!({ "type": "log-snr-uniform", "low": "x" })), "`low`: \"x\" is not a number");
    assert_eq!(
        wrong(json!({ "type": "log-snr-uniform", "low": 9.5 })),
        "`high`: must be above `low` (8 and -8 reach from hardly any noise to hardly any signal)"
    );
    assert_eq!(health::take(), None);
}

#[test]
fn in_zig() {
    let source = examples().join("schedule-zig/log_snr_linear.zig");
    let library = common::scratch().join("examples").join(common::dylib("log_snr_linear"));
    if !common::compile_zig(&source, &library) {
        return;
    }
    lawful(&library);
    let schedule = Choice::<dyn Schedule>::from_table(&json!({ "type": "log-snr-linear", "start": 6.5 })).unwrap();
    assert_eq!(schedule.table(), json!({ "type": "log-snr-linear", "start": 6.5, "end": -10.0 }));
    for t in [0.0, 0.25, 0.5, 1.0] {
        let n = schedule.at(t);
        let log_snr = 6.5 - 16.5 * t;
        assert!((n.log_snr() - log_snr).abs() < 1e-12, "{t}: {n:?}");
        assert!((n.alpha.powi(2) + n.sigma.powi(2) - 1.0).abs() < 1e-14);
        assert!((schedule.t_of(log_snr) - t).abs() < 1e-14);
    }
    assert_eq!((schedule.t_of(f64::INFINITY), schedule.t_of(-11.0), schedule.grid()), (0.0, 1.0, None));
    let wrong = |table| Choice::<dyn Schedule>::from_table(&table).unwrap_err().to_string();
    assert_eq!(
        wrong(json!({ "type": "log-snr-linear", "strat": 1 })),
        "`strat`: unknown field `strat` (did you mean `start`?)"
    );
    assert_eq!(
        wrong(json!({ "type": "log-snr-linear", "end": 10 })),
        "`end`: must be below `start`, and both between 60 and -60 (10 and -10 reach from hardly any noise to hardly any signal)"
    );
}

#[test]
fn in_cpp() {
    compiled("c++", "weighting-cpp/running_mean.cpp", "running_mean", &["-std=c++17"]);
    let weighting = Choice::<dyn Weighting>::from_table(&json!({ "type": "running-mean", "bins": 4 })).unwrap();
    assert_eq!(weighting.table(), json!({ "type": "running-mean", "bins": 4, "memory_images": 10000 }));
    let noise = Straight.at(0.25);
    assert!((weighting.on_output(&noise, [0.0, 1.0]) - 1.0).abs() < 1e-12, "1 on the error of epsilon");
    let mut state = weighting.start().expect("it learns");
    let seen = |log_snr, loss| Observation {
        quantile: 0.5,
        log_snr,
        weight: 1.0,
        error: loss,
        loss,
        log_loss: 0.0,
        importance: 2.0,
    };
    state.observe(&[seen(-7.0, 3.0), seen(-7.5, 5.0), seen(f64::INFINITY, 0.5)]);
    assert!((state.log_loss(-9.0) - (17.0f64 / 5.0).ln()).abs() < 1e-12);
    assert!((state.log_loss(40.0) - (2.0f64 / 3.0).ln()).abs() < 1e-12);
    assert_eq!(state.log_loss(0.0), 0.0);
    let mut fresh = weighting.start().expect("it learns");
    assert_eq!(fresh.restore(&[0.0; 5]), Err("5 numbers for 4 bins".into()));
    fresh.restore(&state.save()).unwrap();
    state.observe(&[seen(1.0, 2.0)]);
    fresh.observe(&[seen(1.0, 2.0)]);
    assert_eq!(state.save(), fresh.save());
    let wrong = Choice::<dyn Weighting>::from_table(&json!({ "type": "running-mean", "bins": 0.5 })).unwrap_err();
    assert_eq!(wrong.to_string(), "`bins`: must be a whole number from 1 to 10000");
}
