//! Running the program in a folder of its own, and holding what it prints against the reviewed text in
//! `tests/snapshots/`. `SCONCE_UPDATE_SNAPSHOTS=1 cargo test --release` writes the texts anew; review the
//! difference before it is committed.

#![allow(dead_code, reason = "each test uses its part")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder with a small model (`model`) and pictures (`pictures`).
pub struct Place(pub tempfile::TempDir);

impl Place {
    /// Makes one; `model` is one of the fixtures.
    pub fn new(model: &str) -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        copy(&root().join("tests/fixtures/data").join(model).join("model"), &place.path("model"));
        fs::create_dir(place.path("pictures")).expect("a folder");
        for (name, width, height) in [("wide", 160, 96), ("tall", 96, 160), ("square", 128, 128), ("small", 8, 8)] {
            image::RgbImage::from_pixel(width, height, image::Rgb([width as u8, height as u8, 9]))
                .save(place.path(&format!("pictures/{name}.png")))
                .expect("a picture");
            fs::write(place.path(&format!("pictures/{name}.txt")), format!("a {name} one")).expect("a caption");
        }
        place
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) -> &Self {
        fs::write(self.path(name), text).expect("a file");
        self
    }

    /// Runs the program and gives what it said: arguments, exit code, both outputs, the folder as `$DIR`.
    pub fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sconce"));
        for (name, _) in env::vars().filter(|(name, _)| name.starts_with("SCONCE_")) {
            command.env_remove(name);
        }
        command.current_dir(self.0.path()).args(arguments).env("COLUMNS", "100").env("RUST_BACKTRACE", "1");
        let output = command.output().expect("the program starts");
        let text = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).replace(&self.0.path().display().to_string(), "$DIR");
            // Help pages end lines with spaces.
            text.lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>()
        };
        let code = output.status.code().map_or("killed".to_owned(), |c| c.to_string());
        let mut said = format!("$ sconce {}\n{}", arguments.join(" "), text(&output.stdout));
        if !output.stderr.is_empty() {
            said += &format!("-- stderr --\n{}", text(&output.stderr));
        }
        said + &format!("-- exit {code} --\n")
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("the fixture is there").flatten() {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => fs::copy(entry.path(), target).map(drop).expect("a file"),
        }
    }
}

/// Holds `text` against `tests/snapshots/NAME.txt`, or writes it there.
pub fn snapshot(name: &str, text: &str) {
    let path = root().join("tests/snapshots").join(format!("{name}.txt"));
    if env::var_os("SCONCE_UPDATE_SNAPSHOTS").is_some() {
        fs::write(&path, text).expect("the snapshot is written");
        return;
    }
    let reviewed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        reviewed == text,
        "{} differs. If the new text is right: SCONCE_UPDATE_SNAPSHOTS=1, and review the difference.\n\
         ---- now ----\n{text}\n---- reviewed ----\n{reviewed}",
        path.display()
    );
}
