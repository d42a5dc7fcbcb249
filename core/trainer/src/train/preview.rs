//! Pictures of how far a run is. Before the first step they are drawn as the checkpoint itself asks for (its own
//! schedule, objective, solver and spacing), afterwards as the run trains, so that a converted model is compared with
//! what it was and not with noise.

use std::path::{Path, PathBuf};

use candle_core::{Error, Result, Tensor};
use image::{Rgb, RgbImage};
use sconce_nn::rng::Stream;
use sconce_sdk::{Choice, Kind, Objective, ParamError, Schedule, Spacing};
use serde_json::Value;

use super::run::Job;
use crate::hub::{self, Needs};
use crate::model::{Conditioner, Geometry};
use crate::network::{Conversion, Network};
use crate::recipe::{PreviewTable, SamplingTable};
use crate::sample::{Sampler, decode, pictures};
use crate::solver::Solver;

/// The gap between pictures on a sheet, in pixels.
const GAP: u32 = 2;

/// Mean luminance where the picture should be plain ground.
#[derive(Clone, Debug, PartialEq)]
pub struct GroundLuminance {
    /// The ground's word in captions.
    pub ground: String,
    /// Of the pictures drawn, 0 to 1.
    pub drawn: f64,
    /// Of the data.
    pub data: f64,
}

/// How pictures are sampled at one point of a run.
struct How {
    schedule: Choice<dyn Schedule>,
    objective: Choice<dyn Objective>,
    conversion: Option<Conversion>,
    sampling: SamplingTable,
}

impl How {
    /// As the checkpoint asks for, or as the run trains.
    fn at(job: &Job, images: u64) -> Result<Self> {
        let recipe = job.recipe;
        let (schedule, objective) = (recipe.schedule.clone(), recipe.objective.clone());
        let native = job.model.native();
        if images > 0 {
            let conversion = recipe.model.conversion(native, images)?;
            return Ok(Self { schedule, objective, conversion, sampling: recipe.sampling.clone() });
        }
        let sampling = SamplingTable {
            solver: own::<dyn Solver>(&native.solver)?,
            spacing: own::<dyn Spacing>(&native.spacing)?,
            ..recipe.sampling.clone()
        };
        Ok(Self { schedule: own(&native.schedule)?, objective: own(&native.objective)?, conversion: None, sampling })
    }
}

fn own<K: Kind + ?Sized>(table: &Value) -> Result<Choice<K>> {
    Choice::from_table(table).map_err(|e: ParamError| Error::Msg(format!("the checkpoint's own settings: {e}")))
}

/// Draws the recipe's prompts into one sheet. `asked` is called when the encoders have said all that they are asked.
pub(super) fn draw(job: &Job, text: &dyn Conditioner, asked: &dyn Fn(), images: u64, to: &Path) -> Result<()> {
    let Some(table) = job.recipe.preview.as_ref().filter(|t| !t.prompts.is_empty()) else { return Ok(()) };
    let prompts: Vec<&str> = table.prompts.iter().map(String::as_str).collect();
    write_sheet(&[sampled(job, text, asked, &How::at(job, images)?, table, &prompts, "preview noise")?], to)
}

/// Draws pictures on the grounds that the recipe names, and measures their corners.
pub(super) fn measure(
    job: &Job,
    text: &dyn Conditioner,
    asked: &dyn Fn(),
    images: u64,
) -> Result<Vec<GroundLuminance>> {
    let Some(table) = &job.recipe.preview else { return Ok(Vec::new()) };
    let how = How::at(job, images)?;
    let sources = &job.recipe.data.source;
    let mut out = Vec::new();
    for name in &table.measure_grounds {
        let found = sources.iter().find_map(|s| s.grounds.iter().find(|g| g.name == *name).map(|g| (s, g)));
        let Some((source, ground)) = found else {
            return Err(Error::Msg(format!("preview.measure_grounds: no data source has the ground `{name}`")));
        };
        let captions: Vec<String> = table
            .measure_captions
            .iter()
            .map(|caption| source.caption.replace("{caption}", caption).replace("{ground}", name))
            .collect();
        let prompts: Vec<&str> = captions.iter().map(String::as_str).collect();
        let drawn = sampled(job, text, asked, &how, table, &prompts, "measure noise")?;
        let mean = drawn.iter().map(corners).sum::<f64>() / drawn.len().max(1) as f64;
        out.push(GroundLuminance { ground: name.clone(), drawn: mean, data: luminance(ground.rgb) });
    }
    Ok(out)
}

