//! What the program says, word by word: help pages, explanations, and every error that a user can meet, so that each is
//! reviewed text. See `common/program.rs` for how to update.

#[path = "common/program.rs"]
mod program;

use program::{Place, snapshot};

/// A whole recipe for the small model.
const GOOD: &str = "\
[model]
path = \"model\"

[optimizer]
type = \"adamw\"
lr = 1e-4

[data]
batch = 2
[[data.source]]
path = \"pictures\"

[train]
images = 64
";

/// The model that the tests use.
fn place() -> Place {
    Place::new("sd1-a")
}

/// Runs `check` on GOOD with one text in place of another.
fn broken(name: &str, old: &str, new: &str) {
    assert!(GOOD.contains(old), "{old:?} is in the recipe");
    snapshot(name, &place().write("recipe.toml", &GOOD.replace(old, new)).run(&["check", "recipe.toml"]));
}

/// Runs `check` on GOOD with more below it.
fn with(name: &str, more: &str, arguments: &[&str]) {
    let place = place();
    place.write("recipe.toml", &format!("{GOOD}{more}"));
    snapshot(name, &place.run(&[&["check", "recipe.toml"], arguments].concat()));
}

#[test]
fn help_pages() {
    let place = place();
    for command in
        ["train", "check", "diff", "plot", "sample", "ema", "list", "show", "inspect", "schema", "completions"]
    {
        snapshot(&format!("help-{command}"), &place.run(&[command, "--help"]));
    }
    snapshot("help", &place.run(&["--help"]));
}

#[test]
fn updates_that_cannot_be_are_refused() {
    with("bad-released", "gradients = \"released\"\naccumulate = 2\n", &["--set", "optimizer.type=prodigy"]);
    with("bad-two-averages", "[ema]\ntype = \"constant\"\n", &["--set", "optimizer.type=schedule-free-adamw"]);
    with("bad-group", "[[train.group]]\ntargets = []\nlr_factor = -1\n", &[]);
}

#[test]
fn list_and_show() {
    let place = place();
    snapshot("list-weighting", &place.run(&["list", "weighting"]));
    snapshot("list-schedule", &place.run(&["list", "schedule"]));
    snapshot("list-timesteps", &place.run(&["list", "timesteps"]));
    snapshot("list-lr", &place.run(&["list", "lr"]));
    snapshot("show-table", &place.run(&["show", "schedule", "table"]));
    snapshot("show-log-normal-sigma", &place.run(&["show", "timesteps", "log-normal-sigma"]));
    snapshot("list-unknown", &place.run(&["list", "wieghting"]));
    snapshot("list-optimizer", &place.run(&["list", "optimizer"]));
    snapshot("show-min-snr", &place.run(&["show", "weighting", "min-snr"]));
    snapshot("show-zero-terminal-json", &place.run(&["show", "schedule", "zero-terminal", "--json"]));
    snapshot("show-unknown", &place.run(&["show", "weighting", "min-srn"]));
    let list = place.run(&["list"]);
    for kind in [
        "schedule",
        "objective",
        "weighting",
        "timesteps",
        "distance",
        "noise",
        "ema",
        "adapter",
        "optimizer",
        "lr",
        "solver",
        "spacing",
        "family",
        "recipe",
    ] {
        assert!(list.contains(&format!("\n{kind}: ")) || list.contains(&format!("list\n{kind}: ")), "{kind} in {list}");
    }
}

#[test]
fn a_good_recipe() {
    with("check-good", "", &[]);
    with("check-good-json", "", &["--json"]);
    with("check-resolved", "", &["--resolved"]);
}

#[test]
fn two_recipes() {
    let place = place();
    let changed = "quickstart{weighting=\"min-snr\", lr.warmup_images=0}";
    snapshot("diff", &place.run(&["diff", "quickstart", changed]));
    snapshot("diff-none", &place.run(&["diff", "quickstart", "quickstart"]));
}

