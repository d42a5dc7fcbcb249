//! A schedule that is given point by point: what another program made, or a paper's table.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sconce_sdk::{Discrete, prelude::*};
use serde_json::Value;

use super::{Cosine, Linear, ScaledLinear, SigmoidBetas};

/// A discrete schedule given by its numbers: the variance that each step adds, as in diffusers' `trained_betas`, or
/// sigma/alpha at each point, as in k-diffusion and ComfyUI. Exactly one of the fields is given. From a file the numbers are
/// read once, and the resolved recipe holds them, so that a run does not change with the file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, try_from = "Source", into = "Source")]
#[schemars(example = serde_json::json!({ "betas": [0.001, 0.02, 0.2, 0.6, 0.9] }))]
#[schemars(example = serde_json::json!({ "sigmas": [0.03, 0.4, 2.0, 14.6] }))]
pub struct Table {
    points: Points,
    table: OnceLock<Discrete>,
}

/// The numbers.
#[derive(Clone, Debug)]
enum Points {
    Betas(Vec<f64>),
    Sigmas(Vec<f64>),
}

/// A discrete schedule given by its numbers. Exactly one field is given.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Source {
    /// The variance that each step adds, above 0 and below 1; the last may be 1, which leaves no signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    betas: Option<Vec<f64>>,
    /// sigma/alpha at each point, above 0 and rising.
    #[serde(skip_serializing_if = "Option::is_none")]
    sigmas: Option<Vec<f64>>,
    /// A JSON file with one of these lists, `betas` or `sigmas`; or a diffusers scheduler's config.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
}

impl TryFrom<Source> for Table {
    type Error = String;

    fn try_from(source: Source) -> Result<Self, String> {
        let points = match source {
            Source { betas: Some(betas), sigmas: None, file: None } => Points::betas(betas)?,
            Source { betas: None, sigmas: Some(sigmas), file: None } => Points::sigmas(sigmas)?,
            Source { betas: None, sigmas: None, file: Some(file) } => {
                read(&file).map_err(|e| format!("`{}`: {e}", file.display()))?
            }
            _ => return Err("takes one of `betas`, `sigmas` and `file`".into()),
        };
        Ok(Self { points, table: OnceLock::new() })
    }
}

impl From<Table> for Source {
    fn from(table: Table) -> Self {
        match table.points {
            Points::Betas(betas) => Self { betas: Some(betas), ..Self::default() },
            Points::Sigmas(sigmas) => Self { sigmas: Some(sigmas), ..Self::default() },
        }
    }
}

impl Points {
    fn betas(betas: Vec<f64>) -> Result<Self, String> {
        let ends = betas.last() == Some(&1.0);
        let inner = &betas[..betas.len() - usize::from(ends)];
        match inner.iter().position(|b| !(*b > 0.0 && *b < 1.0)) {
            _ if betas.len() < 2 => Err("has fewer than 2 points".into()),
            Some(i) => Err(format!("betas[{i}] is {}, each is above 0 and below 1 (the last may be 1)", betas[i])),
            None => Ok(Self::Betas(betas)),
        }
    }

    fn sigmas(sigmas: Vec<f64>) -> Result<Self, String> {
        let rises = |i: usize| sigmas[i].is_finite() && sigmas[i] > if i == 0 { 0.0 } else { sigmas[i - 1] };
        match (0..sigmas.len()).find(|&i| !rises(i)) {
            _ if sigmas.len() < 2 => Err("has fewer than 2 points".into()),
            Some(i) => Err(format!("sigmas[{i}] is {}: they are above 0 and rise, from data to noise", sigmas[i])),
            None => Ok(Self::Sigmas(sigmas)),
        }
    }
}

fn read(file: &Path) -> Result<Points, String> {
    let text = std::fs::read(file).map_err(|e| format!("cannot be read: {e}"))?;
    let json: Value = serde_json::from_slice(&text).map_err(|e| format!("is no JSON: {e}"))?;
    let list = |field: &str| match json.get(field).filter(|value| !value.is_null()) {
        Some(value) => serde_json::from_value(value.clone()).map(Some).map_err(|e| format!("`{field}`: {e}")),
        None => Ok(None),
    };
    match (list("sigmas")?, list("betas")?, list("trained_betas")?) {
        (Some(sigmas), None, None) => Points::sigmas(sigmas),
        (None, Some(betas), None) | (None, None, Some(betas)) => Points::betas(betas),
        (None, None, None) => Points::betas(config(&json)?),
        _ => Err("has more than one of `betas`, `sigmas` and `trained_betas`".into()),
    }
}

