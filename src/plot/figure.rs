//! A figure as data: panels of lines over axes, in the order of their legend. What `--json` prints and what is drawn are
//! this one thing.

use serde::{Serialize, Serializer};

/// Panels that share one legend.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figure {
    /// What is compared.
    pub title: String,
    /// Under what circumstances.
    pub subtitle: String,
    /// The legend: each has its own colour in every panel.
    pub names: Vec<String>,
    /// From left to right, then down.
    pub panels: Vec<Panel>,
    /// What the quantities are.
    pub notes: Vec<String>,
}

/// One pair of axes with its lines.
#[derive(Clone, Debug, Serialize)]
pub struct Panel {
    /// What it shows.
    pub title: String,
    /// Rightwards.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// Later ones are drawn above.
    pub lines: Vec<Line>,
    /// What no point of the panel can show, such as a share at infinity: `(index in names, text)`, behind these words.
    pub beyond: Option<(String, Vec<(usize, String)>)>,
}

/// An axis.
#[derive(Clone, Debug, Serialize)]
pub struct Axis {
    /// Quantity and symbol.
    pub label: String,
    /// What it spans.
    pub range: (f64, f64),
    /// How a place on it is found.
    pub scale: Scale,
}

/// How a place on an axis is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// In proportion.
    Linear,
    /// By the logarithm; nothing at or below 0 is on it.
    Log,
}

/// One line.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Index in the figure's names: its colour.
    pub of: usize,
    /// Tells lines of one colour apart: a symbol, written at the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symbol: Option<&'static str>,
    /// How it is drawn.
    pub stroke: Stroke,
    /// From left to right. Infinite values are points beyond the panel's edge.
    #[serde(serialize_with = "points")]
    pub points: Vec<(f64, f64)>,
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stroke {
    /// The first of a colour.
    Full,
    /// The second of a colour: thinner and paler.
    Thin,
    /// With a dot at each point.
    Dotted,
}

impl Axis {
    /// In proportion.
    pub fn linear(label: impl Into<String>, from: f64, to: f64) -> Self {
        Self { label: label.into(), range: (from, to), scale: Scale::Linear }
    }

    /// By the logarithm.
    pub fn log(label: impl Into<String>, from: f64, to: f64) -> Self {
        Self { label: label.into(), range: (from, to), scale: Scale::Log }
    }
}

/// JSON has no infinity: it is written as text.
fn points<S: Serializer>(points: &[(f64, f64)], s: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Number {
        Finite(f64),
        Word(&'static str),
    }
    let number = |x: f64| match x {
        f64::INFINITY => Number::Word("inf"),
        f64::NEG_INFINITY => Number::Word("-inf"),
        x => Number::Finite(x),
    };
    s.collect_seq(points.iter().map(|&(x, y)| (number(x), number(y))))
}