#[test]
fn pictures_that_cannot_be() {
    let place = place();
    for (name, arguments) in [
        ("kind", &["plot", "wieghting", "min-snr"] as &[&str]),
        ("no-picture", &["plot", "solver", "euler"]),
        ("plugin", &["plot", "weighting", "min-srn"]),
        ("field", &["plot", "weighting", "min-snr{gama=1}"]),
        ("toml", &["plot", "weighting", "min-snr{gamma=}"]),
        ("format", &["plot", "weighting", "min-snr", "--out", "w.pdf"]),
        (
            "too-many",
            &[
                "plot", "lr", "constant", "constant", "constant", "constant", "constant", "constant", "constant",
                "constant",
            ],
        ),
        ("no-average", &["plot", "ema", "none"]),
        (
            "no-weight",
            &[
                "plot",
                "weighting",
                "min-snr",
                "--schedule",
                "zero-terminal{of=\"scaled-linear\"}",
                "--objective",
                "epsilon",
            ],
        ),
        ("list", &["plot", "recipe", "quickstart{data.source=[{path=\"x\"}]}"]),
        ("check-format", &["check", "quickstart", "--plot", "w.pdf"]),
    ] {
        snapshot(&format!("plot-{name}"), &place.run(arguments));
    }
}

#[test]
fn a_conversion() {
    let convert =
        "[schedule]\ntype = \"zero-terminal\"\nof = { type = \"scaled-linear\" }\n[objective]\ntype = \"v\"\n";
    with("check-conversion", convert, &["--set", "model.convert=true"]);
    with("check-conversion-unsaid", convert, &[]);
    with("check-starved", &format!("{convert}[weighting]\ntype = \"min-snr\"\n"), &["--set", "model.convert=true"]);
    with(
        "check-late-start",
        &format!("{convert}[sampling]\nspacing = \"leading\"\n"),
        &["--set", "model.convert=true"],
    );
    with("check-nothing-converted", "", &["--set", "model.convert=true"]);
}

/// One picture with its mask, one whose mask is of another size.
#[test]
fn masks() {
    let place = place();
    for (name, width) in [("wide", 160), ("square", 64)] {
        let mask = image::GrayImage::from_pixel(width, 96, image::Luma([255]));
        mask.save(place.path(&format!("pictures/{name}.mask.png"))).expect("a mask");
    }
    let recipe = GOOD.replace("path = \"pictures\"", "path = \"pictures\"\nmask = \"file\"");
    place.write("recipe.toml", &format!("{recipe}mask = {{ outside = 0.1, normalise = \"by-area\" }}\n"));
    snapshot("check-masks", &place.run(&["check", "recipe.toml"]));
    place.write("recipe.toml", GOOD);
    snapshot("check-masks-idle", &place.run(&["check", "recipe.toml"]));
    with("bad-mask", "mask = { outside = 2.0 }\n", &[]);
}

#[test]
fn what_the_loss_is_made_of() {
    let learned = "[timesteps]\ntype = \"loss-aware\"\nof = \"uniform\"\n[weighting]\ntype = \"uncertainty\"\n[distance]\n\
                   type = \"huber\"\n[noise]\ntype = \"pyramid\"\n";
    with("check-learned", learned, &[]);
    let ends = "[schedule]\ntype = \"zero-terminal\"\nof = { type = \"scaled-linear\" }\n[objective]\ntype = \"v\"\n\
                [noise]\ntype = \"offset\"\n";
    with("check-noise-at-the-end", ends, &["--set", "model.convert=true"]);
    with("bad-distance", "[distance]\ntype = \"hubr\"\n", &[]);
}

#[test]
fn noise_of_other_papers() {
    let convert = &["--set", "model.convert=true"];
    let edm = "[schedule]\ntype = \"edm\"\n[timesteps]\ntype = \"log-normal-sigma\"\n";
    with("check-edm", &format!("{edm}[objective]\ntype = \"edm\"\n[weighting]\ntype = \"edm\"\n"), convert);
    with("check-large-input", &format!("{edm}[objective]\ntype = \"v\"\n"), convert);
    let flux = "[schedule]\ntype = \"flux-shift\"\n[objective]\ntype = \"flow\"\n[timesteps]\ntype = \"mode\"\n";
    with("check-size", flux, convert);
    let steep =
        "[schedule]\ntype = \"rectified-flow\"\n[objective]\ntype = \"flow\"\n[weighting]\ntype = \"sigma_sqrt\"\n";
    with("check-steep", steep, convert);
    with("check-rising", "[schedule]\ntype = \"table\"\nbetas = [0.1, 0.2, 1e-17]\n", convert);
    with("bad-table", "[schedule]\ntype = \"table\"\nfile = \"nothing.json\"\n", convert);
}

