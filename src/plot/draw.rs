//! Draws a figure, as SVG or PNG, with one font that is inside the program, so that a picture is the same everywhere.
//!
//! Plotters measures in whole pixels. Both kinds are therefore drawn several times as large: an SVG's view box is as
//! much larger than its size, and a PNG is scaled down, which smooths it.

use std::fmt::Write;
use std::sync::OnceLock;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{RgbImage, imageops};
use plotters::coord::Shift;
use plotters::coord::ranged1d::Ranged;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontDesc, register_font};

use super::figure::{Axis, Figure, Line, Panel, Scale, Stroke};

/// Told apart with every common kind of colour blindness (Okabe & Ito 2008), yellow left out.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(60, 60, 60),
];
/// As many lines as can be told apart.
pub const MOST: usize = COLOURS.len();

const INK: RGBColor = RGBColor(25, 28, 33);
const SOFT: RGBColor = RGBColor(95, 101, 110);
const GRID: RGBColor = RGBColor(232, 234, 237);
const AXIS: RGBColor = RGBColor(150, 156, 165);

/// The font inside the program, and what an SVG's reader without it falls back to.
const FAMILY: &str = "Inter, Helvetica, Arial, sans-serif";

const MARGIN: f64 = 28.0;
/// A panel with its labels.
const PANEL: (f64, f64) = (400.0, 292.0);
/// From a panel's edges to its plot: left, top, right, bottom.
const INSET: (f64, f64, f64, f64) = (54.0, 34.0, 16.0, 46.0);

/// How many times as large an SVG's view box is.
const SVG_SCALE: f64 = 10.0;
/// Pixels of a PNG for each of the figure's.
const PNG_SCALE: u32 = 2;
/// How many times as large a PNG is drawn before it is scaled down.
const SMOOTH: u32 = 3;

/// A figure that cannot be drawn.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw: {0}")]
pub struct DrawError(String);

impl<E: std::error::Error + Send + Sync> From<DrawingAreaErrorKind<E>> for DrawError {
    fn from(error: DrawingAreaErrorKind<E>) -> Self {
        Self(error.to_string())
    }
}

/// As SVG.
pub fn svg(figure: &Figure) -> Result<String, DrawError> {
    let layout = Layout::of(figure);
    let mut body = String::new();
    let large = |x: f64| (x * SVG_SCALE).round() as u32;
    let size = (large(layout.width), large(layout.height));
    {
        let root = SVGBackend::with_string(&mut body, size).into_drawing_area();
        // Plotters sets an SVG's text in size/1.24, on a line 0.76 em below its top.
        let canvas = Canvas { area: &root, scale: SVG_SCALE, em: 1.24, rise: 0.76 };
        canvas.figure(figure, &layout)?;
        root.present()?;
    }
    let (_, body) = body.split_once('\n').ok_or_else(|| DrawError("the drawing is empty".into()))?;
    let mut out = String::new();
    let _ = writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{}" height="{}" viewBox="0 0 {} {}" stroke-linejoin="round" stroke-linecap="round">"#,
        layout.width, layout.height, size.0, size.1
    );
    let _ = writeln!(out, "<title>{}</title>", escape(&figure.title));
    Ok(out + body)
}

/// As PNG, twice as large as the SVG.
pub fn png(figure: &Figure) -> Result<Vec<u8>, DrawError> {
    let layout = Layout::of(figure);
    let (width, height) = (layout.width.ceil() as u32 * PNG_SCALE, layout.height.ceil() as u32 * PNG_SCALE);
    let size = (width * SMOOTH, height * SMOOTH);
    let mut pixels = vec![0; size.0 as usize * size.1 as usize * 3];
    {
        let root = BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area();
        // Plotters sets a bitmap's text by the font's whole height, on a line in the middle of it.
        let scale = f64::from(PNG_SCALE * SMOOTH);
        let canvas = Canvas { area: &root, scale, em: HEIGHT_OF_EM, rise: 0.5 * HEIGHT_OF_EM };
        canvas.figure(figure, &layout)?;
        root.present()?;
    }
    let large = RgbImage::from_raw(size.0, size.1, pixels).expect("three bytes a pixel");
    let picture = imageops::thumbnail(&large, width, height);
    let mut bytes = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, FilterType::Adaptive);
    picture.write_with_encoder(encoder).map_err(|e| DrawError(e.to_string()))?;
    Ok(bytes)
}

