//! Old checkpoints: what PyTorch pickled is read as it is, and nothing that a pickle says is done.

#[path = "common/work.rs"]
mod work;

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Result, Tensor};
use sconce_nn::weights::WeightFiles;
use work::{Work, text};

/// What inspecting a fixture says, and whether it went well.
fn inspect(work: &Work, name: &str) -> (bool, String) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data/pickled").join(name);
    let output = work.sconce(&["inspect", "--json", text(&file)]);
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// The weights that it was made into.
fn made(work: &Work) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(work.path("home/sconce/unpickled")).into_iter().flatten().flatten();
    let files = |f: std::fs::DirEntry| std::fs::read_dir(f.path()).into_iter().flatten().flatten().map(|e| e.path());
    folders.flat_map(files).collect()
}

#[test]
fn tensors_come_out_as_they_went_in() -> Result<()> {
    for name in ["trainer.ckpt", "plain.pt"] {
        let place = Work::new();
        let (good, said) = inspect(&place, name);
        assert!(good, "{said}");
        let made = made(&place);
        let [file] = made.as_slice() else { panic!("{name}: {made:?}") };
        let weights = WeightFiles::open(&[file])?;
        assert_eq!(weights.keys().collect::<Vec<_>>(), ["bf16", "f16", "f32", "i64", "turned"], "{name}");
        let number = Tensor::arange(0f32, 12.0, &Device::Cpu)?.reshape((3, 4))?;
        let seventh = (&number / 7.0)?;
        for (key, dtype) in [("f32", DType::F32), ("f16", DType::F16), ("bf16", DType::BF16)] {
            let (got, want) = (weights.stored(key, &Device::Cpu)?, seventh.to_dtype(dtype)?);
            assert_eq!(got.dtype(), dtype, "{name}: {key}");
            // PyTorch divides in the narrow type, and this multiplies by the inverse: the last bit may be another.
            let off = (got.to_dtype(DType::F32)? - want.to_dtype(DType::F32)?)?.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(off <= if dtype == DType::F32 { 1e-6 } else { 8e-3 }, "{name}: {key}: {off}");
        }
        let i64s = weights.tensor("i64", DType::I64, &Device::Cpu)?.flatten_all()?.to_vec1::<i64>()?;
        assert_eq!(i64s, (0..12).collect::<Vec<i64>>(), "{name}");
        let turned = weights.stored("turned", &Device::Cpu)?;
        let straight = weights.stored("f32", &Device::Cpu)?;
        assert_eq!(turned.to_vec2::<f32>()?, straight.t()?.contiguous()?.to_vec2::<f32>()?, "{name}");
    }
    Ok(())
}

#[test]
fn nothing_in_a_pickle_is_run() {
    let place = Work::new();
    let (_, said) = inspect(&place, "evil.ckpt");
    assert!(!place.path("pickle-was-run").exists(), "{said}");
    assert!(!Path::new("pickle-was-run").exists());
}

#[test]
fn what_cannot_be_read_right_is_refused() {
    // The third is one that the fuzz target found: an index beyond a list's end in the pickle.
    for (name, why) in [
        ("large.ckpt", "made to fill memory"),
        ("part.ckpt", "a part of another tensor"),
        ("damaged.ckpt", "its pickle is damaged"),
    ] {
        let place = Work::new();
        let (good, said) = inspect(&place, name);
        assert!(!good && said.contains(why) && !said.contains("panicked"), "{name}: {said}");
        assert!(made(&place).is_empty(), "{name}");
    }
    let place = Work::new();
    let text = place.path("text.ckpt");
    std::fs::write(&text, "not a checkpoint").expect("a file");
    let (good, said) = inspect(&place, text.to_str().expect("a plain name"));
    assert!(!good && said.contains("no checkpoint of PyTorch"), "{said}");
}
