//! What goes wrong in the middle of a run: the error says what and where, and what was good stays.

#[path = "common/run.rs"]
mod run;

use std::fs;
use std::process::Command;

use run::Bench;

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint() {
    let bench = Bench::new("clip_norm = 0.0\n");
    let output = bench.command("run", &["--set", "optimizer.lr=1e20"]).output().expect("it starts");
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("the run stops before this update") && text.contains("optimizer.lr"), "{text}");
    assert!(!bench.path("run/model").exists(), "a broken model must not be written");
}

#[test]
fn bad_pictures_are_reported_one_by_one_and_the_run_goes_on() {
    let bench = Bench::new("");
    fs::write(bench.path("pictures/torn.png"), b"\x89PNG\r\n\x1a\nnot much more").expect("a file");
    image::RgbImage::new(1, 1).save(bench.path("pictures/dot.png")).expect("a picture");
    fs::write(bench.path("pictures/huge.bmp"), huge_bmp()).expect("a file");
    let output = bench.train("run", &["--set", "train.images=6"]);
    let text = said(&output);
    for (file, why) in [("torn.png", "skipped"), ("dot.png", "1x1 pixels"), ("huge.bmp", "30000x30000 pixels")] {
        assert!(text.lines().any(|l| l.contains(file) && l.contains(why)), "{file}: {text}");
    }
    assert!(text.contains("8 of 11 pictures used"), "{text}");
}

#[test]
fn an_empty_folder_is_an_error() {
    let bench = Bench::new("");
    fs::remove_dir_all(bench.path("pictures")).expect("it was there");
    fs::create_dir(bench.path("pictures")).expect("a folder");
    let output = bench.command("run", &[]).output().expect("it starts");
    assert!(!output.status.success() && said(&output).contains("no image in this folder"), "{}", said(&output));
}

/// A file that cannot grow stands for a full disk: both fail in `write`.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_no_half_written_file() {
    let bench = Bench::new("");
    let program = env!("CARGO_BIN_EXE_sconce");
    let line = format!("trap '' XFSZ; ulimit -f 2000; exec {program} train recipe.toml --out run");
    let mut shell = Command::new("bash");
    shell.args(["-c", &line]).current_dir(bench.0.path()).env("SCONCE_CACHE", bench.path("home"));
    let output = shell.output().expect("a shell");
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("cannot write") && text.contains(".safetensors"), "{text}");
    let whole = |dir: &str| fs::read_dir(bench.path(dir)).into_iter().flatten().flatten().count();
    assert!(!bench.path("run/model").exists());
    let left = fs::read_dir(bench.path("run/checkpoints")).into_iter().flatten().flatten();
    assert!(left.into_iter().all(|e| e.path().extension().is_some()), "a torn checkpoint looks whole");
    assert!(whole("run") > 0);
}

/// The header of a 30,000 x 30,000 bitmap of 24 bits, and nothing behind it.
fn huge_bmp() -> Vec<u8> {
    let mut out = b"BM".to_vec();
    out.extend(54u32.to_le_bytes());
    out.extend([0; 4]);
    out.extend(54u32.to_le_bytes());
    out.extend(40u32.to_le_bytes());
    out.extend(30_000i32.to_le_bytes());
    out.extend(30_000i32.to_le_bytes());
    out.extend(1u16.to_le_bytes());
    out.extend(24u16.to_le_bytes());
    out.extend([0; 24]);
    out
}
