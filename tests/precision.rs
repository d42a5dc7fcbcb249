//! A run that computes in bf16 loses nothing of the weights that it was given: masters start from what the files hold, and
//! what does not train is saved as it was.

#[path = "common/run.rs"]
mod run;

use candle_core::{DType, Device, Result};
use run::Bench;
use sconce_models::diffusers::weight_files;
use sconce_nn::weights::WeightFiles;

#[test]
fn a_fine_tune_in_bf16_keeps_what_it_does_not_change() -> Result<()> {
    let bench = Bench::new("");
    let model = format!("{}/configs/quickstart/model", env!("CARGO_MANIFEST_DIR"));
    let recipe = std::fs::read_to_string(bench.path("recipe.toml")).expect("a recipe");
    let (_, rest) = recipe.split_once("random_seed = 3\n").expect("a seed");
    let recipe = format!("[model]\npath = {model:?}\ndtype = \"bf16\"\n{rest}");
    std::fs::write(bench.path("recipe.toml"), recipe).expect("a recipe");
    bench.train("run", &["--set", "optimizer.lr=0", "--set", "train.images=3", "--set", "output.dtype=f32"]);
    for component in ["unet", "vae", "text_encoder", "text_encoder_2"] {
        let open = |dir: &std::path::Path| WeightFiles::open(&weight_files(&dir.join(component))?);
        let (before, after) = (open(model.as_ref())?, open(&bench.path("run/model"))?);
        assert!(before.keys().eq(after.keys()), "{component}");
        for key in before.keys() {
            let read =
                |files: &WeightFiles| files.tensor(key, DType::F32, &Device::Cpu)?.flatten_all()?.to_vec1::<f32>();
            assert_eq!(read(&before)?, read(&after)?, "{component}: {key}");
        }
    }
    Ok(())
}
