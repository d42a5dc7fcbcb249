//! The font inside the program, and where the parts of a figure are.

use std::sync::OnceLock;

use plotters::style::{FontDesc, FontFamily, FontStyle, register_font};

use super::figure::Figure;

/// The font inside the program, and what an SVG's reader without it falls back to.
const FAMILY: &str = "Inter, Helvetica, Arial, sans-serif";

pub(super) const MARGIN: f64 = 28.0;
/// A panel with its labels.
pub(super) const PANEL: (f64, f64) = (400.0, 292.0);
/// From a panel's edges to its plot: left, top, right, bottom.
pub(super) const INSET: (f64, f64, f64, f64) = (54.0, 34.0, 16.0, 46.0);

/// Ascent and descent of the font inside the program, in em.
pub(super) const HEIGHT_OF_EM: f64 = (2728.0 + 680.0) / 2816.0;

/// Where everything is.
pub(super) struct Layout {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) columns: usize,
    /// The legend's entries by row.
    pub(super) legend: Vec<Vec<usize>>,
    /// The subtitle and the notes, broken into lines.
    pub(super) subtitle: Vec<String>,
    pub(super) notes: Vec<String>,
    pub(super) panels_top: f64,
    pub(super) notes_top: f64,
}

pub(super) const SUBTITLE_ROW: f64 = 18.0;
pub(super) const LEGEND_ROW: f64 = 21.0;
pub(super) const NOTE_ROW: f64 = 15.0;
pub(super) const SWATCH: f64 = 26.0;

impl Layout {
    pub(super) fn of(figure: &Figure) -> Self {
        let columns = match figure.panels.len() {
            n @ 0..=2 => n.max(1),
            4 => 2,
            7 | 8 => 4,
            _ => 3,
        };
        let rows = figure.panels.len().div_ceil(columns);
        let width = 2.0 * MARGIN + columns as f64 * PANEL.0;
        let inner = width - 2.0 * MARGIN;

        let mut legend: Vec<Vec<usize>> = Vec::new();
        let mut used = f64::INFINITY;
        // One alone is named in the title.
        for (i, name) in
            figure.names.iter().enumerate().filter(|_| figure.names.len() > 1 || figure.title != figure.names[0])
        {
            let entry = SWATCH + text_width(name, 12.0, Weight::Plain) + 24.0;
            if used + entry > inner {
                legend.push(vec![]);
                used = 0.0;
            }
            used += entry;
            legend.last_mut().expect("one row").push(i);
        }
        let notes: Vec<String> = figure.notes.iter().flat_map(|note| wrap(note, 10.5, inner)).collect();
        let subtitle = wrap(&figure.subtitle, 12.0, inner);
        let head = 24.0 + subtitle.len() as f64 * SUBTITLE_ROW;
        let panels_top = MARGIN + head + 6.0 + legend.len() as f64 * LEGEND_ROW + 8.0;
        let notes_top = panels_top + rows as f64 * PANEL.1 + 6.0;
        let notes_height = if notes.is_empty() { 0.0 } else { notes.len() as f64 * NOTE_ROW + 6.0 };
        let height = notes_top + notes_height + MARGIN - 12.0;
        Self { width, height, columns, legend, subtitle, notes, panels_top, notes_top }
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Weight {
    Plain,
    Strong,
}

pub(super) fn font(size: f64, weight: Weight) -> FontDesc<'static> {
    static REGISTERED: OnceLock<()> = OnceLock::new();
    REGISTERED.get_or_init(|| {
        let plain = register_font(FAMILY, FontStyle::Normal, include_bytes!("font/Inter-Regular.otf"));
        let strong = register_font(FAMILY, FontStyle::Bold, include_bytes!("font/Inter-SemiBold.otf"));
        assert!(plain.is_ok() && strong.is_ok(), "the fonts inside the program are fonts");
    });
    let style = if weight == Weight::Strong { FontStyle::Bold } else { FontStyle::Normal };
    FontDesc::new(FontFamily::Name(FAMILY), size, style)
}

/// In the figure's pixels.
pub(super) fn text_width(text: &str, size: f64, weight: Weight) -> f64 {
    const FINE: f64 = 20.0;
    let measured = font(size * HEIGHT_OF_EM * FINE, weight).layout_box(text);
    measured.map_or(0.0, |(_, (right, _))| f64::from(right) / FINE)
}

/// Breaks a text into lines of at most this width.
fn wrap(text: &str, size: f64, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if text_width(&format!("{line} {word}"), size, Weight::Plain) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