#[test]
fn what_a_flow_model_cannot_do() {
    let mut all = String::new();
    for set in [
        "objective=\"epsilon\"",
        "adapter.targets=[\"unet.*.attn*.to_q\"]",
        "model.without=[\"text_encoder_9\"]",
        "model.quantise={ unet = \"nf4\" }",
        "model.swap_blocks=9",
        "train.components={ text_encoder_4 = 1.0 }",
        "preview.height_px=108",
        "sampling.guidance=3.5",
    ] {
        let place = Place::new("sd3-a");
        let here = ["model.path=model", "data.source.0.path=pictures", "data.source.0.smallest_px=8"];
        let words: Vec<&str> = here.into_iter().chain([set]).flat_map(|word| ["--set", word]).collect();
        let said =
            place.run(&[&["check", "sd3-lora", "--set", "data.source.0.resolution_px=128"], &words[..]].concat());
        all += &format!("{set}\n{}\n", said.split_once("-- stderr --\n").map_or("nothing", |(_, errors)| errors));
    }
    snapshot("check-flow-refused", &all);
}

#[test]
fn a_refused_recipe() {
    let singular = "[schedule]\ntype = \"zero-terminal\"\nof = { type = \"scaled-linear\" }\n";
    with("refused-epsilon", singular, &["--set", "model.convert=true"]);
    let place = place();
    place.write("recipe.toml", &format!("{GOOD}{singular}"));
    snapshot("refused-train", &place.run(&["train", "recipe.toml", "--set", "model.convert=true"]));
}

#[test]
fn mistakes_in_a_recipe() {
    broken("bad-unknown-field", "batch = 2", "bacth = 2");
    broken("bad-unknown-table", "[train]", "[training]");
    broken("bad-type", "batch = 2", "batch = \"two\"");
    broken("bad-limit", "batch = 2", "batch = 0");
    broken("bad-missing-field", "images = 64", "seed = 1");
    broken("bad-missing-table", "[optimizer]\ntype = \"adamw\"\nlr = 1e-4\n", "");
    broken("bad-plugin", "adamw", "adamww");
    broken("bad-plugin-field", "lr = 1e-4", "learning_rate = 1e-4");
    broken("bad-toml", "batch = 2", "batch = = 2");
    broken(
        "bad-several",
        "images = 64",
        "image = 64\n[ema]\ntype = \"constant\"\ndecay = 2.0\n[weighting]\ntype = \"x\"",
    );
    broken("bad-model", "\"model\"", "\"modle\"");
    broken("bad-pictures", "\"pictures\"", "\"no-pictures\"");
    broken("bad-extends", "[model]", "extends = \"sdxl-lra\"\n[model]");
    with(
        "bad-nested-field",
        "[schedule]\ntype = \"zero-terminal\"\nof = { type = \"scaled-linear\", beta_strat = 1.0 }\n",
        &[],
    );
    let formula =
        |text: &str| format!("[weighting]\ntype = \"expr\"\non_x0 = \"{text}\"\nparams = {{ gamma = 5.0 }}\n");
    with("bad-formula", &formula("min(srn, gamma)"), &[]);
    with("bad-formula-value", &formula("snr - gamma"), &[]);
    with("bad-formula-number", &formula("snr"), &[]);
    with("bad-set", "", &["--set", "train.images=many", "--set", "traain.seed=1"]);
    with("bad-set-form", "", &["--set", "train.images"]);
}

