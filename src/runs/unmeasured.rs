//! Metrics that a pipeline gives a better direction and that its programs did not report.

use pipe_stages::nearest;

use super::LoadedRun;
use crate::metrics::directed;

/// A metric that no final value was reported of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmeasured<'a> {
    /// The stage that should report it.
    pub stage: &'a str,
    /// Dotted path after the stage.
    pub metric: &'a str,
    /// The metric of the stage that may have been meant.
    pub near: Option<&'a str>,
}

/// The metrics that stages of `run` with a result should have and do not.
pub fn unmeasured(run: &LoadedRun) -> Vec<Unmeasured<'_>> {
    let mut missing = Vec::new();
    for stage in &run.stages {
        let Some(execution) = &stage.execution else { continue };
        for metric in directed(&stage.kind, &stage.params) {
            if !execution.metrics.contains_key(metric) {
                let near = nearest(metric, execution.metrics.keys().map(String::as_str));
                missing.push(Unmeasured { stage: &stage.stage, metric, near });
            }
        }
    }
    missing
}
