//! Models and pictures inside the program. `embedded:quickstart` is a diffusers folder, `embedded:quickstart/data` its captioned
//! pictures; `embedded:flow-quickstart` is a flow transformer's folder around the same text encoder and autoencoder.

use include_dir::{Dir, include_dir};
use sconce_core::embedded::Embedded;
use sconce_sdk::inventory;

static MODEL: Dir = include_dir!("$CARGO_MANIFEST_DIR/configs/quickstart/model");
static DATA: Dir = include_dir!("$CARGO_MANIFEST_DIR/configs/quickstart/data");
static FLOW: Dir = include_dir!("$CARGO_MANIFEST_DIR/configs/flow-quickstart/model");

/// What the flow transformer takes from the quickstart's model.
const SHARED: [&str; 3] = ["text_encoder_2/", "tokenizer_2/", "vae/diffusion_pytorch_model.safetensors"];

inventory::submit! {
    Embedded { name: "quickstart", files }
}

inventory::submit! {
    Embedded { name: "flow-quickstart", files: flow_files }
}

fn files() -> Vec<(String, &'static [u8])> {
    let mut out = Vec::new();
    add(&MODEL, "", &mut out);
    add(&DATA, "data/", &mut out);
    out
}

fn flow_files() -> Vec<(String, &'static [u8])> {
    let mut out = files();
    out.retain(|(path, _)| SHARED.iter().any(|shared| path.starts_with(shared)));
    add(&FLOW, "", &mut out);
    out
}

fn add(dir: &'static Dir, prefix: &str, out: &mut Vec<(String, &'static [u8])>) {
    out.extend(dir.files().map(|f| (format!("{prefix}{}", f.path().display()), f.contents())));
    dir.dirs().for_each(|d| add(d, prefix, out));
}