/// The betas that a diffusers scheduler makes of its config. What is left out of one has a default that differs from
/// class to class, so it must be written out.
fn config(json: &Value) -> Result<Vec<f64>, String> {
    let need = |field: &str| json.get(field).ok_or(format!("has no `{field}`, and no list `betas` or `sigmas`"));
    let number = |field: &str| need(field)?.as_f64().ok_or(format!("`{field}` is not a number"));
    let kind = need("beta_schedule")?.as_str().unwrap_or_default();
    let steps =
        need("num_train_timesteps")?.as_u64().filter(|n| *n > 1).ok_or("`num_train_timesteps` is not a count")?;
    let steps = steps as usize;
    let betas: Vec<f64> = match kind {
        "linear" => Linear::new(number("beta_start")?, number("beta_end")?, steps).betas().collect(),
        "scaled_linear" => ScaledLinear::new(number("beta_start")?, number("beta_end")?, steps).betas().collect(),
        "sigmoid" => SigmoidBetas::new(number("beta_start")?, number("beta_end")?, steps).betas().collect(),
        "squaredcos_cap_v2" => Cosine::new(steps).betas().collect(),
        other => return Err(format!("`beta_schedule` = {other:?} is not supported")),
    };
    match json.get("rescale_betas_zero_snr") == Some(&Value::Bool(true)) {
        true => Ok(without_terminal_signal(&betas)),
        false => Ok(betas),
    }
}

/// Lin et al. 2023, algorithm 1.
fn without_terminal_signal(betas: &[f64]) -> Vec<f64> {
    let alpha = |betas: &[f64]| betas.iter().map(|beta| 1.0 - beta).product::<f64>().sqrt();
    let (first, last) = (alpha(&betas[..1]), alpha(betas));
    let rescaled = |k: usize| if k == 0 { 1.0 } else { (alpha(&betas[..k]) - last) * first / (first - last) };
    (0..betas.len()).map(|k| 1.0 - (rescaled(k + 1) / rescaled(k)).powi(2)).collect()
}

impl Table {
    fn table(&self) -> &Discrete {
        self.table.get_or_init(|| match &self.points {
            Points::Betas(betas) => Discrete::from_betas(betas.iter().copied()),
            Points::Sigmas(sigmas) => Discrete::from_sigmas(sigmas.iter().copied()),
        })
    }
}

impl Schedule for Table {
    fn at(&self, t: f64) -> Noise {
        self.table().at(t)
    }

    fn t_of(&self, log_snr: f64) -> f64 {
        self.table().t_of(log_snr)
    }

    fn grid(&self) -> Option<usize> {
        match &self.points {
            Points::Betas(points) | Points::Sigmas(points) => Some(points.len()),
        }
    }
}

register!(Schedule, "table", Table, aliases = ["trained_betas"]);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made(table: Value) -> Result<Choice<dyn Schedule>, String> {
        Choice::from_table(&table).map_err(|e| e.to_string())
    }

    #[test]
    fn betas_sigmas_and_a_schedulers_config_say_the_same() {
        let own = ScaledLinear::default();
        let betas: Vec<f64> = own.betas().collect();
        let sigmas: Vec<f64> = (1..=1000).map(|i| own.at(i as f64 / 1000.0)).map(|n| n.sigma / n.alpha).collect();
        let file = std::env::temp_dir().join(format!("sconce-table-{}.json", std::process::id()));
        let config = json!({ "_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
            "beta_end": 0.012, "num_train_timesteps": 1000, "trained_betas": null, "rescale_betas_zero_snr": true });
        std::fs::write(&file, config.to_string()).unwrap();
        let read = made(json!({ "type": "table", "file": file })).unwrap();
        std::fs::remove_file(&file).unwrap();
        let zero = made(json!({ "type": "zero-terminal", "of": "scaled-linear" })).unwrap();
        let [betas, sigmas] =
            [json!({ "type": "table", "betas": betas }), json!({ "type": "table", "sigmas": sigmas })];
        for t in [0.001, 0.4, 1.0] {
            for table in [&betas, &sigmas] {
                assert!((made(table.clone()).unwrap().at(t).sigma - own.at(t).sigma).abs() < 1e-12);
            }
            assert!((read.at(t).alpha - zero.at(t).alpha).abs() < 1e-9);
        }
        assert_eq!(read.table()["betas"].as_array().unwrap().len(), 1000);
        assert!(read.table().get("file").is_none());
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_its_place() {
        for (table, said) in [
            (json!({ "type": "table" }), "one of"),
            (json!({ "type": "table", "betas": [0.1, 1.2, 0.3] }), "betas[1]"),
            (json!({ "type": "table", "sigmas": [3.0, 2.0] }), "sigmas[1]"),
            (json!({ "type": "table", "sigmas": [3.0] }), "fewer than 2"),
            (json!({ "type": "table", "file": "no/such.json" }), "cannot be read"),
        ] {
            let error = made(table).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
