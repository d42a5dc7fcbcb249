//! The nearest valid name to a mistyped one.

/// The candidate nearest to `name` by edit distance, if it is near enough to be a slip of the keyboard.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).max(2);
    let (distance, best) = candidates.into_iter().map(|c| (edits(name, c), c)).min_by_key(|(d, _)| *d)?;
    (distance <= limit).then_some(best)
}

/// Advice for serde's own message about an unknown field or variant: the nearest of those that it lists.
pub(crate) fn field_help(message: &str) -> Option<String> {
    let (_, list) = message.split_once("expected ").filter(|_| message.starts_with("unknown "))?;
    let found = message.split('`').nth(1)?;
    let valid: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
    nearest(found, valid).map(|near| format!("did you mean `{near}`?"))
}

/// Damerau-Levenshtein distance (adjacent swaps count one).
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut d = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in d.iter_mut().enumerate() {
        row[0] = i;
    }
    d[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            d[i][j] = (d[i - 1][j] + 1).min(d[i][j - 1] + 1).min(d[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                d[i][j] = d[i][j].min(d[i - 2][j - 2] + 1);
            }
        }
    }
    d[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_slips_and_nothing_far() {
        assert_eq!(nearest("min-srn", ["min-snr", "debiased"]), Some("min-snr"));
        assert_eq!(nearest("cosine", ["uniform", "native"]), None);
        assert_eq!(field_help("unknown field `gama`, expected `gamma`").as_deref(), Some("did you mean `gamma`?"));
    }
}
