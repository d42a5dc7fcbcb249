//! What differs between two recipes: fields, and what they come to, namely where over the noise levels their draws and
//! their effective weight lie (`curves`). Two recipes of different words may train the same, and the other way round.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::check::{figure, percent};
use crate::curves::{Coverage, NOISY, Shares};
use crate::recipe::{Resolved, Task};

/// Two recipes side by side.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What the recipes are called.
    pub names: [String; 2],
    /// Fields that are not alike, in the recipe's order.
    pub fields: Vec<Change>,
    /// Where they train; `None` where one of them has no such thing.
    pub noise: Option<Noise>,
    /// Why `noise` is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_noise: Option<String>,
}

/// A field that is not alike.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Its dotted path.
    pub field: String,
    /// Its values; `None` where a recipe does not have it.
    pub values: [Option<Value>; 2],
}

/// Where two recipes train.
#[derive(Clone, Debug, Serialize)]
pub struct Noise {
    /// Each recipe's own figures.
    pub summary: [Summary; 2],
    /// The part of the effective weight that lies at other log-SNRs.
    pub moved: f64,
    /// By log-SNR, from noise to data.
    pub bins: Vec<Bin>,
}

/// Where one recipe trains.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Shares above t = 0.9.
    pub noisy: Shares,
    /// The log-SNR with the most effective weight.
    pub peak_log_snr: f64,
    /// The effective weight there, per unit of log-SNR, of area 1.
    pub peak: f64,
    /// The log-SNRs below which a quarter, a half and three quarters of the effective weight lie.
    pub quartiles: [f64; 3],
}

/// A range of log-SNR.
#[derive(Clone, Debug, Serialize)]
pub struct Bin {
    /// From here; unbounded in JSON as null.
    pub from: f64,
    /// To here. Below every number there is no signal at all.
    pub to: f64,
    /// What each recipe has there.
    pub shares: [Shares; 2],
}

/// The levels of a run's draws and weight, or why it has none.
pub fn coverage(resolved: &Resolved) -> Result<Coverage, String> {
    let recipe = &resolved.recipe;
    if recipe.train.task != Task::Denoiser {
        return Err(format!("`{}` trains an autoencoder, which knows no noise levels", resolved.name));
    }
    let schedule = resolved.schedule(resolved.side_px());
    Coverage::of(&recipe.process(&*schedule)).map_err(|e| format!("`{}`: {e}", resolved.name))
}

/// Compares two recipes, under these names.
pub fn compare(names: [String; 2], [a, b]: [&Resolved; 2]) -> Comparison {
    let noise = coverage(a).and_then(|a| Ok([a, coverage(b)?]));
    let (noise, without_noise) = match noise {
        Ok(runs) => (Some(Noise::of(&runs)), None),
        Err(why) => (None, Some(why)),
    };
    Comparison { names, fields: changes(&a.tables(), &b.tables()), noise, without_noise }
}

impl Noise {
    fn of([a, b]: &[Coverage; 2]) -> Self {
        let summary = |run: &Coverage| Summary {
            noisy: run.above(NOISY),
            peak_log_snr: run.peak().log_snr,
            peak: run.peak().weight(),
            quartiles: [0.25, 0.5, 0.75].map(|part| run.quantile(part, |s| s.weight)),
        };
        // No signal, then even steps of 2, and what is beyond.
        let edges = (-5..=5).map(|i| f64::from(i) * 2.0);
        let edges: Vec<f64> = [f64::NEG_INFINITY, f64::MIN].into_iter().chain(edges).chain([f64::INFINITY]).collect();
        let bins =
            edges.windows(2).map(|e| Bin { from: e[0], to: e[1], shares: [a, b].map(|r| r.between(e[0], e[1])) });
        let seen = |bin: &Bin| bin.shares.iter().any(|s| s.draws > 0.0);
        Self { summary: [a, b].map(summary), moved: a.moved(b), bins: bins.filter(seen).collect() }
    }
}

