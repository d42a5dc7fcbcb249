//! A locked run, and one that is made again from its weight file's header.

#[path = "common/run.rs"]
mod run;

use std::fs;

use run::Bench;

const ADAPTER: &str = "[adapter]\ntype = \"lora\"\nrank = 2\n[weighting]\ntype = \"min-snr\"\n";

fn said(bench: &Bench, arguments: &[&str], code: i32) -> String {
    let output = bench.sconce(arguments).output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    said
}

#[test]
fn a_lock_holds_a_run_and_tells_what_differs() {
    let bench = Bench::new(ADAPTER);
    said(&bench, &["lock", "recipe.toml"], 0);
    let lock = fs::read_to_string(bench.path("recipe.lock")).expect("a lock");
    for part in ["[files]", "unet/config.json", "\"weighting min-snr\" = \"sconce-plugins ", "machine", "seed"] {
        assert!(lock.contains(part), "{part}: {lock}");
    }
    bench.train("run", &[]);
    // What a header says is the lock itself.
    said(&bench, &["recipe", "extract", "run/lora-kohya.safetensors", "--out", "again.toml"], 0);
    assert_eq!(fs::read_to_string(bench.path("again.lock")).expect("the lock"), lock);

    let refused = |bench: &Bench, needle: &str| {
        let text = said(bench, &["train", "recipe.toml", "--out", "other"], 4);
        assert!(text.contains("would not be the locked one") && text.contains(needle), "{text}");
        assert!(
            !bench.path("other/log.jsonl").exists()
                || fs::read_to_string(bench.path("other/log.jsonl")).is_ok_and(|t| t.is_empty())
        );
    };
    fs::write(bench.path("pictures/cat.txt"), "a cat").expect("a caption");
    refused(&bench, "data.identity");
    bench.train("unlocked", &["--unlocked"]);
    fs::write(bench.path("pictures/cat.txt"), "cat").expect("a caption");
    let recipe = fs::read_to_string(bench.path("recipe.toml")).expect("the recipe");
    fs::write(bench.path("recipe.toml"), recipe.replace("min-snr", "debiased")).expect("a recipe");
    refused(&bench, "plugins.weighting min-snr");
    fs::write(bench.path("recipe.toml"), recipe).expect("a recipe");
    fs::write(bench.path("recipe.lock"), "not a lock").expect("a file");
    assert!(said(&bench, &["train", "recipe.toml", "--out", "third"], 4).contains("recipe.lock"));
}

#[test]
fn a_weight_file_is_made_again_bit_for_bit() {
    let bench = Bench::new(ADAPTER);
    bench.train("run", &[]);
    let blank = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/quickstart/blank");
    let model = format!("model.path={blank}");
    let again = |out: &str, more: &[&str], code: i32| {
        let base = ["repro", "run/lora-peft.safetensors", "--set", "data.path=pictures", "--set", &model, "--out", out];
        said(&bench, &[&base[..], more].concat(), code)
    };
    assert!(again("again", &[], 0).contains("the same, bit for bit"));
    let other = again("other", &["--set", "train.seed=6"], 1);
    assert!(other.contains("tensors differ") && other.contains("run.seed: locked as 5, now 6"), "{other}");
    let text = said(&bench, &["repro", "pictures/cat.webp"], 4);
    assert!(text.contains("cat.webp"), "{text}");
}

/// `sconce init` writes a recipe that resolves, from answers on its input.
#[test]
fn a_few_answers_make_a_recipe() {
    use std::io::Write;
    use std::process::Stdio;
    let bench = Bench::new("");
    let answer = |answers: &str, file: &str, code: i32| {
        let mut command = bench.sconce(&["init", file]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        child.stdin.take().expect("an input").write_all(answers.as_bytes()).expect("written");
        let output = child.wait_with_output().expect("ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        said
    };
    let said = answer("\nnowhere\npictures\n<mine>\nmany\n6\n\n", "mine.toml", 0);
    assert!(said.contains("no folder `nowhere`") && said.contains("many is no number"), "{said}");
    let text = fs::read_to_string(bench.path("mine.toml")).expect("a recipe");
    assert!(text.contains("[[train.token]]") && text.contains("rank = 16"), "{text}");
    assert!(text.starts_with("#:schema ./schema.json\n"), "{text}");
    let schema = fs::read_to_string(bench.path("schema.json")).expect("a schema");
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/schema.json");
    assert!(schema == fs::read_to_string(committed).expect("a schema"), "the schema of recipes");
    let output = bench.sconce(&["check", "mine.toml"]).output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    answer("\npictures\n\n\n\n\nno\n", "plain.toml", 0);
    let text = fs::read_to_string(bench.path("plain.toml")).expect("a recipe");
    assert!(!text.contains("schema.json"), "{text}");
    let output = bench.sconce(&["check", "plain.toml"]).output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    answer("\npictures\n\n\nall\na red fox\n", "whole.toml", 0);
    let text = fs::read_to_string(bench.path("whole.toml")).expect("a recipe");
    assert!(text.contains("adapter = false") && text.contains("prompts = [\"a red fox\"]"), "{text}");
    // What its maker says of memory is held against what it comes to.
    fs::write(bench.path("whole.toml"), format!("{text}\n[needs]\nmemory_gb = 0.001\n")).expect("a recipe");
    let output = bench.sconce(&["check", "whole.toml"]).output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("the recipe's maker says 0.001 GB of memory"), "{said}");
    assert!(answer("\n", "ended.toml", 2).contains("the input ended"));
    assert!(answer("\n", "mine.toml", 2).contains("there already"));
}
