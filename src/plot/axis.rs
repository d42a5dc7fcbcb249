//! Places on axes, and what is written at them.

use plotters::coord::ranged1d::Ranged;
use plotters::coord::types::RangedCoordf64;

use super::figure::{Axis, Scale};
use super::polyline::{Point, cut};

/// The plot of a panel.
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) right: f64,
    pub(super) bottom: f64,
    pub(super) x: Axis,
    pub(super) y: Axis,
}

impl Frame {
    pub(super) fn x_of(&self, x: f64) -> f64 {
        self.left + share(&self.x, x) * (self.right - self.left)
    }

    pub(super) fn y_of(&self, y: f64) -> f64 {
        self.bottom - share(&self.y, y) * (self.bottom - self.top)
    }

    pub(super) fn holds_x(&self, x: f64) -> bool {
        (0.0..=1.0).contains(&share(&self.x, x))
    }

    /// The runs of a line that are inside, cut at the edges, in the figure's pixels.
    pub(super) fn clip(&self, points: &[Point]) -> Vec<Vec<Point>> {
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

/// Where an axis has its lines, and what is written there.
pub(super) fn ticks(axis: &Axis, most: usize) -> Vec<(f64, String)> {
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
pub(super) fn number(x: f64) -> String {
    let x = if x.abs() < 1e-12 { 0.0 } else { x };
    let text = format!("{:.4}", x.abs());
    let text = text.trim_end_matches('0').trim_end_matches('.');
    let (whole, rest) = text.split_once('.').map_or((text, String::new()), |(w, r)| (w, format!(".{r}")));
    // Thousands apart from five digits on.
    let apart = |i: usize| i > 0 && whole.len() > 4 && (whole.len() - i).is_multiple_of(3);
    let grouped: String =
        whole.char_indices().flat_map(|(i, digit)| apart(i).then_some(' ').into_iter().chain([digit])).collect();
    format!("{}{}{rest}", if x < 0.0 { "−" } else { "" }, grouped)
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
