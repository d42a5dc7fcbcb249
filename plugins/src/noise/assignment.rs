//! The linear assignment problem: who gets what, at the least cost in all.

/// The column of each row such that the sum of costs is least, no column twice. `cost[row][column]` is square.
///
/// The Hungarian method by shortest augmenting paths (Kuhn 1955; Jonker & Volgenant 1987), O(n³): each row in turn finds
/// the cheapest chain of rows that make room for it, in costs reduced by what rows and columns pay already.
pub(super) fn assign(cost: &[Vec<f64>]) -> Vec<usize> {
    let n = cost.len();
    let (mut row_price, mut column_price) = (vec![0.0; n], vec![0.0; n]);
    let mut row_of: Vec<Option<usize>> = vec![None; n];
    for start in 0..n {
        // The cheapest way from `start` to each column, and the column before it on that way.
        let (mut distance, mut before) = (vec![f64::INFINITY; n], vec![None; n]);
        let mut done = vec![false; n];
        let (mut row, mut reached, mut from) = (start, 0.0, None);
        let end = loop {
            for column in (0..n).filter(|&c| !done[c]) {
                let way = reached + cost[row][column] - row_price[row] - column_price[column];
                if way < distance[column] {
                    (distance[column], before[column]) = (way, from);
                }
            }
            let nearest = (0..n).filter(|&c| !done[c]).min_by(|&a, &b| distance[a].total_cmp(&distance[b]));
            let column = nearest.expect("there are as many columns as rows");
            done[column] = true;
            reached = distance[column];
            match row_of[column] {
                None => break column,
                Some(next) => (row, from) = (next, Some(column)),
            }
        };
        row_price[start] += reached;
        for column in (0..n).filter(|&c| done[c]) {
            column_price[column] -= reached - distance[column];
            if let Some(row) = row_of[column] {
                row_price[row] += reached - distance[column];
            }
        }
        let mut column = end;
        while let Some(previous) = before[column] {
            row_of[column] = row_of[previous];
            column = previous;
        }
        row_of[column] = Some(start);
    }
    let mut columns = vec![0; n];
    for (column, row) in row_of.into_iter().enumerate() {
        columns[row.expect("every row found a column")] = column;
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use sconce_nn::rng::Stream;

    /// The least cost by trying every order.
    fn least(cost: &[Vec<f64>], row: usize, taken: &mut Vec<usize>) -> f64 {
        if row == cost.len() {
            return 0.0;
        }
        let mut best = f64::INFINITY;
        for column in 0..cost.len() {
            if !taken.contains(&column) {
                taken.push(column);
                best = best.min(cost[row][column] + least(cost, row + 1, taken));
                taken.pop();
            }
        }
        best
    }

    #[test]
    fn no_other_order_costs_less() {
        for (case, n) in [1, 2, 3, 5, 7, 7, 7, 7].into_iter().enumerate() {
            let u = Stream::new(case as u64, "costs").uniform(n * n);
            // Ties too.
            let cost: Vec<Vec<f64>> =
                u.chunks(n).map(|r| r.iter().map(|u| (u * 9.0).floor() - 4.0).collect()).collect();
            let columns = assign(&cost);
            let mut sorted = columns.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..n).collect::<Vec<_>>());
            let sum: f64 = columns.iter().enumerate().map(|(row, &column)| cost[row][column]).sum();
            assert!((sum - least(&cost, 0, &mut Vec::new())).abs() < 1e-9, "{cost:?}: {columns:?}");
        }
    }
}
