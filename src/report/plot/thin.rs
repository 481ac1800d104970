//! Fewer points that draw the same line.

/// At most about `limit` of `points`: of each stretch the first, the least and the largest, so that
/// no spike is lost.
pub(in crate::report) fn thinned(points: &[(u64, f64)], limit: usize) -> Vec<(u64, f64)> {
    if points.len() <= limit.max(3) {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil((limit / 3).max(1));
    let mut kept: Vec<(u64, f64)> = Vec::with_capacity(limit + 3);
    for part in points.chunks(stretch) {
        let by_value = |a: &&(u64, f64), b: &&(u64, f64)| a.1.total_cmp(&b.1);
        let marks = [part.first(), part.iter().min_by(by_value), part.iter().max_by(by_value)];
        let mut marks: Vec<(u64, f64)> = marks.into_iter().flatten().copied().collect();
        marks.sort_by_key(|point| point.0);
        marks.dedup_by_key(|point| point.0);
        kept.extend(marks);
    }
    kept.extend(points.last().filter(|last| kept.last() != Some(last)));
    kept
}

/// The mean of each point and its neighbours, `reach` to each side, fewer at the ends.
pub(in crate::report) fn smoothed(points: &[(u64, f64)], reach: usize) -> Vec<(u64, f64)> {
    let mean = |at: usize| {
        // As far to the one side as to the other: else the ends would lean inwards.
        let reach = reach.min(at).min(points.len() - 1 - at);
        let part = &points[at - reach..=at + reach];
        part.iter().map(|point| point.1).sum::<f64>() / part.len() as f64
    };
    (0..points.len()).map(|at| (points[at].0, mean(at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_the_ends_and_every_spike() {
        let mut points: Vec<(u64, f64)> = (0..10_000).map(|step| (step, (step % 7) as f64)).collect();
        points[4321].1 = 99.0;
        points[77].1 = -5.0;
        let thin = thinned(&points, 300);
        assert!(thin.len() <= 310, "{}", thin.len());
        assert!(thin.windows(2).all(|two| two[0].0 < two[1].0));
        assert!(thin.contains(&(4321, 99.0)) && thin.contains(&(77, -5.0)));
        assert_eq!((thin[0].0, thin.last().unwrap().0), (0, 9999));
    }

    #[test]
    fn few_points_are_left_alone() {
        let points = [(1, 1.0), (5, 2.0), (9, 0.5)];
        assert_eq!(thinned(&points, 3), points);
        assert_eq!(thinned(&[], 3), []);
    }

    #[test]
    fn smoothing_leaves_a_straight_line_straight() {
        let points: Vec<(u64, f64)> = (0..9).map(|step| (step, step as f64)).collect();
        assert_eq!(smoothed(&points, 3), points);
        assert_eq!(smoothed(&[(0, 0.0), (1, 3.0), (2, 0.0)], 1), [(0, 0.0), (1, 1.0), (2, 0.0)]);
    }
}
