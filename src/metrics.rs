//! What the kinds say about their metrics.

use pipe_stages::contract::Better;

/// Which direction of `metric` is better, as its kind says; kinds that are unknown now say nothing.
pub(crate) fn better(kind: &str, metric: &str) -> Better {
    let kind = pipe_stages::kinds().iter().find(|known| known.name == kind);
    let doc = kind.and_then(|kind| kind.metrics().iter().find(|doc| doc.matches(metric)));
    doc.map_or(Better::Neither, |doc| doc.better)
}

/// Whether `metric` is one of many like it: of a bin or of a tensor.
pub(crate) fn is_detail(metric: &str) -> bool {
    metric.split('.').any(|part| matches!(part, "bin" | "tensor"))
}

pub(crate) fn arrow(better: Better) -> char {
    match better {
        Better::Higher => '↑',
        Better::Lower => '↓',
        Better::Neither => ' ',
    }
}
