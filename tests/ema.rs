//! Averages rebuilt from a run's snapshots are those that the run would have tracked: of a model's weights, and of the
//! products that a LoRA's factors make.

#[path = "common/run.rs"]
mod run;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;

use candle_core::{DType, Device, Result, Tensor};
use run::Bench;
use sconce::nn::weights::{WeightFiles, read_metadata};
use sconce::sdk::{Choice, EmaStrategy};

/// The widths at which rebuilt averages are held against tracked ones.
const WIDTHS: [&str; 5] = ["0.05", "0.07", "0.10", "0.15", "0.25"];
/// 64 updates and 32 snapshots; of the averages tracked, the rebuilt ones are made from 0.05 and 0.10 alone.
const TRACKED: [&str; 6] = [
    "--set",
    "train.images=192",
    "--set",
    "train.save_every_images=0",
    "--set",
    "ema={ type = \"post-hoc\", sigma_rel = [0.05, 0.10, 0.07, 0.15, 0.25], snapshot_every_images = 6 }",
];
const FULL: &str = "components = { text_encoder = 1.0 }\n";
const LORA: &str = "[adapter]\ntype = \"lora\"\nrank = 4\ntargets = [\"unet.*.attn*.to_*\", \"unet.*.conv1\"]\n";

fn ema(bench: &Bench, arguments: &[&str]) -> Output {
    let mut command = bench.command("unused", &[]);
    let program = command.get_program().to_owned();
    command = std::process::Command::new(program);
    command.current_dir(bench.0.path()).arg("ema").args(arguments).env("SCONCE_CACHE", bench.path("home"));
    command.output().expect("the program starts")
}

fn good(bench: &Bench, arguments: &[&str]) -> String {
    let output = ema(bench, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn read(path: &Path) -> BTreeMap<String, Tensor> {
    let files = WeightFiles::open(&[path]).expect("a weight file");
    let tensor = |k: &str| (k.to_owned(), files.tensor(k, DType::F32, &Device::Cpu).expect("a tensor"));
    files.keys().map(tensor).collect()
}

fn squares(t: &Tensor) -> Result<f64> {
    t.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar()
}

/// |a - b| and |b| over all tensors.
fn distance(a: &BTreeMap<String, Tensor>, b: &BTreeMap<String, Tensor>) -> Result<(f64, f64)> {
    assert!(a.keys().eq(b.keys()));
    let mut sums = (0.0, 0.0);
    for (key, b) in b {
        sums.0 += squares(&(&a[key] - b)?)?;
        sums.1 += squares(b)?;
    }
    Ok((sums.0.sqrt(), sums.1.sqrt()))
}

/// What a LoRA in PEFT's layout adds to each layer.
fn products(path: &Path) -> BTreeMap<String, Tensor> {
    let factors = read(path);
    let product = |(key, a): (&String, &Tensor)| {
        let layer = key.strip_suffix(".lora_A.weight")?;
        let b = factors[&format!("{layer}.lora_B.weight")].flatten_from(1).ok()?;
        Some((layer.to_owned(), b.matmul(&a.flatten_from(1).ok()?).ok()?))
    };
    factors.iter().filter_map(product).collect()
}

/// Rebuilds every width from 0.05 and 0.10, and takes the tracked average of that width: where each wrote `file`.
fn pairs(bench: &Bench, file: &str, more: &[&str]) -> Vec<(&'static str, std::path::PathBuf, std::path::PathBuf)> {
    let pair = |width: &'static str| {
        let (rebuilt, tracked) = (format!("rebuilt-{width}"), format!("tracked-{width}"));
        let to = |out: &str, from: &[&str]| {
            good(bench, &[&["run", "--sigma-rel", width, "--out", out], from, more].concat());
            bench.path(out).join(file)
        };
        (width, to(&rebuilt, &["--from", "0.05", "--from", "0.10"]), to(&tracked, &["--from", width]))
    };
    WIDTHS.map(pair).to_vec()
}

/// diffusers' `EMAModel`, update by update, whatever the batch.
#[test]
fn inverse_power_decays_as_diffusers_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data/averages.json");
    let cases: serde_json::Value = serde_json::from_slice(&std::fs::read(path).expect("a fixture")).expect("JSON");
    for case in cases.as_array().expect("cases") {
        let mut table = case["params"].clone();
        table["type"] = "inverse-power".into();
        let ema = Choice::<dyn EmaStrategy>::from_table(&table).expect("a plugin");
        for pair in case["decays"].as_array().expect("pairs") {
            let (update, want) = (pair[0].as_u64().expect("a count"), pair[1].as_f64().expect("a decay"));
            for batch in [1, 48] {
                let got = ema.decay(0, update * batch, batch);
                assert!((got - want).abs() < 1e-12, "{table}: {got} at update {update}, not {want}");
            }
        }
    }
}

#[test]
fn a_rebuilt_model_is_the_one_that_was_tracked() -> Result<()> {
    let bench = Bench::new(FULL);
    bench.train("run", &TRACKED);
    let file = "model/text_encoder/model.safetensors";
    let written = bench.path("run").join(file);
    let start = read(&bench.path("run").join("model/text_encoder/model.safetensors"));
    for (width, rebuilt, tracked) in pairs(&bench, file, &[]) {
        let (rebuilt, at) = (read(&rebuilt), tracked.clone());
        let tracked = read(&tracked);
        let (off, size) = distance(&rebuilt, &tracked)?;
        // How far averaging itself goes: the distance to the narrowest average, which the run wrote.
        let (moved, _) = distance(&tracked, &start)?;
        println!("{width}: {:.1e} of the weights, {:.1e} of the way from 0.05", off / size, off / moved);
        assert!(off < 1e-2 * size, "{width}: {off} of {size}");
        if width == "0.05" {
            // The first track is what `train` wrote, in the same words.
            assert!(moved < 1e-6 * size, "{moved} of {size}");
            let (mut wrote, mut made) = (read_metadata(&written)?, read_metadata(&at)?);
            assert!(
                made.remove("sconce.ema").is_some_and(|m| m.contains("192")) && wrote.remove("sconce.ema").is_none()
            );
            assert_eq!(wrote, made);
        } else {
            assert!(off < 0.2 * moved, "{width}: {off}, and averages of 0.05 and this differ by {moved}");
        }
    }
    Ok(())
}

