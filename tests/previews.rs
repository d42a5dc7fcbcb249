//! Pictures drawn as a run goes, by an autoencoder of their own.

#[path = "common/run.rs"]
mod run;

use std::fs;

use run::Bench;

/// Of the quickstart's latents, or of twice their channels; from nothing, as the bench's model is.
fn tiny(bench: &Bench, name: &str, channels: usize) {
    let config = serde_json::json!({
        "_class_name": "AutoencoderTiny", "act_fn": "relu", "latent_channels": channels,
        "encoder_block_out_channels": [8, 8, 8], "decoder_block_out_channels": [8, 8, 8],
        "num_encoder_blocks": [1, 1, 1], "num_decoder_blocks": [1, 1, 1],
    });
    fs::create_dir(bench.path(name)).expect("a folder");
    fs::write(bench.path(name).join("config.json"), config.to_string()).expect("a config");
}

#[test]
fn another_autoencoder_draws_the_previews() {
    let bench = Bench::new("[preview]\nprompts = [\"a bee\"]\n[sampling]\nsteps = 2\n");
    let few = ["--set", "train.images=3"];
    bench.train("own", &few);
    for (name, channels) in [("tiny", 4), ("wide", 8)] {
        tiny(&bench, name, channels);
    }
    bench.train("small", &[&few[..], &["--set", "preview.autoencoder=tiny"]].concat());
    let drawn = |out: &str| image::open(bench.path(out).join("previews/000000000.png")).expect("a preview").to_rgb8();
    let [own, other] = [drawn("own"), drawn("small")];
    assert_eq!(own.dimensions(), other.dimensions());
    assert!(own != other, "the previews are those of the model's own autoencoder");

    for (name, why) in [("wide", "latents of 8 channels"), ("nothing", "there is no folder")] {
        let set = format!("preview.autoencoder={name}");
        let output = bench.command("refused", &[&few[..], &["--set", &set]].concat()).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why), "{said}");
    }
}
