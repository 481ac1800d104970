//! What a report is about, as it was loaded.

use std::collections::BTreeMap;

use pipe_stages::data::Prediction;

use crate::{
    digest::Digest,
    runs::{LoadedRun, Series},
};

/// A run with all that a report shows of it.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The run.
    pub run: LoadedRun,
    /// What its stages measured step by step.
    pub series: Vec<Series>,
    /// Predictions by the digest of their file, as far as they were kept.
    pub predictions: BTreeMap<Digest, Vec<Prediction>>,
    /// Texts of reviews by id, as far as the cache still has them.
    pub texts: BTreeMap<String, String>,
}

impl Subject {
    /// The published value of `metric` (with its stage), where the pipeline states one under `expect:`.
    pub(super) fn published(&self, metric: &str) -> Option<f64> {
        let stated = self.run.resolved.get("expect")?.get(metric)?;
        stated.get("value").unwrap_or(stated).as_f64()
    }
}