#[test]
fn a_rebuilt_lora_adds_what_the_tracked_one_adds() -> Result<()> {
    let bench = Bench::new(LORA);
    bench.train("run", &TRACKED);
    let narrow = products(&bench.path("run/lora-peft.safetensors"));
    for (width, rebuilt, tracked) in pairs(&bench, "lora-peft.safetensors", &["--rank", "10"]) {
        let (rebuilt, tracked) = (products(&rebuilt), products(&tracked));
        let ((off, size), (moved, _)) = (distance(&rebuilt, &tracked)?, distance(&tracked, &narrow)?);
        println!("{width}: {:.1e} of what is added, {:.1e} of the way from 0.05", off / size, off / moved);
        assert!(off < 1e-2 * size, "{width}: {off} of {size}");
    }
    let output = ema(&bench, &["run", "--sigma-rel", "0.12", "--rank", "11"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("ranks from 1 to 10 are known"), "{said}");
    let output = ema(&bench, &["run", "--sigma-rel", "0.12"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("the LoRA's rank leaves out"), "{said}");
    assert!(bench.path("run/ema-0.12/lora-kohya.safetensors").is_file());
    Ok(())
}

#[test]
fn widths_are_ranked_by_the_runs_own_validation() {
    let bench =
        Bench::new(&format!("{LORA}[ema]\ntype = \"post-hoc\"\n[validation]\nshare = 0.5\nevery_images = 24\n"));
    bench.train("run", &[]);
    let table = good(&bench, &["run", "--scan", "0.05..0.25", "--points", "3", "--validate"]);
    let (rows, last) = table.trim_end().rsplit_once('\n').expect("rows and the weights");
    let rows: Vec<Vec<&str>> = rows.lines().skip(1).map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows.iter().map(|r| r[0]).collect::<Vec<_>>(), ["0.0500", "0.1500", "0.2500"], "{table}");
    // The run validated its own average, the narrowest, at its end.
    let log = bench.log("run");
    let ended = log.lines().rev().find(|l| l.contains("\"validation\"")).expect("validated");
    let ended: serde_json::Value = serde_json::from_str(ended).expect("JSON");
    let (own, first) = (ended["loss"].as_f64().expect("a loss"), rows[0][3].parse::<f64>().expect("a loss"));
    assert!((own / first - 1.0).abs() < 1e-4, "{own} in the log, {table}");
    let mut by_loss: Vec<(f64, &str)> = rows.iter().map(|r| (r[3].parse().expect("a loss"), r[4])).collect();
    by_loss.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert_eq!(by_loss.iter().map(|r| r.1).collect::<Vec<_>>(), ["1", "2", "3"], "{table}");
    // A run without an average validates the weights themselves.
    bench.train("plain", &["--set", "ema=none"]);
    let log = bench.log("plain");
    let plain = log.lines().rev().find(|l| l.contains("\"validation\"")).expect("validated");
    let plain = serde_json::from_str::<serde_json::Value>(plain).expect("JSON")["loss"].as_f64().expect("a loss");
    let weights: f64 = last.strip_prefix("the weights themselves").expect("their row").trim().parse().expect("a loss");
    assert!((weights / plain - 1.0).abs() < 1e-4 && weights != own, "{weights}, and {plain} in the log");
    let same = good(&bench, &["run", "--scan", "0.05..0.25", "--points", "3", "--validate", "--json"]);
    let same: serde_json::Value = serde_json::from_str(&same).expect("JSON");
    assert_eq!(format!("{:.6}", same["averages"][1]["loss"].as_f64().expect("a loss")), rows[1][3]);
    assert_eq!(format!("{:.6}", same["weights"].as_f64().expect("a loss")), format!("{weights:.6}"));
}

#[test]
fn an_earlier_time_is_as_if_the_run_had_ended_there() -> Result<()> {
    let bench =
        Bench::new(&format!("{LORA}[ema]\ntype = \"post-hoc\"\nsnapshot_every_images = 6\nsnapshot_dtype = \"f16\"\n"));
    bench.train("run", &[]);
    bench.train("short", &["--set", "train.images=14"]);
    for run in ["run", "short"] {
        good(&bench, &[run, "--sigma-rel", "0.08", "--at", "14", "--out", &format!("{run}-14")]);
    }
    let at = |run: &str| read(&bench.path(&format!("{run}-14/lora-peft.safetensors")));
    let (off, size) = distance(&at("run"), &at("short"))?;
    assert!(off <= 1e-6 * size, "{off} of {size}");
    let output = ema(&bench, &["run", "--sigma-rel", "0.08", "--at", "13"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("there is no snapshot at 13 images; there are: 6, 14, 19, 24"), "{said}");
    let output = ema(&bench, &["run", "--sigma-rel", "0.08", "--from", "0.07"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("the run tracked no average of width 0.07; it tracked: 0.0500, 0.1000"), "{said}");
    Ok(())
}
