//! Lines as points: cut at a frame, thinned, dashed, compared.

/// x to the right, y downwards (or upwards in a unit square).
pub(super) type Point = (f64, f64);

/// The part of a stretch that is in the unit square (Liang & Barsky 1984).
pub(super) fn cut(from: Point, to: Point) -> Option<(Point, Point)> {
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

/// True for lines that cannot be told apart.
pub(super) fn near(a: &[Vec<Point>], b: &[Vec<Point>]) -> bool {
    let ends = |runs: &[Vec<Point>]| Some((runs.first()?.first()?.0, runs.last()?.last()?.0));
    let (Some(p), Some(q)) = (ends(a), ends(b)) else { return false };
    let (from, to) = (p.0.max(q.0), p.1.min(q.1));
    let apart = |x: f64| match (height_at(a, x), height_at(b, x)) {
        (Some(a), Some(b)) => (a - b).abs() > 0.7,
        (a, b) => a.is_some() != b.is_some(),
    };
    (p.0 - q.0).abs() < 2.0
        && (p.1 - q.1).abs() < 2.0
        && !(0..=100).any(|i| apart(from + (to - from) * f64::from(i) / 100.0))
}

/// The y of a line at x.
pub(super) fn height_at(runs: &[Vec<Point>], x: f64) -> Option<f64> {
    runs.iter().flat_map(|run| run.windows(2)).find_map(|pair| {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        let inside = (x0.min(x1) - 1e-6..=x0.max(x1) + 1e-6).contains(&x);
        inside.then(|| if x1 == x0 { y0 } else { y0 + (y1 - y0) * ((x - x0) / (x1 - x0)).clamp(0.0, 1.0) })
    })
}

/// A line through fewer points, nowhere further than this from the old ones (Douglas & Peucker 1973).
pub(super) fn simplify(points: &[Point], far: f64) -> Vec<Point> {
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
pub(super) fn dashes(points: &[Point], start: f64, on: f64, period: f64) -> Vec<Vec<Point>> {
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
