//! A frozen model in few bits with a LoRA on top: how far one call and the LoRA's gradients move from those of the whole
//! numbers, by format; and that the gradients are exactly those of the network whose weights are the unpacked ones, from
//! wherever its blocks are kept.

#[path = "common/case.rs"]
mod case;
#[path = "common/formula.rs"]
mod formula;

use std::collections::BTreeMap;

use candle_core::{DType, Result, Tensor};
use case::{Case, options, relative};
use sconce_core::Cond;
use sconce_core::adapter::Adapter;
use sconce_core::model::{LoadOptions, Model, Recompute};
use sconce_core::recipe::family;
use sconce_core::train::matches;
use sconce_nn::checkpoint::{backward, on_big_stack};
use sconce_nn::quant::Format;
use sconce_nn::weights::save;
use sconce_sdk::Choice;
use serde_json::json;

use sconce as _;

const DENOISER: &str = "transformer";

/// The output of the transformer with a LoRA on its attentions and feed-forwards, and all gradients of the LoRA, end to end.
fn with_lora(case: &Case, model: &dyn Model) -> Result<[Tensor; 2]> {
    let table =
        json!({ "type": "lora", "rank": 3, "targets": ["transformer.*.attn*.to_*", "transformer.*.ff*.net.*"] });
    let adapter = Choice::<dyn Adapter>::from_table(&table).unwrap();
    let mut vars = Vec::new();
    for layer in model.backbone().store().layers() {
        if !adapter.targets().iter().any(|t| matches(t, &format!("{DENOISER}.{}", layer.path()))) {
            continue;
        }
        let shape = layer.weight().shape().into_dims();
        let value = |short: &str, dims: [usize; 2]| -> Result<(String, Tensor)> {
            let values = formula::fill("lora", &format!("{}.{short}", layer.path()), &dims);
            Ok((short.to_owned(), (Tensor::from_vec(values, dims.as_slice(), &case::device())? * 0.3)?))
        };
        let tensors = BTreeMap::from([value("lora_A.weight", [3, shape[1]])?, value("lora_B.weight", [shape[0], 3])?]);
        let attached = adapter.restore(DENOISER, &layer, &tensors, &BTreeMap::new(), 1.0)?;
        for param in attached.params.values() {
            vars.push(param.train()?);
        }
        layer.attach(attached.layer);
    }
    let get = |key: &str| case.expected(&format!("transformer.{key}"));
    let mut cond = Cond::default().with("context", get("context")?).with("pooled", get("pooled")?);
    if model.native().guidance.is_some() {
        cond = cond.with("guidance", get("guidance")?);
    }
    let out = model.backbone().forward(&get("x")?, &get("t")?, &cond)?.to_dtype(DType::F32)?;
    let loss = (&out - case.expected("grad.target")?)?.sqr()?.mean_all()?;
    let grads = backward(&loss)?;
    let flat = vars.iter().map(|var| grads.get(var.as_tensor()).expect("every part trains").flatten_all());
    Ok([out.detach(), Tensor::cat(&flat.collect::<Result<Vec<_>>>()?, 0)?])
}

fn load(case: &Case, how: LoadOptions) -> Result<Box<dyn Model>> {
    family(case.path(), None).unwrap().load(case.path(), &how)
}

fn packed(format: Format) -> LoadOptions {
    LoadOptions { packed: BTreeMap::from([(DENOISER.to_owned(), format)]), ..options(DType::F32) }
}

/// Puts the weights that a model computes with into its case's file.
fn write_unpacked(case: &Case, model: &dyn Model) -> Result<()> {
    let params = model.backbone().store().params();
    let weights = params.iter().map(|p| Ok((p.name().to_owned(), p.tensor()?))).collect::<Result<BTreeMap<_, _>>>()?;
    save(&case.path().join(DENOISER).join("diffusion_pytorch_model.safetensors"), &weights, &BTreeMap::new())
}

#[test]
fn gradients_are_right_to_the_quantisation() -> Result<()> {
    on_big_stack(|| {
        for name in ["sd3-a", "sd3-c", "flux-a"] {
            let keys = case::json(case::data(name, "keys.json"));
            let components: Vec<&str> = keys.as_object().unwrap().keys().map(String::as_str).collect();
            let case = Case::new(name, &components)?;
            let whole = with_lora(&case, &*load(&case, options(DType::F32))?)?;
            let half = with_lora(&case, &*load(&case, options(DType::BF16))?)?;
            let [out, grads] = [0, 1].map(|i| relative(&half[i], &whole[i]));
            println!("{name} bf16: output {:.1e}, gradients {:.1e}", out?, grads?);
            // Of a call and of the gradients: about twice what was measured.
            for (format, most) in [(Format::Int8, 0.03), (Format::Fp8, 0.13), (Format::Nf4, 0.5)] {
                let case = Case::new(name, &components)?;
                let model = load(&case, packed(format))?;
                let [plain, hosted] = [model.backbone().store().bytes(), {
                    let hosted = LoadOptions { swap_blocks: 2, ..packed(format) };
                    let model = load(&case, hosted)?;
                    model.backbone().recompute(Recompute::Blocks);
                    let [out, grads] = with_lora(&case, &*model)?;
                    let [own_out, own_grads] = with_lora(&case, &*load(&case, packed(format))?)?;
                    assert!(relative(&out, &own_out)? < 1e-6, "{name} {format:?}: swapping changes the output");
                    assert!(relative(&grads, &own_grads)? < 1e-5, "{name} {format:?}: swapping changes gradients");
                    model.backbone().store().bytes()
                }];
                assert!(hosted[0] < plain[0] && hosted[1] > 0, "{name} {format:?}: {plain:?} {hosted:?}");
                let [out, grads] = with_lora(&case, &*model)?;
                let [of_out, of_grads] = [relative(&out, &whole[0])?, relative(&grads, &whole[1])?];
                println!("{name} {}: output {of_out:.1e}, gradients {of_grads:.1e}", format.name());
                assert!(of_out > 1e-4 && of_out < most && of_grads < most, "{name} {format:?}: {of_out} {of_grads}");
                write_unpacked(&case, &*model)?;
                let [exact_out, exact] = with_lora(&case, &*load(&case, options(DType::F32))?)?;
                assert!(relative(&out, &exact_out)? < 1e-6, "{name} {format:?}");
                assert!(
                    relative(&grads, &exact)? < 1e-5,
                    "{name} {format:?}: gradients differ from the unpacked weights'"
                );
            }
        }
        Ok(())
    })
}