/// Pictures for prompts, each from its own noise: the same for the same place in the list, whenever it is drawn.
fn sampled(
    job: &Job,
    text: &dyn Conditioner,
    asked: &dyn Fn(),
    how: &How,
    table: &PreviewTable,
    prompts: &[&str],
    noise: &str,
) -> Result<Vec<RgbImage>> {
    let model = job.model;
    let decoder = match &table.autoencoder {
        Some(dir) => {
            let dir = hub::here(Path::new(dir), Needs::All)?;
            model.autoencoder_in(&dir, &job.recipe.model.load_options(&job.options.device))?
        }
        None => model.autoencoder().clone(),
    };
    let vae = &*decoder;
    let own = model.native().resolution_px;
    let (height, width) = (table.height_px.unwrap_or(own), table.width_px.unwrap_or(own));
    let shape = [vae.channels(), height as usize / vae.factor(), width as usize / vae.factor()];
    let conversion = how.conversion.as_ref().map(|c| c.sized(shape[1], shape[2]));
    let sampler = Sampler {
        network: Network { backbone: &**model.backbone(), conversion: conversion.as_ref() },
        schedule: &*how.schedule,
        objective: &*how.objective,
        sampling: &how.sampling,
    };
    let stream = Stream::new(table.seed, noise);
    let batch = job.recipe.data.batch.max(1);
    let condition = |part: &[&str]| {
        let cond = sampler.condition(text, part, &vec![Geometry::plain(height, width); part.len()])?;
        cond.to(&job.options.device)?.map(|t| Ok(t.detach()))
    };
    let conds = prompts.chunks(batch).map(condition).collect::<Result<Vec<_>>>()?;
    asked();
    let mut out = Vec::with_capacity(prompts.len());
    for (first, (part, cond)) in (0..).step_by(batch).zip(prompts.chunks(batch).zip(&conds)) {
        let each = |i: usize| stream.at((first + i) as u64, 0).normal(shape.as_slice(), &job.options.device);
        let start = Tensor::stack(&(0..part.len()).map(each).collect::<Result<Vec<_>>>()?, 0)?;
        // The sampler counts its steps in the stream, so that the place in the list has to be in the name.
        let fresh = Stream::new(table.seed, &format!("preview solver noise from {first}"));
        out.extend(decode(vae, &sampler.sample(&start, cond, &fresh, &mut |_, _| Ok(()))?)?);
    }
    Ok(out)
}

/// Writes rows of pictures (each B 3 H W in [-1, 1]) as one PNG.
pub(super) fn sheet(rows: &[Tensor], to: &Path) -> Result<()> {
    write_sheet(&rows.iter().map(pictures).collect::<Result<Vec<_>>>()?, to)
}

/// Puts the first sheet of a run above its last one.
pub(super) fn before_and_after(before: &Path, after: &Path, to: &Path) -> Result<Option<PathBuf>> {
    let open = |path: &Path| image::open(path).ok().map(|p| p.to_rgb8());
    let (Some(before), Some(after)) = (open(before), open(after)) else { return Ok(None) };
    let mut out = RgbImage::new(before.width().max(after.width()), before.height() + after.height());
    image::imageops::replace(&mut out, &before, 0, 0);
    image::imageops::replace(&mut out, &after, 0, i64::from(before.height()));
    write_png(&out, to)?;
    Ok(Some(to.to_owned()))
}

fn write_sheet(rows: &[Vec<RgbImage>], to: &Path) -> Result<()> {
    let side = |f: &dyn Fn(&RgbImage) -> u32| rows.iter().flatten().map(f).max().unwrap_or(0) + GAP;
    let (w, h) = (side(&|p| p.width()), side(&|p| p.height()));
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let mut out = RgbImage::from_pixel(columns * w + GAP, rows.len() as u32 * h + GAP, Rgb([90, 90, 110]));
    for (y, row) in (0u32..).zip(rows) {
        for (x, picture) in (0u32..).zip(row) {
            image::imageops::replace(&mut out, picture, i64::from(x * w + GAP), i64::from(y * h + GAP));
        }
    }
    write_png(&out, to)
}

fn write_png(picture: &RgbImage, to: &Path) -> Result<()> {
    let mut png = Vec::new();
    let encode = picture.write_to(&mut std::io::Cursor::new(&mut png), image::ImageFormat::Png);
    encode.map_err(|e| Error::Msg(format!("{}: {e}", to.display())))?;
    sconce_nn::weights::write_atomic(to, |file| file.write_all(&png))
}

/// Mean luminance of the four corners, an eighth of the side each.
fn corners(picture: &RgbImage) -> f64 {
    let (w, h) = picture.dimensions();
    let (dx, dy) = ((w / 8).max(1), (h / 8).max(1));
    let inside = |x: u32, y: u32| (x < dx || x >= w - dx) && (y < dy || y >= h - dy);
    let all: Vec<f64> =
        picture.enumerate_pixels().filter(|(x, y, _)| inside(*x, *y)).map(|(_, _, p)| luminance(p.0)).collect();
    all.iter().sum::<f64>() / all.len() as f64
}

/// Rec. 709 luma of the stored values, 0 to 1.
fn luminance([r, g, b]: [u8; 3]) -> f64 {
    (0.2126 * f64::from(r) + 0.7152 * f64::from(g) + 0.0722 * f64::from(b)) / 255.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corners_do_not_see_the_middle() {
        let mut picture = RgbImage::from_pixel(64, 64, Rgb([255; 3]));
        image::imageops::replace(&mut picture, &RgbImage::new(40, 64), 12, 0);
        assert!((corners(&picture) - 1.0).abs() < 1e-9);
        assert!((luminance([128; 3]) - 128.0 / 255.0).abs() < 1e-9);
    }
}