/// The leaves that two recipes do not share.
fn changes(a: &Map<String, Value>, b: &Map<String, Value>) -> Vec<Change> {
    let mut found: Vec<Change> = Vec::new();
    for (side, tables) in [a, b].into_iter().enumerate() {
        for (name, table) in tables {
            leaves(name, table, &mut |field, value| {
                let change = match found.iter_mut().position(|c| c.field == field) {
                    Some(i) => &mut found[i],
                    None => {
                        // Beside its table's other fields.
                        let table = field.split('.').next();
                        let place = found.iter().rposition(|c| c.field.split('.').next() == table);
                        let place = place.map_or(found.len(), |i| i + 1);
                        found.insert(place, Change { field: field.to_owned(), values: [None, None] });
                        &mut found[place]
                    }
                };
                change.values[side] = Some(value.clone());
            });
        }
    }
    found.retain(|c| c.values[0] != c.values[1]);
    found
}

fn leaves(path: &str, value: &Value, visit: &mut dyn FnMut(&str, &Value)) {
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| leaves(&format!("{path}.{name}"), value, visit)),
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().enumerate().for_each(|(i, value)| leaves(&format!("{path}.{i}"), value, visit));
        }
        Value::Null => {}
        _ => visit(path, value),
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "a  {}\nb  {}\n", self.names[0], self.names[1])?;
        if self.fields.is_empty() {
            writeln!(f, "every field is alike")?;
        }
        let value = |v: &Option<Value>| v.as_ref().map_or("-".to_owned(), Value::to_string);
        let width = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
        let first = width(&mut self.fields.iter().map(|c| c.field.len()));
        let second = width(&mut self.fields.iter().map(|c| value(&c.values[0]).len())).min(40);
        for Change { field, values: [a, b] } in &self.fields {
            writeln!(f, "{field:first$}  {:second$}  ->  {}", value(a), value(b))?;
        }
        writeln!(f)?;
        match (&self.noise, &self.without_noise) {
            (Some(noise), _) => write!(f, "{noise}"),
            (None, why) => writeln!(f, "no comparison of weights: {}", why.as_deref().unwrap_or_default()),
        }
    }
}

impl fmt::Display for Noise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: [(&str, fn(&Summary) -> String); 5] = [
            ("draws above t = 0.9", |s| percent(s.noisy.draws)),
            ("loss above t = 0.9, if every output is equally wrong", |s| percent(s.noisy.loss)),
            ("effective weight above t = 0.9", |s| percent(s.noisy.weight)),
            ("its peak, at log-SNR", |s| format!("{} at {}", figure(s.peak), figure(s.peak_log_snr))),
            ("its middle half, in log-SNR", |s| format!("{} to {}", figure(s.quartiles[0]), figure(s.quartiles[2]))),
        ];
        writeln!(f, "{:52}  {:>16}  {:>16}", "", "a", "b")?;
        for (what, of) in rows {
            let [a, b] = &self.summary;
            writeln!(f, "{what:52}  {:>16}  {:>16}", of(a), of(b))?;
        }
        writeln!(f, "\n{} of the effective weight lies at other noise levels in b\n", percent(self.moved))?;
        writeln!(
            f,
            "{:16}  {:>9}  {:>9}  {:>9}  {:>9}  {:>9}",
            "log-SNR", "draws a", "draws b", "weight a", "weight b", "b / a"
        )?;
        for Bin { from, to, shares: [a, b] } in &self.bins {
            let range = match (*from, *to) {
                (_, to) if to == f64::MIN => "no signal".to_owned(),
                (from, to) if from == f64::MIN => format!("below {to}"),
                (from, to) if to == f64::INFINITY => format!("from {from}"),
                (from, to) => format!("{from} to {to}"),
            };
            let ratio = match (a.weight > 0.0, b.weight > 0.0) {
                (true, _) => figure(b.weight / a.weight),
                (false, true) => "new".into(),
                (false, false) => "-".into(),
            };
            let shares = [a.draws, b.draws, a.weight, b.weight].map(percent);
            let [p, q, r, s] = shares;
            writeln!(f, "{range:16}  {p:>9}  {q:>9}  {r:>9}  {s:>9}  {ratio:>9}")?;
        }
        f.write_str(
            "\nEffective weight: the share of the loss where every output, turned into v, is equally wrong, whatever the\n\
             objective. b / a is also the ratio of the weights on the error of epsilon (Kingma & Gao 2023), up to a factor.\n",
        )
    }
}
