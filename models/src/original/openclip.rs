//! The names of OpenCLIP's text encoder, which Stable Diffusion 2 and XL keep in their single files, from those of
//! transformers. Queries, keys and values are rows of one matrix there, and the projection is the other way round.

use super::{Form, Place};

/// The original of a parameter.
pub(super) fn original(name: &str) -> Option<Place> {
    let same = |key: String| Some(Place { key, part: 0, form: Form::Same });
    match name {
        "text_projection.weight" => {
            return Some(Place { key: "text_projection".into(), part: 0, form: Form::Transposed });
        }
        "text_model.embeddings.token_embedding.weight" => return same("token_embedding.weight".into()),
        "text_model.embeddings.position_embedding.weight" => return same("positional_embedding".into()),
        _ => {}
    }
    if let Some(end) = name.strip_prefix("text_model.final_layer_norm.") {
        return same(format!("ln_final.{end}"));
    }
    let (block, inner) = name.strip_prefix("text_model.encoder.layers.")?.split_once('.')?;
    let (layer, end) = inner.rsplit_once('.')?;
    let block = format!("transformer.resblocks.{block}");
    let fused = |part| Some(Place { key: format!("{block}.attn.in_proj_{end}"), part, form: Form::Same });
    match layer {
        "self_attn.q_proj" => fused(0),
        "self_attn.k_proj" => fused(1),
        "self_attn.v_proj" => fused(2),
        "self_attn.out_proj" => same(format!("{block}.attn.out_proj.{end}")),
        "layer_norm1" => same(format!("{block}.ln_1.{end}")),
        "layer_norm2" => same(format!("{block}.ln_2.{end}")),
        "mlp.fc1" => same(format!("{block}.mlp.c_fc.{end}")),
        "mlp.fc2" => same(format!("{block}.mlp.c_proj.{end}")),
        _ => None,
    }
}
