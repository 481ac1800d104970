//! What the kinds say about their metrics.

use pipe_stages::{
    contract::{Better, Stage},
    kinds::shell::{self, Shell},
};
use serde_json::Value;

/// Which direction of `metric` is better, as its kind says, or of a program its parameters; kinds that are
/// unknown now say nothing.
pub(crate) fn better(kind: &str, params: &Value, metric: &str) -> Better {
    if kind == Shell::KIND {
        return shell::better(params, metric);
    }
    let kind = pipe_stages::kinds().iter().find(|known| known.name == kind);
    let doc = kind.and_then(|kind| kind.metrics().iter().find(|doc| doc.matches(metric)));
    doc.map_or(Better::Neither, |doc| doc.better)
}

/// The metrics that the parameters of a stage give a better direction, each by its own name.
pub(crate) fn directed<'a>(kind: &str, params: &'a Value) -> impl Iterator<Item = &'a str> {
    let is_program = kind == Shell::KIND;
    is_program.then(|| shell::named_by_better(params)).into_iter().flatten()
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