#[test]
fn mistakes_in_other_syntaxes() {
    let place = place();
    let yaml = "model: {path: model}\noptimizer: {type: adamw}\ndata:\n  batch: 2\n  source: [{path: pictures, repeat: 2}]\ntrain:\n  images: 6.5\n";
    place.write("recipe.yaml", yaml).write("bad.yaml", "model: [1\ntrain: 2\n");
    let json = "{\"model\": {\"path\": \"model\"},\n \"optimizer\": {\"type\": \"adamw\"},\n \"data\": {\"batch\": 2, \"source\": [{\"path\": \"pictures\"}]},\n \"train\": {\"imagse\": 6}}\n";
    place.write("recipe.json", json).write("bad.json", "{\"model\": }\n");
    for (name, file) in [
        ("bad-yaml-fields", "recipe.yaml"),
        ("bad-yaml", "bad.yaml"),
        ("bad-json-fields", "recipe.json"),
        ("bad-json", "bad.json"),
    ] {
        snapshot(name, &place.run(&["check", file]));
    }
}

#[test]
fn files_that_are_not_there_or_not_what_they_seem() {
    let place = place();
    place.write("cut.safetensors", "\u{10}\0\0\0\0\0\0\0{\"a\":").write("empty.safetensors", "");
    place.write("huge.safetensors", "\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}{}");
    for (name, file) in [
        ("missing", "nothing"),
        ("cut", "cut.safetensors"),
        ("empty", "empty.safetensors"),
        ("hostile", "huge.safetensors"),
        ("no-model", "pictures"),
    ] {
        snapshot(&format!("inspect-{name}"), &place.run(&["inspect", file]));
    }
    snapshot("inspect-model", &place.run(&["inspect", "model"]));
    snapshot("check-missing", &place.run(&["check", "nothing.toml"]));
    snapshot("train-missing", &place.run(&["train", "quikstart"]));
    snapshot("usage", &place.run(&["train"]));
    snapshot("usage-device", &place.run(&["train", "x", "--device", "gpu"]));
}

#[test]
fn averages_that_cannot_be_rebuilt() {
    let place = place();
    place.write("recipe.toml", GOOD);
    for (name, arguments) in [
        ("no-run", &["ema", "pictures", "--sigma-rel", "0.07"][..]),
        ("no-snapshots", &["ema", ".", "--sigma-rel", "0.07"]),
        ("width", &["ema", ".", "--sigma-rel", "0.4"]),
        ("scan", &["ema", ".", "--scan", "0.2..0.1"]),
        ("nothing-asked", &["ema", "."]),
    ] {
        snapshot(&format!("ema-{name}"), &place.run(arguments));
    }
    with("bad-widths", "[ema]\ntype = \"post-hoc\"\nsigma_rel = [0.05, 0.05]\n", &[]);
    with("check-post-hoc", "[ema]\ntype = \"post-hoc\"\n", &[]);
}

#[test]
fn lora_files_are_told_apart() {
    use candle_core::{DType, Device, Tensor};
    let place = place();
    let tensor = |shape: (usize, usize)| Tensor::zeros(shape, DType::F16, &Device::Cpu).expect("a tensor");
    let mut peft = std::collections::BTreeMap::new();
    for block in 0..2 {
        let layer = format!("unet.down_blocks.{block}.attentions.0.transformer_blocks.0.attn1.to_q");
        peft.insert(format!("{layer}.lora_A.weight"), tensor((4, 32)));
        peft.insert(format!("{layer}.lora_B.weight"), tensor((32, 4)));
    }
    let header = [("sconce.recipe".to_owned(), "[train]\nimages = 1\n".to_owned())].into();
    sconce::nn::weights::save(&place.path("peft.safetensors"), &peft, &header).expect("saved");
    snapshot("inspect-lora", &place.run(&["inspect", "peft.safetensors"]));
    snapshot("inspect-lora-json", &place.run(&["inspect", "peft.safetensors", "--json"]));
    snapshot("inspect-recipe", &place.run(&["inspect", "peft.safetensors", "--recipe"]));
}

#[test]
fn completions_are_scripts() {
    let place = place();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = place.run(&["completions", shell]);
        assert!(script.contains("inspect") && script.ends_with("-- exit 0 --\n"), "{shell}");
    }
}