/// Ascent and descent of the font inside the program, in em.
const HEIGHT_OF_EM: f64 = (2728.0 + 680.0) / 2816.0;

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Where everything is.
struct Layout {
    width: f64,
    height: f64,
    columns: usize,
    /// The legend's entries by row.
    legend: Vec<Vec<usize>>,
    /// The notes, broken into lines.
    notes: Vec<String>,
    panels_top: f64,
    notes_top: f64,
}

const LEGEND_ROW: f64 = 21.0;
const NOTE_ROW: f64 = 15.0;
const SWATCH: f64 = 26.0;

impl Layout {
    fn of(figure: &Figure) -> Self {
        let columns = match figure.panels.len() {
            n @ 0..=2 => n.max(1),
            4 => 2,
            7 | 8 => 4,
            _ => 3,
        };
        let rows = figure.panels.len().div_ceil(columns);
        let width = 2.0 * MARGIN + columns as f64 * PANEL.0;
        let inner = width - 2.0 * MARGIN;

        let mut legend: Vec<Vec<usize>> = vec![vec![]];
        let mut used = 0.0;
        for (i, name) in figure.names.iter().enumerate() {
            let entry = SWATCH + text_width(name, 12.0, Weight::Plain) + 24.0;
            if used + entry > inner && used > 0.0 {
                legend.push(vec![]);
                used = 0.0;
            }
            used += entry;
            legend.last_mut().expect("one row").push(i);
        }
        let notes: Vec<String> = figure.notes.iter().flat_map(|note| wrap(note, 10.5, inner)).collect();
        let head = 24.0 + if figure.subtitle.is_empty() { 0.0 } else { 18.0 };
        let panels_top = MARGIN + head + 6.0 + legend.len() as f64 * LEGEND_ROW + 8.0;
        let notes_top = panels_top + rows as f64 * PANEL.1 + 6.0;
        let notes_height = if notes.is_empty() { 0.0 } else { notes.len() as f64 * NOTE_ROW + 6.0 };
        let height = notes_top + notes_height + MARGIN - 12.0;
        Self { width, height, columns, legend, notes, panels_top, notes_top }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Weight {
    Plain,
    Strong,
}

/// How and where a text stands: `x` is its left, middle or right, `y` its baseline.
#[derive(Clone, Copy)]
struct Type {
    size: f64,
    weight: Weight,
    colour: RGBColor,
    anchor: HPos,
    upwards: bool,
}

const fn plain(size: f64, colour: RGBColor) -> Type {
    Type { size, weight: Weight::Plain, colour, anchor: HPos::Left, upwards: false }
}

fn font(size: f64, weight: Weight) -> FontDesc<'static> {
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
fn text_width(text: &str, size: f64, weight: Weight) -> f64 {
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

/// Draws in the figure's pixels on something of plotters'.
struct Canvas<'a, DB: DrawingBackend> {
    area: &'a DrawingArea<DB, Shift>,
    /// Plotters' pixels for each of the figure's.
    scale: f64,
    /// What plotters calls a font's size, in em.
    em: f64,
    /// From a text's top to its baseline, in em.
    rise: f64,
}

type Drawn = Result<(), DrawError>;
type Point = (f64, f64);

impl<DB: DrawingBackend> Canvas<'_, DB> {
    fn at(&self, (x, y): Point) -> (i32, i32) {
        ((x * self.scale).round() as i32, (y * self.scale).round() as i32)
    }

    fn width(&self, width: f64) -> u32 {
        ((width * self.scale).round() as u32).max(1)
    }

    fn text(&self, text: &str, (x, y): Point, style: Type) -> Drawn {
        let Type { size, weight, colour, anchor, upwards } = style;
        let rise = self.rise * size;
        let place = if upwards { (x - rise, y) } else { (x, y - rise) };
        let font = font(size * self.em * self.scale, weight);
        let font = if upwards { font.transform(FontTransform::Rotate270) } else { font };
        let style = TextStyle::from(font).color(&colour).pos(Pos::new(anchor, VPos::Top));
        Ok(self.area.draw(&Text::new(text.to_owned(), self.at(place), style))?)
    }

    fn line(&self, points: &[Point], width: f64, colour: RGBColor) -> Drawn {
        let points: Vec<(i32, i32)> = points.iter().map(|&p| self.at(p)).collect();
        Ok(self.area.draw(&PathElement::new(points, colour.stroke_width(self.width(width))))?)
    }

    fn dot(&self, centre: Point, radius: f64, colour: RGBColor) -> Drawn {
        Ok(self.area.draw(&Circle::new(self.at(centre), self.width(radius), colour.filled()))?)
    }

    fn figure(&self, figure: &Figure, layout: &Layout) -> Drawn {
        self.area.fill(&WHITE)?;
        let strong = Type { weight: Weight::Strong, ..plain(18.0, INK) };
        let mut y = MARGIN + 14.0;
        self.text(&figure.title, (MARGIN, y), strong)?;
        if !figure.subtitle.is_empty() {
            y += 20.0;
            self.text(&figure.subtitle, (MARGIN, y), plain(12.0, SOFT))?;
        }
        y += 28.0;
        for row in &layout.legend {
            let mut x = MARGIN;
            for &i in row {
                self.line(&[(x, y - 4.0), (x + 18.0, y - 4.0)], 3.0, COLOURS[i % MOST])?;
                self.text(&figure.names[i], (x + SWATCH, y), plain(12.0, INK))?;
                x += SWATCH + text_width(&figure.names[i], 12.0, Weight::Plain) + 24.0;
            }
            y += LEGEND_ROW;
        }
        for (i, panel) in figure.panels.iter().enumerate() {
            let (column, row) = (i % layout.columns, i / layout.columns);
            self.panel(panel, (MARGIN + column as f64 * PANEL.0, layout.panels_top + row as f64 * PANEL.1))?;
        }
        for (i, note) in layout.notes.iter().enumerate() {
            self.text(note, (MARGIN, layout.notes_top + 12.0 + i as f64 * NOTE_ROW), plain(10.5, SOFT))?;
        }
        Ok(())
    }

    fn panel(&self, panel: &Panel, (left, top): Point) -> Drawn {
        let frame = Frame {
            left: left + INSET.0,
            top: top + INSET.1,
            right: left + PANEL.0 - INSET.2,
            bottom: top + PANEL.1 - INSET.3,
            x: panel.x.clone(),
            y: panel.y.clone(),
        };
        self.axes(panel, &frame)?;
        self.title(panel, &frame)?;
        let drawn: Vec<(&Line, Vec<Vec<Point>>)> =
            panel.lines.iter().map(|line| (line, frame.clip(&line.points))).collect();
        for (i, (line, runs)) in drawn.iter().enumerate() {
            // Lines that lie on each other share their length in turn.
            let same: Vec<usize> = (0..drawn.len())
                .filter(|&j| {
                    drawn[j].0.stroke == line.stroke && drawn[j].0.symbol == line.symbol && near(&drawn[j].1, runs)
                })
                .collect();
            let turn = same.iter().position(|&j| j == i).unwrap_or(0);
            self.strokes(line, runs, turn, same.len())?;
        }
        for line in &panel.lines {
            self.beyond(line, &frame)?;
        }
        self.symbols(&drawn, &frame)
    }

    fn axes(&self, panel: &Panel, frame: &Frame) -> Drawn {
        let label = plain(10.5, SOFT);
        for (value, text) in ticks(&panel.x, 6) {
            let x = frame.x_of(value);
            self.line(&[(x, frame.top), (x, frame.bottom)], 0.8, GRID)?;
            self.text(&text, (x, frame.bottom + 15.0), Type { anchor: HPos::Center, ..label })?;
        }
        for (value, text) in ticks(&panel.y, 5) {
            let y = frame.y_of(value);
            self.line(&[(frame.left, y), (frame.right, y)], 0.8, GRID)?;
            self.text(&text, (frame.left - 7.0, y + 3.8), Type { anchor: HPos::Right, ..label })?;
        }
        self.line(&[(frame.left, frame.bottom), (frame.right, frame.bottom)], 1.0, AXIS)?;
        let (middle, side) = (0.5 * (frame.left + frame.right), 0.5 * (frame.top + frame.bottom));
        let name = Type { anchor: HPos::Center, ..plain(11.5, INK) };
        self.text(&panel.x.label, (middle, frame.bottom + 33.0), name)?;
        self.text(&panel.y.label, (frame.left - 40.0, side), Type { upwards: true, ..name })
    }

    fn title(&self, panel: &Panel, frame: &Frame) -> Drawn {
        let strong = Type { weight: Weight::Strong, ..plain(13.0, INK) };
        self.text(&panel.title, (frame.left, frame.top - 11.0), strong)?;
        let Some((words, shares)) = &panel.beyond else { return Ok(()) };
        let width = |text: &str| text_width(text, 10.5, Weight::Plain);
        let total: f64 = width(words) + shares.iter().map(|(_, text)| width(text) + 7.0).sum::<f64>();
        let mut x = frame.right - total;
        // With many names there is no room; `--json` has the numbers.
        if x < frame.left + text_width(&panel.title, 13.0, Weight::Strong) + 12.0 {
            return Ok(());
        }
        self.text(words, (x, frame.top - 11.0), plain(10.5, SOFT))?;
        x += width(words) + 7.0;
        for (of, text) in shares {
            self.text(text, (x, frame.top - 11.0), plain(10.5, COLOURS[of % MOST]))?;
            x += width(text) + 7.0;
        }
        Ok(())
    }

    fn strokes(&self, line: &Line, runs: &[Vec<Point>], turn: usize, turns: usize) -> Drawn {
        const DASH: f64 = 11.0;
        let (width, colour) = look(line);
        for run in runs {
            if line.stroke == Stroke::Dotted {
                for &point in run.iter().skip(turn).step_by(turns) {
                    self.dot(point, 2.2, colour)?;
                }
            }
            let run = simplify(run, 0.08);
            if turns == 1 {
                self.line(&run, width, colour)?;
            } else {
                for dash in dashes(&run, turn as f64 * DASH, DASH, turns as f64 * DASH) {
                    self.line(&dash, width, colour)?;
                }
            }
        }
        Ok(())
    }

    /// An arrow where a line ends in infinity.
    fn beyond(&self, line: &Line, frame: &Frame) -> Drawn {
        let (_, colour) = look(line);
        for &(x, y) in &line.points {
            let Some(side) = (y.is_infinite() && frame.holds_x(x)).then_some(y.signum()) else { continue };
            let x = frame.x_of(x);
            let edge = if side > 0.0 { frame.top } else { frame.bottom };
            let inwards = side * 8.0;
            let head = [(x, edge - 0.5 * side), (x - 4.5, edge + inwards), (x + 4.5, edge + inwards)];
            let head: Vec<(i32, i32)> = head.into_iter().map(|p| self.at(p)).collect();
            self.area.draw(&Polygon::new(head, colour.filled()))?;
            let sign = if side > 0.0 { "∞" } else { "−∞" };
            let (anchor, shift) =
                if x > 0.5 * (frame.left + frame.right) { (HPos::Right, -8.0) } else { (HPos::Left, 8.0) };
            let style = Type { anchor, ..plain(10.5, SOFT) };
            self.text(sign, (x + shift, edge + if side > 0.0 { 10.0 } else { -4.0 }), style)?;
        }
        Ok(())
    }

    /// Symbols at the first lines that have them.
    fn symbols(&self, drawn: &[(&Line, Vec<Vec<Point>>)], frame: &Frame) -> Drawn {
        let mut told: Vec<&str> = Vec::new();
        for (line, runs) in drawn {
            let Some(symbol) = line.symbol.filter(|s| !told.contains(s)) else { continue };
            told.push(symbol);
            // In a place of its own for each: a quarter of the way in from either side.
            let share = if told.len() % 2 == 1 { 0.12 } else { 0.88 };
            let x = frame.left + share * (frame.right - frame.left);
            let Some(y) = height_at(runs, x) else { continue };
            let above = y - frame.top > 18.0;
            let style = Type { anchor: HPos::Center, weight: Weight::Strong, ..plain(13.0, INK) };
            self.text(symbol, (x, if above { y - 7.0 } else { y + 17.0 }), style)?;
        }
        Ok(())
    }
}

/// Width and colour of a line.
fn look(line: &Line) -> (f64, RGBColor) {
    let RGBColor(r, g, b) = COLOURS[line.of % MOST];
    let pale = |c: u8| (0.55 * f64::from(c) + 0.45 * 255.0) as u8;
    match line.stroke {
        Stroke::Full => (1.9, RGBColor(r, g, b)),
        Stroke::Thin => (1.3, RGBColor(pale(r), pale(g), pale(b))),
        Stroke::Dotted => (1.1, RGBColor(r, g, b)),
    }
}

/// The plot of a panel.
struct Frame {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
    x: Axis,
    y: Axis,
}

impl Frame {
    fn x_of(&self, x: f64) -> f64 {
        self.left + share(&self.x, x) * (self.right - self.left)
    }

