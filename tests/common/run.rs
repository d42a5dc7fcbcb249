//! A short training run of the program: a small model from nothing, a few pictures, a folder of its own.

#![allow(dead_code, reason = "each test uses its part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sconce_nn::Device;
use sconce_nn::weights::{WeightFiles, bytes_of};
use sha2::{Digest, Sha256};

/// A folder with a recipe and eight pictures.
pub struct Bench(pub tempfile::TempDir);

impl Bench {
    /// Makes one for a small model from nothing; `more` is added to the recipe.
    pub fn new(more: &str) -> Self {
        let blank = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/quickstart/blank");
        Self::of(&format!(
            "[model]\npath = {:?}\nrandom_seed = 3\n[optimizer]\ntype = \"adamw\"\nlr = 1e-3\n[data]\nbatch = 3\n\
             caption_dropout = 0.2\n[[data.source]]\npath = \"pictures\"\nflip = \"horizontal\"\n[train]\n\
             images = 24\nseed = 5\nsave_every_images = 6\n{more}",
            blank.display().to_string()
        ))
    }

    /// Makes one with this recipe.
    pub fn of(recipe: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/quickstart/data");
        fs::create_dir(dir.path().join("pictures")).expect("a folder");
        for name in ["ant", "banana", "bear", "bee", "cactus", "camel", "car", "cat"] {
            let to = dir.path().join(format!("pictures/{name}.webp"));
            fs::copy(data.join(format!("{name}.webp")), to).expect("a picture");
            fs::write(dir.path().join(format!("pictures/{name}.txt")), name).expect("a caption");
        }
        fs::write(dir.path().join("recipe.toml"), recipe).expect("a recipe");
        Self(dir)
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `sconce train recipe.toml --out OUT` and more.
    pub fn command(&self, out: &str, more: &[&str]) -> Command {
        self.sconce(&[&["train", "recipe.toml", "--out", out], more].concat())
    }

    /// Any command of the program, in the folder.
    pub fn sconce(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sconce"));
        command.current_dir(self.0.path()).args(arguments).env("SCONCE_CACHE", self.path("home"));
        command
    }

    /// Runs to the end, which must be a good one.
    pub fn train(&self, out: &str, more: &[&str]) -> Output {
        let output = self.command(out, more).output().expect("the program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// The hash of every weight file that a run wrote at its end, by name.
    pub fn weights(&self, out: &str) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        collect(&self.path(out), &self.path(out), &mut found);
        assert!(!found.is_empty(), "the run wrote no weights");
        found
    }

    /// The bytes of every tensor in a file of a run.
    pub fn tensors(&self, out: &str, file: &str) -> BTreeMap<String, Vec<u8>> {
        let weights = WeightFiles::open(&[self.path(out).join(file)]).expect("weights");
        let bytes = |key: &str| bytes_of(&weights.stored(key, &Device::Cpu).expect("a tensor")).expect("bytes");
        weights.keys().map(|key| (key.to_owned(), bytes(key))).collect()
    }

    /// The run's log.
    pub fn log(&self, out: &str) -> String {
        fs::read_to_string(self.path(out).join("log.jsonl")).expect("a log")
    }
}

fn collect(dir: &Path, base: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("cache") && !path.ends_with("checkpoints") {
            collect(&path, base, found);
        } else if path.extension().is_some_and(|e| e == "safetensors") {
            let hash = Sha256::digest(fs::read(&path).expect("a weight file"));
            let hash = hash.iter().map(|b| format!("{b:02x}")).collect();
            found.insert(path.strip_prefix(base).expect("inside").display().to_string(), hash);
        }
    }
}
