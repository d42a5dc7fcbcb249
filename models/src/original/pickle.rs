//! Old `.ckpt` files. Their pickle is read for what tensors it names; nothing in it is run. The tensors are copied once into
//! a safetensors file in the user's cache, and from there on it is a single file like any other.

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use candle_core::pickle::PthTensors;
use candle_core::{DType, Error, Result, bail};
use sconce_core::embedded::{Opener, cache_home, identity, once};
use sconce_nn::weights::save_each;

use super::file::prepare;

inventory::submit!(Opener { opens: is_pickled, folder: |path, others| prepare(&unpickled(path)?, others) });

/// True for a file that is named as pickled ones are.
pub fn is_pickled(path: &Path) -> bool {
    path.extension().is_some_and(|e| ["ckpt", "pt", "pth"].iter().any(|known| e == *known))
}

/// The safetensors file that holds what a pickled checkpoint holds.
///
/// # Errors
/// If it is no such file, or says more than it can hold.
pub fn unpickled(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).map_err(|e| Error::Msg(format!("{}: {e}", path.display())))?;
    let stem = path.file_stem().map_or_else(|| "model".into(), |s| s.to_string_lossy().into_owned());
    let name = format!("{stem}.safetensors");
    let folder =
        once(&cache_home()?.join("sconce/unpickled"), &stem, &identity(&path)?, |to| copy(&path, &to.join(&name)))?;
    Ok(folder.join(name))
}

/// What the reader says. It counts on whole pickles in places, where a damaged one makes it panic: that is an error, too.
fn whole<T>(read: impl FnOnce() -> Result<T>) -> Result<T> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let done = panic::catch_unwind(AssertUnwindSafe(read));
    panic::set_hook(hook);
    done.unwrap_or_else(|_| Err(Error::Msg("its pickle is damaged".into())))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let what = from.display();
    let wrong = |e: Error| {
        let why = sconce_core::message(&e);
        Error::Msg(format!("{what}: no checkpoint of PyTorch 1.6 or later that can be read without running it ({why})"))
    };
    // Trainers put the weights under `state_dict`, beside their own state.
    let file = match whole(|| PthTensors::new(from, Some("state_dict"))) {
        Ok(file) => file,
        Err(_) => whole(|| PthTensors::new(from, None)).map_err(wrong)?,
    };
    let size = std::fs::metadata(from).map_err(|e| Error::Msg(format!("{what}: {e}")))?.len();
    let mut plan: BTreeMap<String, (DType, Vec<usize>)> = BTreeMap::new();
    let mut bytes = 0u64;
    for (name, info) in file.tensor_infos() {
        let shape = info.layout.dims().to_vec();
        let count = shape.iter().try_fold(1u64, |n, side| n.checked_mul(*side as u64));
        let Some(own) = count.and_then(|n| n.checked_mul(info.dtype.size_in_bytes() as u64)) else {
            bail!("{what}: `{name}` has shape {shape:?}");
        };
        if info.layout.start_offset() > 0 || !(info.layout.is_contiguous() || info.layout.is_fortran_contiguous()) {
            bail!("{what}: `{name}` is a part of another tensor: save the checkpoint again as safetensors");
        }
        bytes = bytes.saturating_add(own);
        plan.insert(name.clone(), (info.dtype, shape));
    }
    if plan.is_empty() {
        bail!("{what}: it names no tensors");
    }
    if bytes > size {
        bail!(
            "{what}: its tensors would be {bytes} bytes and the file has {size}: it is packed, or was made to fill memory"
        );
    }
    save_each(to, &plan, &BTreeMap::new(), |name| match whole(|| file.get(name)).map_err(wrong)? {
        Some(tensor) => tensor.contiguous(),
        None => bail!("{what}: no tensor `{name}`"),
    })
}
