//! The quickstart's model and pictures, inside the program: `embedded:quickstart` is a diffusers folder, and
//! `embedded:quickstart/data` its captioned pictures.

use include_dir::{Dir, include_dir};
use sconce_core::embedded::Embedded;
use sconce_sdk::inventory;

static MODEL: Dir = include_dir!("$CARGO_MANIFEST_DIR/configs/quickstart/model");
static DATA: Dir = include_dir!("$CARGO_MANIFEST_DIR/configs/quickstart/data");

inventory::submit! {
    Embedded { name: "quickstart", files }
}

fn files() -> Vec<(String, &'static [u8])> {
    let mut out = Vec::new();
    add(&MODEL, "", &mut out);
    add(&DATA, "data/", &mut out);
    out
}

fn add(dir: &'static Dir, prefix: &str, out: &mut Vec<(String, &'static [u8])>) {
    out.extend(dir.files().map(|f| (format!("{prefix}{}", f.path().display()), f.contents())));
    dir.dirs().for_each(|d| add(d, prefix, out));
}
