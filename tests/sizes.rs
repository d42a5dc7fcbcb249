//! A schedule that depends on the picture's size, trained and sampled: the same run as with the schedule that it is at this
//! size.

#[path = "common/run.rs"]
mod run;

use std::fs;

use run::Bench;
use serde_json::Value;

/// The losses of a run and its last preview.
fn outcome(schedule: &str) -> (Vec<f64>, Vec<u8>) {
    let bench = Bench::new(&format!(
        "[schedule]\n{schedule}\n[objective]\ntype = \"flow\"\n[preview]\nprompts = [\"a cat\"]\n[sampling]\nsteps = 3\n\
         spacing = \"trailing\"\nsolver = \"euler\"\n"
    ));
    bench.train("run", &["--set", "model.convert=true", "--set", "train.images=6"]);
    let loss = |line: &str| serde_json::from_str::<Value>(line).expect("a line of JSON")["loss"].as_f64();
    let losses: Vec<f64> = bench.log("run").lines().filter_map(loss).collect();
    let mut previews: Vec<_> =
        fs::read_dir(bench.path("run/previews")).expect("previews").map(|e| e.unwrap().path()).collect();
    previews.sort();
    (losses, fs::read(previews.last().expect("a preview")).expect("a picture"))
}

#[test]
fn a_size_dependent_schedule_is_the_one_of_its_size() {
    let ruled = outcome("type = \"rectified-flow-sd3\"\nbase_side = 4");
    let fixed = outcome("type = \"rectified-flow\"\nshift = 4");
    let plain = outcome("type = \"rectified-flow\"");
    assert!(ruled.0.len() >= 2, "{} losses", ruled.0.len());
    assert_eq!(ruled.0, fixed.0);
    assert!(ruled.1 == fixed.1, "the previews differ");
    assert!(ruled.0 != plain.0 && ruled.1 != plain.1, "the shift changes nothing");
}
