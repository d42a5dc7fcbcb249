//! What types cannot say about the plain tables: counts that must not be zero, shares within [0, 1].

use candle_core::{DType, Device, Result, Var};

use super::convert::Convert;
use super::tables::{Gradients, MaskFrom, Recipe, Task};
use crate::optimizer::{Needs, Trained};
use crate::words::file_name;

/// Fields out of their limits, with what the limit is.
pub(super) fn broken(recipe: &Recipe) -> Vec<(String, String)> {
    let mut broken = Vec::new();
    let mut demand = |holds: bool, field: String, limit: &str| {
        if !holds {
            broken.push((field, limit.to_owned()));
        }
    };
    let Recipe { data, train, sampling, .. } = recipe;
    let share = |s: f64| (0.0..=1.0).contains(&s);
    demand(data.batch > 0, "data.batch".into(), "must be 1 or more");
    demand(!data.source.is_empty(), "data.source".into(), "names no folder of pictures");
    demand(share(data.caption_dropout), "data.caption_dropout".into(), "is a share: from 0 to 1");
    for (i, source) in data.source.iter().enumerate() {
        let field = |name| format!("data.source.{i}.{name}");
        demand(source.repeats > 0, field("repeats"), "must be 1 or more (to leave a folder out, remove its table)");
        let side = source.resolution_px;
        demand(side.is_none_or(|px| (8..=16384).contains(&px)), field("resolution_px"), "must be from 8 to 16384");
        demand(
            source.caption.contains("{caption}")
                || !source.caption.contains('{')
                || source.caption.contains("{ground}"),
            field("caption"),
            "has braces around something else than `caption` and `ground`",
        );
    }
    demand(train.images > 0, "train.images".into(), "must be 1 or more");
    demand(train.seed <= i64::MAX as u64, "train.seed".into(), "must be below 2^63, the largest whole number in TOML");
    demand(
        !matches!(recipe.model.convert, Convert::Fading(fading) if fading.over_images > train.images),
        "model.convert.over_images".into(),
        "is more than train.images: the run would end in a network that no program can read",
    );
    demand(
        train.adapter_from.is_none() || recipe.adapter.is_some(),
        "train.adapter_from".into(),
        "is for runs that train an adapter: add an [adapter] table, or take it out",
    );
    for (i, token) in train.token.iter().enumerate() {
        let field = |name| format!("train.token.{i}.{name}");
        let text = token.text.trim();
        demand(
            !text.is_empty() && text == token.text,
            field("text"),
            "is no word: it is empty, or has spaces around it",
        );
        let twice = train.token[..i].iter().any(|other| other.text.eq_ignore_ascii_case(text));
        let file = file_name(text);
        let twice = twice || train.token[..i].iter().any(|other| file_name(&other.text) == file);
        demand(!twice, field("text"), "is there twice, or would have the same file as another");
        demand(
            token.start.is_some() != token.from.is_some(),
            field("start"),
            "or `from`: one of them says what the word is at the start",
        );
        demand(token.vectors.is_none_or(|n| (1..=75).contains(&n)), field("vectors"), "must be from 1 to 75");
        let takes = token.vectors.is_none() || token.from.is_none();
        demand(takes, field("vectors"), "are as many as the file of `from` has: leave it out");
        let rate = token.lr_factor;
        demand(rate.is_finite() && rate >= 0.0, field("lr_factor"), "must be 0 or more");
        demand(
            rate > 0.0 || token.from.is_some(),
            field("lr_factor"),
            "is 0, and there is no `from`: nothing is learned",
        );
        demand(train.task == Task::Denoiser, field("text"), "is for runs of the denoiser, which captions condition");
    }
    if let Some(adapter) = &recipe.adapter {
        for (i, layout) in recipe.output.adapter_layouts.iter().enumerate() {
            let strange = adapter.tensors().into_iter().find(|short| !layout.carries(short));
            let limit = format!(
                "`{}` has no name for the `{}` of the adapter `{}`: take a layout that its readers know, or leave it out",
                layout.name(),
                strange.unwrap_or_default(),
                adapter.name()
            );
            demand(strange.is_none(), format!("output.adapter_layouts.{i}"), &limit);
        }
    }
    demand(recipe.output.shard_mb.is_none_or(|mb| mb > 0), "output.shard_mb".into(), "must be 1 or more");
    demand(train.accumulate > 0, "train.accumulate".into(), "must be 1 or more");
    demand(train.keep > 0, "train.keep".into(), "must be 1 or more: the last checkpoint is the result");
    let masks = data.source.iter().any(|s| s.mask != MaskFrom::None);
    if let Some(mask) = &train.mask {
        demand(share(mask.outside), "train.mask.outside".into(), "is a share: from 0 to 1");
        demand(masks, "train.mask".into(), "is for pictures with masks: say where they are in data.source.mask");
    }
    demand(
        !masks || train.task == Task::Denoiser,
        "data.source.0.mask".into(),
        "an autoencoder trains on whole pictures: leave masks out",
    );
    demand(train.clip_norm >= 0.0, "train.clip_norm".into(), "must be 0 (not at all) or more");
    for (i, group) in train.group.iter().enumerate() {
        let field = |name| format!("train.group.{i}.{name}");
        demand(!group.targets.is_empty(), field("targets"), "names no parameters");
        demand(group.lr_factor.is_finite() && group.lr_factor >= 0.0, field("lr_factor"), "must be 0 or more");
        demand(
            group.weight_decay.is_none_or(|d| d.is_finite() && d >= 0.0),
            field("weight_decay"),
            "must be 0 or more",
        );
    }
    if train.gradients == Gradients::Released {
        let field = || "train.gradients".to_owned();
        let clips = "cannot be `released` while train.clip_norm is above 0: the norm of all gradients is known after the \
                     last of them, when the weights have moved; set train.clip_norm = 0";
        demand(train.clip_norm == 0.0, field(), clips);
        let sums = "cannot be `released` while train.accumulate is above 1: the sum over batches would have to be kept; \
                    set train.accumulate = 1";
        demand(train.accumulate == 1, field(), sums);
        let all = "cannot be `released` with this optimizer, which needs all gradients before it moves any weight";
        demand(recipe.optimizer.needs() == Needs::OwnGradient, field(), all);
    }
    let twice = "cannot be kept beside that of the optimizer, whose average is the weights to keep; set ema = \"none\"";
    let keeps = !recipe.ema.tracks().is_empty();
    match averages(recipe) {
        Ok(own) => demand(!(keeps && own), "ema".into(), twice),
        Err(e) => demand(false, "optimizer".into(), &crate::message(&e)),
    }
    if let Some(autoencoder) = &train.autoencoder {
        demand(autoencoder.kl_weight >= 0.0, "train.autoencoder.kl_weight".into(), "must be 0 or more");
        demand(
            autoencoder.first_log_variance.is_none() || recipe.model.random_seed.is_some(),
            "train.autoencoder.first_log_variance".into(),
            "is for an autoencoder that starts from nothing: set model.random_seed, or leave it out",
        );
        let side = autoencoder.crop_px;
        demand(
            side.is_none_or(|px| px > 0 && px % 8 == 0),
            "train.autoencoder.crop_px".into(),
            "must be a multiple of 8",
        );
    }
    for (name, factor) in &train.components {
        demand(factor.is_finite() && *factor >= 0.0, format!("train.components.{name}"), "must be 0 or more");
    }
    if let Some(validation) = &recipe.validation {
        let share = validation.share;
        demand(share > 0.0 && share < 1.0, "validation.share".into(), "is a share: above 0 and below 1");
        demand(validation.every_images > 0, "validation.every_images".into(), "must be 1 or more");
        demand(validation.quantiles > 0, "validation.quantiles".into(), "must be 1 or more");
    }
    if let Some(preview) = &recipe.preview {
        demand(
            !preview.prompts.is_empty() || recipe.train.task == Task::Autoencoder,
            "preview.prompts".into(),
            "names no prompt (for no previews: preview = false)",
        );
    }
    if let Some(preview) = recipe.preview.as_ref().filter(|p| !p.measure_grounds.is_empty()) {
        demand(
            !preview.measure_captions.is_empty(),
            "preview.measure_captions".into(),
            "is empty: name what is drawn on the grounds",
        );
    }
    demand(sampling.steps > 0, "sampling.steps".into(), "must be 1 or more");
    demand(sampling.cfg.is_finite() && sampling.cfg >= 0.0, "sampling.cfg".into(), "must be 0 or more");
    for (field, scale) in [("sampling.guidance", sampling.guidance), ("train.guidance", train.guidance)] {
        demand(scale.is_none_or(|g| g.is_finite() && g >= 0.0), field.into(), "must be 0 or more");
    }
    demand(
        recipe.model.max_sequence_length.is_none_or(|n| (2..=4096).contains(&n)),
        "model.max_sequence_length".into(),
        "must be from 2 to 4096 tokens",
    );
    demand(share(sampling.cfg_rescale), "sampling.cfg_rescale".into(), "is a share: from 0 to 1");
    broken
}

/// True if the weights to keep are not those that the optimizer trains. An error where it cannot train at the recipe's rates.
fn averages(recipe: &Recipe) -> Result<bool> {
    let components = &recipe.train.components;
    let components: Vec<f64> = if components.is_empty() { vec![1.0] } else { components.values().copied().collect() };
    let groups = recipe.train.group.iter().map(|g| g.lr_factor).chain([1.0]);
    let trained = |factor: f64| {
        let var = Var::zeros(1, DType::F32, &Device::Cpu)?;
        Ok(Trained { lr_factor: factor, ..Trained::new("weight", var) })
    };
    let each = |component: &f64| groups.clone().map(|group| trained(component * group)).collect::<Vec<_>>();
    let params = components.iter().flat_map(each).collect::<Result<_>>()?;
    Ok(recipe.optimizer.start(params)?.averaged()?.is_some())
}
