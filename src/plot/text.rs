//! A panel as text, for a terminal: lines of dots, two across and four down in each character (Unicode's Braille patterns).

use super::axis::{Frame, number};
use super::figure::{Axis, Panel, Scale};

/// Characters of the plot.
const COLUMNS: usize = 60;
const ROWS: usize = 9;

/// The dots of a character, by row and column: bits of its place in the Braille block.
const DOTS: [[u32; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
const BLANK: u32 = 0x2800;

/// The panel, with what its axes span; several lines are drawn alike.
pub fn text(panel: &Panel) -> String {
    let (right, bottom) = (2 * COLUMNS - 1, 4 * ROWS - 1);
    let frame = Frame {
        left: 0.0,
        top: 0.0,
        right: right as f64,
        bottom: bottom as f64,
        x: panel.x.clone(),
        y: panel.y.clone(),
    };
    let mut cells = vec![[BLANK; COLUMNS]; ROWS];
    for run in panel.lines.iter().flat_map(|line| frame.clip(&line.points)) {
        for pair in run.windows(2) {
            let [(x0, y0), (x1, y1)] = [pair[0], pair[1]];
            let steps = (x1 - x0).abs().max((y1 - y0).abs()).ceil().max(1.0);
            for step in 0..=steps as usize {
                let way = step as f64 / steps;
                let x = ((x0 + way * (x1 - x0)).round().max(0.0) as usize).min(right);
                let y = ((y0 + way * (y1 - y0)).round().max(0.0) as usize).min(bottom);
                cells[y / 4][x / 2] |= DOTS[y % 4][x % 2];
            }
        }
    }
    let ends = [panel.y.range.1, panel.y.range.0].map(|y| end(&panel.y, y));
    let margin = ends.iter().map(|end| end.chars().count()).max().unwrap_or_default();
    let mut out = format!("{}: {}\n", panel.title, panel.y.label);
    for (row, cells) in cells.iter().enumerate() {
        let end = match row {
            0 => ends[0].as_str(),
            row if row == ROWS - 1 => ends[1].as_str(),
            _ => "",
        };
        let line: String = cells.iter().filter_map(|&cell| char::from_u32(cell)).collect();
        out += &format!("{end:>margin$} ┤{}\n", line.trim_end_matches('\u{2800}'));
    }
    let [from, to] = [panel.x.range.0, panel.x.range.1].map(|x| end(&panel.x, x));
    let room = COLUMNS.saturating_sub(from.chars().count() + to.chars().count());
    let label: String = panel.x.label.chars().take(room.saturating_sub(2)).collect();
    out + &format!("{:margin$}  {from}{label:^room$}{to}\n", "")
}

/// What is written at an axis's end.
fn end(axis: &Axis, value: f64) -> String {
    match axis.scale {
        Scale::Linear => number(value),
        Scale::Log => format!("{value:.0e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::figure::{Axis, Line, Stroke};

    #[test]
    fn a_rising_line_goes_from_corner_to_corner() {
        let line = Line { of: 0, symbol: None, stroke: Stroke::Full, points: vec![(0.0, 0.0), (1.0, 2.0)] };
        let panel = Panel {
            title: "a line".into(),
            x: Axis::linear("x", 0.0, 1.0),
            y: Axis::linear("y", 0.0, 2.0),
            lines: vec![line],
            beyond: None,
        };
        let text = text(&panel);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), ROWS + 2);
        assert!(lines[1].starts_with("2 ┤\u{2800}") && lines[1].trim_end().ends_with(['⠁', '⠉', '⠊', '⠈']), "{text}");
        assert!(lines[ROWS].starts_with("0 ┤") && !lines[ROWS].starts_with("0 ┤\u{2800}"), "{text}");
        assert!(lines[ROWS + 1].trim().starts_with('0') && lines[ROWS + 1].ends_with('1'), "{text}");
    }
}