    fn y_of(&self, y: f64) -> f64 {
        self.bottom - share(&self.y, y) * (self.bottom - self.top)
    }

    fn holds_x(&self, x: f64) -> bool {
        (0.0..=1.0).contains(&share(&self.x, x))
    }

    /// The runs of a line that are inside, cut at the edges, in the figure's pixels.
    fn clip(&self, points: &[Point]) -> Vec<Vec<Point>> {
        let mut runs: Vec<Vec<Point>> = Vec::new();
        let mut open = false;
        for pair in points.windows(2) {
            let place = |&(x, y): &Point| (share(&self.x, x), share(&self.y, y));
            match cut(place(&pair[0]), place(&pair[1])) {
                Some((from, to)) => {
                    let pixel = |(x, y): Point| {
                        (self.left + x * (self.right - self.left), self.bottom - y * (self.bottom - self.top))
                    };
                    let (from, to) = (pixel(from), pixel(to));
                    match runs.last_mut().filter(|run| open && run.last() == Some(&from)) {
                        Some(run) => run.push(to),
                        None => runs.push(vec![from, to]),
                    }
                    open = true;
                }
                None => open = false,
            }
        }
        runs
    }
}

/// A value's place on an axis: 0 at its start, 1 at its end.
fn share(axis: &Axis, value: f64) -> f64 {
    let (from, to) = axis.range;
    match axis.scale {
        Scale::Linear => (value - from) / (to - from),
        // Nothing is far below.
        Scale::Log => (value.max(1e-300).ln() - from.ln()) / (to.ln() - from.ln()),
    }
}

/// The part of a stretch that is in the unit square (Liang & Barsky 1984).
fn cut(from: Point, to: Point) -> Option<(Point, Point)> {
    if ![from.0, from.1, to.0, to.1].iter().all(|x| x.is_finite()) {
        return None;
    }
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let (mut start, mut end) = (0.0f64, 1.0f64);
    for (step, room) in [(-dx, from.0), (dx, 1.0 - from.0), (-dy, from.1), (dy, 1.0 - from.1)] {
        if step == 0.0 {
            if room < 0.0 {
                return None;
            }
        } else if step < 0.0 {
            start = start.max(room / step);
        } else {
            end = end.min(room / step);
        }
    }
    let on = |s: f64| {
        if s == 0.0 {
            from
        } else if s == 1.0 {
            to
        } else {
            (from.0 + s * dx, from.1 + s * dy)
        }
    };
    (start <= end).then(|| (on(start), on(end)))
}

/// Where an axis has its lines, and what is written there.
fn ticks(axis: &Axis, most: usize) -> Vec<(f64, String)> {
    let (from, to) = axis.range;
    match axis.scale {
        Scale::Linear => {
            let values = RangedCoordf64::from(from..to).key_points(most);
            values.into_iter().map(|v| (v, number(v))).collect()
        }
        Scale::Log => {
            let (low, high) = (from.log10().ceil() as i32, to.log10().floor() as i32);
            let step = ((high - low) / most as i32 + 1).max(1);
            (low..=high).filter(|e| e % step == 0).map(|e| (10f64.powi(e), power(e))).collect()
        }
    }
}

/// `0.25`, `−4`, `50 000`.
fn number(x: f64) -> String {
    let x = if x.abs() < 1e-12 { 0.0 } else { x };
    let text = format!("{:.4}", x.abs());
    let text = text.trim_end_matches('0').trim_end_matches('.');
    let (whole, rest) = text.split_once('.').map_or((text, String::new()), |(w, r)| (w, format!(".{r}")));
    let grouped: Vec<&str> = match whole.len() {
        0..=4 => vec![whole],
        n => [0]
            .into_iter()
            .chain((1..n).filter(|i| (n - i) % 3 == 0))
            .zip((1..=n).filter(|i| (n - i) % 3 == 0))
            .map(|(a, b)| &whole[a..b])
            .collect(),
    };
    format!("{}{}{rest}", if x < 0.0 { "−" } else { "" }, grouped.join(" "))
}

/// `10⁻³`.
fn power(exponent: i32) -> String {
    let raised = |c: char| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        c => char::from_u32(0x2070 + c as u32 - '0' as u32).unwrap_or(c),
    };
    match exponent {
        0 => "1".into(),
        1 => "10".into(),
        e => format!("10{}", e.to_string().chars().map(raised).collect::<String>()),
    }
}

