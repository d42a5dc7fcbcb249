//! Datasets in Parquet files, as the `datasets` library writes them (`tests/fixtures/parquet.py`), through the program.

#[path = "common/run.rs"]
mod run;

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use run::Bench;

fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/data/parquet", name].iter().collect()
}

/// A bench whose pictures are in the folder `set`, with these files in it.
fn bench(files: &[&str], more: &str) -> Bench {
    let bench = Bench::new("");
    fs::create_dir(bench.path("set")).expect("a folder");
    for file in files {
        fs::copy(fixture(file), bench.path("set").join(file)).expect("a file");
    }
    let recipe = fs::read_to_string(bench.path("recipe.toml")).expect("the recipe");
    let recipe = recipe.replace("path = \"pictures\"", &format!("path = \"set\"\nsmallest_px = 8\n{more}"));
    fs::write(bench.path("recipe.toml"), recipe.replace("images = 24", "images = 6")).expect("a recipe");
    bench
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

fn refused(bench: &Bench, needles: &[&str]) {
    let output = bench.command("run", &[]).output().expect("the program starts");
    let said = said(&output);
    assert_eq!(output.status.code(), Some(4), "{said}");
    for needle in needles {
        assert!(said.contains(needle), "{needle}: {said}");
    }
}

const TRAIN: &str = "train-00000-of-00001.parquet";
const TEST: &str = "test-00000-of-00001.parquet";

#[test]
fn a_split_is_trained_on_and_every_row_accounted_for() {
    let bench = bench(&[TRAIN, TEST], "split = \"train\"");
    let told = said(&bench.train("run", &[]));
    assert!(told.contains("3 of 4 pictures used"), "{told}");
    assert!(told.contains("1 have no caption") && told.contains("skipped") && told.contains("000-0000002"), "{told}");
    let folders = fs::read_dir(bench.path("home/sconce/parquet")).expect("the cache").count();
    assert_eq!(folders, 1);
    // What is unpacked is a folder of images: trained on as one it is the same run.
    let unpacked =
        fs::read_dir(bench.path("home/sconce/parquet")).expect("the cache").next().expect("one").expect("an entry");
    let captions = fs::read_to_string(unpacked.path().join("metadata.jsonl")).expect("captions");
    assert!(captions.contains("a blue square, 青い") && captions.lines().count() == 3, "{captions}");
    let recipe = fs::read_to_string(bench.path("recipe.toml")).expect("the recipe");
    let recipe =
        recipe.replace("path = \"set\"", &format!("path = {:?}", unpacked.path())).replace("split = \"train\"", "");
    fs::write(bench.path("recipe.toml"), recipe).expect("a recipe");
    bench.train("folder", &[]);
    let hashes =
        |out: &str| bench.log(out).lines().filter(|l| l.contains("\"step\"")).map(str::to_owned).collect::<Vec<_>>();
    let losses =
        |out: &str| hashes(out).into_iter().map(|l| l.split("\"loss\"").nth(1).map(str::to_owned)).collect::<Vec<_>>();
    assert_eq!(losses("run").len(), losses("folder").len());
    assert_eq!(losses("run"), losses("folder"));
}

#[test]
fn one_file_needs_no_split() {
    let bench = bench(&[TRAIN], "");
    let told = said(&bench.train("run", &[]));
    assert!(told.contains("3 of 4 pictures used"), "{told}");
}

#[test]
fn what_is_not_plain_is_asked_for() {
    refused(&bench(&[TRAIN, TEST], ""), &["test, train", "data.source.split"]);
    refused(&bench(&[TRAIN], "split = \"validation\""), &["validation", "there is: train"]);
    refused(&bench(&[TRAIN], "caption_column = \"title\""), &["title", "image.bytes", "text"]);
    refused(&bench(&[TRAIN], "image_column = \"photo\""), &["photo", "image.bytes"]);
    let folder = bench(&[], "split = \"train\"");
    fs::copy(folder.path("pictures/cat.webp"), folder.path("set/cat.webp")).expect("a picture");
    refused(&folder, &["no Parquet file", "data.source.split"]);
}

#[test]
fn a_damaged_file_is_told_and_nothing_of_it_stays() {
    let whole = fs::read(fixture(TRAIN)).expect("the fixture");
    for cut in [0, 3, 10, whole.len() / 2, whole.len() - 1] {
        let bench = bench(&[], "");
        fs::write(bench.path("set").join(TRAIN), &whole[..cut]).expect("a file");
        refused(&bench, &[TRAIN, "not a whole Parquet file"]);
        assert_eq!(fs::read_dir(bench.path("home/sconce/parquet")).map_or(0, |entries| entries.count()), 0);
    }
}
