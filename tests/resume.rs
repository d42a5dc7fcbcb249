//! A run that was killed and resumed is the run that was not: the same weights to the bit, the same loss series.

#[path = "common/run.rs"]
mod run;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use run::Bench;

/// Everything with a state at once: an average, accumulated batches, held-out pictures, a rate that changes.
const FULL: &str = "accumulate = 2\n[ema]\ntype = \"constant\"\ndecay = 0.9\n[lr]\ntype = \"cosine\"\n\
                    [validation]\nshare = 0.5\nevery_images = 12\n[schedule]\ntype = \"zero-terminal\"\n\
                    of = { type = \"scaled-linear\" }\n[objective]\ntype = \"v\"\n";
const LORA: &str = "components = { unet = 1.0, text_encoder = 0.5 }\n[adapter]\ntype = \"lora\"\nrank = 4\n\
                    targets = [\"unet.*.attn*.to_*\", \"text_encoder.*.q_proj\", \"unet.*.conv1\"]\n";

/// Snapshots at other times than checkpoints.
const POST_HOC: &str = "[adapter]\ntype = \"lora\"\nrank = 4\n[ema]\ntype = \"post-hoc\"\nsnapshot_every_images = 3\n";
/// Everything that learns beside the model, noise that depends on the batch, and masks.
const LEARNING: &str = "accumulate = 2\nmask = { outside = 0.1, normalise = \"by-area\" }\n[timesteps]\ntype = \"loss-aware\"\nof = \"logit-normal\"\nmemory_images = 20\n\
                        [weighting]\ntype = \"uncertainty\"\n[distance]\ntype = \"huber\"\n[noise]\ntype = \"pyramid\"\n\
                        of = { type = \"offset\", of = { type = \"immiscible\" } }\n[adapter]\ntype = \"lora\"\nrank = 2\n";

/// Starts a run, kills it as soon as it has a checkpoint, and goes on.
fn kill_and_resume(bench: &Bench, more: &[&str]) {
    let mut child = bench.command("killed", more).stderr(Stdio::null()).spawn().expect("the program starts");
    let (start, checkpoints) = (Instant::now(), bench.path("killed/checkpoints"));
    let saved = || {
        let entries = std::fs::read_dir(&checkpoints).into_iter().flatten().flatten();
        entries.filter(|e| e.path().extension().is_none()).count()
    };
    while saved() == 0 && child.try_wait().expect("a child").is_none() {
        assert!(start.elapsed() < Duration::from_secs(300), "no checkpoint within five minutes");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    let resumed: Vec<&str> = more.iter().copied().chain(["--resume"]).collect();
    bench.train("killed", &resumed);
}

fn same_run(more: &str, set: &str) {
    let bench = Bench::new(more);
    let set = ["--set", "model.convert.over_images=12", "--set", set];
    bench.train("whole", &set);
    kill_and_resume(&bench, &set);
    assert_eq!(bench.weights("whole"), bench.weights("killed"));
    assert_eq!(bench.log("whole"), bench.log("killed"));
}

#[test]
fn a_killed_full_fine_tune_goes_on_to_the_bit() {
    same_run(FULL, "data.source.0.mask=none");
}

#[test]
fn a_killed_lora_run_goes_on_to_the_bit() {
    same_run(LORA, "data.source.0.mask=none");
}

#[test]
fn a_killed_run_that_learns_its_weights_and_times_goes_on_to_the_bit() {
    same_run(LEARNING, "data.source.0.mask=alpha");
}

/// An optimizer with an average of its own, bf16 weights that are rounded at random, gradients that are not kept.
#[test]
fn a_killed_schedule_free_run_in_bf16_goes_on_to_the_bit() {
    let bench = Bench::new(
        "weights = \"bf16-stochastic\"\ngradients = \"released\"\nclip_norm = 0.0\n[validation]\nshare = 0.5\n\
         every_images = 12\n",
    );
    let more = ["--set", "optimizer.type=schedule-free-adamw", "--set", "optimizer.lr=1e-3"];
    bench.train("whole", &more);
    kill_and_resume(&bench, &more);
    assert_eq!(bench.weights("whole"), bench.weights("killed"));
    assert_eq!(bench.log("whole"), bench.log("killed"));
}

/// The snapshots are among the weight files that are compared: none is lost, doubled or different.
#[test]
fn a_killed_run_writes_the_same_snapshots() {
    let bench = Bench::new(POST_HOC);
    bench.train("whole", &[]);
    kill_and_resume(&bench, &[]);
    let whole = bench.weights("whole");
    assert_eq!(whole.keys().filter(|k| k.starts_with("snapshots/")).count(), 8);
    assert_eq!(whole, bench.weights("killed"));
    // Those beyond the checkpoint are written again, whatever they hold by then.
    std::fs::remove_dir_all(bench.path("killed/checkpoints/000000000024")).expect("the last one");
    std::fs::write(bench.path("killed/snapshots/000000000022.safetensors"), "torn").expect("a file");
    bench.train("killed", &["--resume"]);
    assert_eq!(whole, bench.weights("killed"));
}

#[test]
fn another_recipe_does_not_go_on() {
    let bench = Bench::new("");
    bench.train("run", &[]);
    let output = bench.command("run", &["--resume", "--set", "optimizer.lr=1e-4"]).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("the recipe has changed") && said.contains("lr"), "{said}");
    let output = bench.command("run", &[]).output().expect("it starts");
    assert!(String::from_utf8_lossy(&output.stderr).contains("--resume"));
    let more = ["--resume", "--changed", "--set", "optimizer.lr=1e-4", "--set", "train.images=30"];
    let said = String::from_utf8_lossy(&bench.train("run", &more).stderr).into_owned();
    assert!(said.contains("resumed at 24 images") && said.contains("the recipe has changed"), "{said}");
    assert!(bench.log("run").contains("\"images\":30"));
}

#[test]
fn other_pictures_or_captions_do_not_go_on() {
    let bench = Bench::new("");
    bench.train("run", &[]);
    let goes_on = || bench.command("run", &["--resume"]).output().expect("it starts");
    let refused = |output: std::process::Output| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("captions or what is held out have changed"), "{said}");
    };
    assert!(goes_on().status.success());
    std::fs::write(bench.path("pictures/ant.txt"), "a red ant").expect("a caption");
    refused(goes_on());
    std::fs::write(bench.path("pictures/ant.txt"), "ant").expect("a caption");
    assert!(goes_on().status.success());
    std::fs::copy(bench.path("pictures/bee.webp"), bench.path("pictures/ant.webp")).expect("a picture");
    refused(goes_on());
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_stops() {
    let bench = Bench::new("[adapter]\ntype = \"lora\"\nrank = 2\n");
    // Enough images that the run is still going when it is stopped, and no checkpoint of its own before the end.
    let long = ["--set", "train.images=3000", "--set", "train.save_every_images=0"];
    let child = bench.command("run", &long).stderr(Stdio::piped()).spawn().expect("the program starts");
    let (start, log) = (Instant::now(), bench.path("run/log.jsonl"));
    while std::fs::read_to_string(&log).map_or(0, |l| l.lines().count()) < 2 {
        assert!(start.elapsed() < Duration::from_secs(300), "no step within five minutes");
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill is there");
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(sent.success() && output.status.code() == Some(130), "{said}");
    assert!(said.contains("--resume"), "{said}");
    assert!(!bench.path("run/lora-peft.safetensors").exists(), "it was not at its end");
    let checkpoints = std::fs::read_dir(bench.path("run/checkpoints")).expect("a checkpoint").count();
    assert_eq!(checkpoints, 1);
}
