//! Draws a figure, as SVG or PNG, with one font that is inside the program, so that a picture is the same everywhere.
//!
//! Plotters measures in whole pixels. Both kinds are therefore drawn several times as large: an SVG's view box is as
//! much larger than its size, and a PNG is scaled down, which smooths it.

use std::fmt::Write;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{RgbImage, imageops};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::{Frame, ticks};
use super::figure::{Figure, Line, Panel, Stroke};
use super::layout::{
    HEIGHT_OF_EM, INSET, LEGEND_ROW, Layout, MARGIN, NOTE_ROW, PANEL, SUBTITLE_ROW, SWATCH, Weight, font, text_width,
};
use super::polyline::{Point, dashes, height_at, near, simplify};

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

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
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
        y += 2.0;
        for line in &layout.subtitle {
            y += SUBTITLE_ROW;
            self.text(line, (MARGIN, y), plain(12.0, SOFT))?;
        }
        y += 26.0;
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

    /// Symbols at the first lines that have them, where other lines are farthest.
    fn symbols(&self, drawn: &[(&Line, Vec<Vec<Point>>)], frame: &Frame) -> Drawn {
        let mut told: Vec<&str> = Vec::new();
        for (line, runs) in drawn {
            let Some(symbol) = line.symbol.filter(|s| !told.contains(s)) else { continue };
            told.push(symbol);
            let places = (4..=36).flat_map(|i| {
                let x = frame.left + f64::from(i) / 40.0 * (frame.right - frame.left);
                height_at(runs, x).into_iter().flat_map(move |y| [(x, y - 11.0), (x, y + 11.0)])
            });
            let room = |&(x, y): &Point| {
                let lines = drawn.iter().flat_map(|(_, runs)| [-5.0, 0.0, 5.0].map(|dx| height_at(runs, x + dx)));
                lines.flatten().map(|other| (other - y).abs()).fold(f64::INFINITY, f64::min)
            };
            let inside = places.filter(|(_, y)| (frame.top + 8.0..frame.bottom - 8.0).contains(y));
            let Some((x, y)) = inside.max_by(|a, b| room(a).total_cmp(&room(b))) else { continue };
            let style = Type { anchor: HPos::Center, weight: Weight::Strong, ..plain(13.0, INK) };
            self.text(symbol, (x, y + 4.0), style)?;
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
