//! The program in a folder of its own, with a cache of its own: for tests that look at what it writes.

#![allow(dead_code, reason = "each test uses its part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder to work in.
pub struct Work(tempfile::TempDir);

impl Work {
    /// An empty one.
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What the program says.
    pub fn sconce(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sconce"));
        command.current_dir(self.0.path()).args(arguments).env("SCONCE_CACHE", self.path("home"));
        command.output().expect("the program starts")
    }

    /// What it prints, where all goes well.
    #[track_caller]
    pub fn good(&self, arguments: &[&str]) -> String {
        let output = self.sconce(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What it says to what it refuses.
    #[track_caller]
    pub fn bad(&self, arguments: &[&str]) -> String {
        let output = self.sconce(arguments);
        assert!(!output.status.success(), "{arguments:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a plain name")
}
