//! The loss series of short runs, against committed ones: a change of the mathematics, of an initialisation, of the data's
//! order or of a kernel shows here. The tolerance allows for other instruction sets. `SCONCE_UPDATE_SNAPSHOTS=1` writes
//! the series anew; say in the commit why it changed.

#[path = "common/run.rs"]
mod run;

use std::fs;
use std::path::Path;

use run::Bench;
use serde_json::Value;

/// Largest relative difference of a loss.
const TOLERANCE: f64 = 2e-3;

fn series(bench: &Bench, out: &str) -> Vec<(u64, f64)> {
    let of_step = |line: &str| {
        let value: Value = serde_json::from_str(line).expect("a line of JSON");
        (value["event"] == "step")
            .then(|| (value["images"].as_u64().expect("a count"), value["loss"].as_f64().expect("a loss")))
    };
    bench.log(out).lines().filter_map(of_step).collect()
}

fn golden(name: &str, more: &str, arguments: &[&str]) {
    let bench = Bench::new(more);
    bench.train("run", arguments);
    let got = series(&bench, "run");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
    if std::env::var_os("SCONCE_UPDATE_SNAPSHOTS").is_some() {
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        let text: String = got.iter().map(|(images, loss)| format!("{images} {loss:.6}\n")).collect();
        return fs::write(file, text).expect("a file");
    }
    let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let want: Vec<(u64, f64)> = text
        .lines()
        .map(|l| l.split_once(' ').expect("two numbers"))
        .map(|(images, loss)| (images.parse().expect("a count"), loss.parse().expect("a loss")))
        .collect();
    assert_eq!(got.len(), want.len(), "{name}: number of updates");
    for ((images, loss), (at, before)) in got.iter().zip(&want) {
        assert_eq!(images, at, "{name}");
        assert!((loss / before - 1.0).abs() < TOLERANCE, "{name} at {images} images: {loss}, was {before}");
    }
}

#[test]
fn epsilon_on_scaled_linear() {
    golden("epsilon", "", &[]);
}

#[test]
fn v_on_zero_terminal_debiased() {
    let more = "[schedule]\ntype = \"zero-terminal\"\nof = { type = \"scaled-linear\" }\n[objective]\ntype = \"v\"\n\
                [weighting]\ntype = \"debiased\"\n";
    golden("v-zero-terminal", more, &["--set", "model.convert.over_images=0"]);
}

#[test]
fn flow_with_logit_normal_times() {
    let more = "[schedule]\ntype = \"rectified-flow\"\n[objective]\ntype = \"flow\"\n[timesteps]\n\
                type = \"logit-normal\"\n";
    let trailing = ["--set", "model.convert.over_images=0", "--set", "sampling.spacing=trailing"];
    golden("flow", more, &trailing);
}

#[test]
fn lora() {
    golden("lora", "[adapter]\ntype = \"lora\"\nrank = 4\n", &["--set", "optimizer.lr=1e-2"]);
}

#[test]
fn autoencoder() {
    let more = "task = \"autoencoder\"\n[train.autoencoder]\ncrop_px = 32\nfirst_log_variance = -6.0\n";
    golden("autoencoder", more, &[]);
}
