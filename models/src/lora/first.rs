//! The layout of the first LoRA repository for Stable Diffusion (2022): layers are numbered in the order in which PyTorch goes
//! through the modules, `unet:0:down`, `text_encoder:3:up`; learned tokens (`<s1>`) may stand beside them.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Result, Tensor, bail};
use sconce_core::adapter::{AdapterLayout, Saved};
use sconce_nn::Store;
use sconce_nn::weights::WeightFiles;
use sconce_sdk::prelude::*;

use super::{DOWN, UP};
use crate::text::clip;

/// The first LoRA repository's layout. It is read, and not written: nothing loads it any more.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct First {}

impl AdapterLayout for First {
    fn write(&self, _: &[Arc<Store>], _: &[Saved]) -> Result<BTreeMap<String, Tensor>> {
        bail!("the first LoRA layout is read alone: take peft or kohya")
    }

    fn carries(&self, _: &str) -> bool {
        false
    }

    fn read(&self, stores: &[Arc<Store>], file: &WeightFiles) -> Result<Option<Vec<Saved>>> {
        let parse = |key: &str| {
            let (rest, end) = key.rsplit_once(':')?;
            let short = match end {
                "down" => DOWN,
                "up" => UP,
                _ => return None,
            };
            rest.split_once(':').map(|_| (rest.to_owned(), short))
        };
        let orders: BTreeMap<&str, Vec<String>> = super::adaptable(stores).map(|s| (s.component(), order(s))).collect();
        let find = |name: &str| {
            let (component, number) = name.split_once(':')?;
            let path = orders.get(component)?.get(number.parse::<usize>().ok()?)?;
            Some((component.to_owned(), path.clone()))
        };
        super::grouped(file, parse, find)
    }
}

/// The adapted layers' paths in PyTorch's order: attentions and the feed-forwards' gated layers, block by block.
fn order(store: &Store) -> Vec<String> {
    let layers = store.layers();
    let paths: Vec<&str> = layers.iter().map(|l| l.path()).collect();
    let mut order = Vec::new();
    if store.component().starts_with("text_encoder") {
        for i in 0..clip::layers(store) {
            // As CLIPAttention makes them.
            for layer in ["k_proj", "v_proj", "q_proj", "out_proj"] {
                order.push(format!("text_model.encoder.layers.{i}.self_attn.{layer}"));
            }
        }
        return order;
    }
    // The middle is made after both sides.
    let side = |p: &str| ["down_blocks", "up_blocks", "mid_block"].iter().position(|s| p.starts_with(s));
    let numbers = |p: &str| p.split('.').filter_map(|part| part.parse::<usize>().ok()).collect::<Vec<_>>();
    let mut blocks: Vec<(usize, Vec<usize>, String)> = Vec::new();
    for path in paths.iter().filter(|p| p.ends_with(".attn1.to_q")) {
        let block = path.trim_end_matches(".attn1.to_q");
        blocks.extend(side(block).map(|side| (side, numbers(block), block.to_owned())));
    }
    blocks.sort();
    for (_, _, block) in blocks {
        let attention =
            |name: &str| ["to_q", "to_k", "to_v", "to_out.0"].map(|layer| format!("{block}.{name}.{layer}"));
        order.extend(attention("attn1"));
        order.push(format!("{block}.ff.net.0.proj"));
        order.extend(attention("attn2"));
    }
    order
}

register!(AdapterLayout, "lora-first", First);
