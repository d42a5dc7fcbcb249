//! Which quantiles an update draws: spread evenly, so that the loss's noise is that of the levels' insides alone.

use sconce_nn::rng::Stream;

/// Quantiles for an update of `count` samples: one in each of `count` equal strata, in random order, so that every
/// update sees the whole timestep distribution. An accumulated batch takes its part of the list, and so would each of
/// several processes: the update is one, whoever computes its parts.
pub fn stratified(stream: &Stream, count: usize) -> Vec<f64> {
    let random = stream.uniform(2 * count);
    let (jitter, order) = random.split_at(count);
    let mut strata: Vec<usize> = (0..count).collect();
    strata.sort_by(|&i, &j| order[i].total_cmp(&order[j]));
    strata.into_iter().zip(jitter).map(|(s, j)| (s as f64 + j) / count as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stratum_is_drawn_once() {
        let mut u = stratified(&Stream::new(3, "timesteps").at(640, 0), 16);
        u.sort_by(f64::total_cmp);
        for (i, u) in u.into_iter().enumerate() {
            assert!((i as f64..(i + 1) as f64).contains(&(u * 16.0)), "stratum {i}: {u}");
        }
    }
}