/// True for lines that cannot be told apart.
fn near(a: &[Vec<Point>], b: &[Vec<Point>]) -> bool {
    let ends = |runs: &[Vec<Point>]| Some((runs.first()?.first()?.0, runs.last()?.last()?.0));
    let (Some(p), Some(q)) = (ends(a), ends(b)) else { return false };
    let (from, to) = (p.0.min(q.0), p.1.max(q.1));
    (0..=100).map(|i| from + (to - from) * f64::from(i) / 100.0).all(|x| match (height_at(a, x), height_at(b, x)) {
        (Some(a), Some(b)) => (a - b).abs() < 0.7,
        (None, None) => true,
        // At an edge.
        _ => false,
    })
}

/// The y of a line at x.
fn height_at(runs: &[Vec<Point>], x: f64) -> Option<f64> {
    runs.iter().flat_map(|run| run.windows(2)).find_map(|pair| {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        let inside = (x0.min(x1) - 1e-6..=x0.max(x1) + 1e-6).contains(&x);
        inside.then(|| if x1 == x0 { y0 } else { y0 + (y1 - y0) * ((x - x0) / (x1 - x0)).clamp(0.0, 1.0) })
    })
}

/// A line through fewer points, nowhere further than this from the old ones (Douglas & Peucker 1973).
fn simplify(points: &[Point], far: f64) -> Vec<Point> {
    let mut keep = vec![false; points.len()];
    let mut stretches = vec![(0, points.len().saturating_sub(1))];
    while let Some((from, to)) = stretches.pop() {
        (keep[from], keep[to]) = (true, true);
        let (a, b) = (points[from], points[to]);
        let (dx, dy) = (b.0 - a.0, b.1 - a.1);
        let length = dx.hypot(dy).max(1e-12);
        let distance = |p: Point| ((p.0 - a.0) * dy - (p.1 - a.1) * dx).abs() / length;
        let farthest = (from + 1..to).max_by(|&i, &j| distance(points[i]).total_cmp(&distance(points[j])));
        if let Some(i) = farthest.filter(|&i| distance(points[i]) > far) {
            stretches.extend([(from, i), (i, to)]);
        }
    }
    points.iter().zip(keep).filter_map(|(&p, keep)| keep.then_some(p)).collect()
}

/// The parts of a line from `start` on, `on` long, every `period`.
fn dashes(points: &[Point], start: f64, on: f64, period: f64) -> Vec<Vec<Point>> {
    let (mut out, mut walked): (Vec<Vec<Point>>, f64) = (Vec::new(), 0.0);
    let mut dash: Vec<Point> = Vec::new();
    for pair in points.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        let length = (b.0 - a.0).hypot(b.1 - a.1);
        let on_way = |s: f64| (a.0 + (b.0 - a.0) * s / length, a.1 + (b.1 - a.1) * s / length);
        let mut s = 0.0;
        while s < length {
            let phase = (walked + s - start).rem_euclid(period);
            let (inside, left) = if phase < on { (true, on - phase) } else { (false, period - phase) };
            let end = (s + left.max(1e-6)).min(length);
            if inside {
                if dash.is_empty() {
                    dash.push(on_way(s));
                }
                dash.push(on_way(end));
            }
            if inside && end < length || !inside {
                out.extend((!dash.is_empty()).then(|| std::mem::take(&mut dash)));
            }
            s = end;
        }
        walked += length;
    }
    out.extend((!dash.is_empty()).then_some(dash));
    out
}
