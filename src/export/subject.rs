//! What is exported of a run, as it was loaded.

use std::collections::{BTreeSet, HashMap};

use indexmap::IndexMap;
use jiff::Timestamp;

use crate::{
    record::Histogram,
    runs::{LoadedRun, LoadedStage, Series},
};

/// A run with all that is exported of it.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The run.
    pub run: LoadedRun,
    /// What each stage measured step by step, one series a metric.
    series: HashMap<String, Vec<Series>>,
    /// The distributions that each stage reported.
    histograms: HashMap<String, Vec<Histogram>>,
    /// The uncommitted changes that it was started with.
    pub patch: Option<Vec<u8>>,
}

/// One value that a stage of a run measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured<'a> {
    /// The stage's name in the run.
    pub stage: &'a str,
    /// Dotted path after the stage's name.
    pub metric: &'a str,
    /// The step; `None` for a final value.
    pub step: Option<u64>,
    /// The value; `None` where it is undefined.
    pub value: Option<f64>,
    /// Whether it is a final value of a metric that has values at steps as well.
    pub ends_a_series: bool,
}

impl Subject {
    /// The run with what was asked of `runs.db` about it.
    ///
    /// Of a stage that was started several times and failed, the latest attempt counts.
    pub fn new(
        run: LoadedRun,
        series: Vec<Series>,
        histograms: Vec<(String, Histogram)>,
        patch: Option<Vec<u8>>,
    ) -> Self {
        let latest: IndexMap<_, _> = series
            .into_iter()
            .map(|series| ((series.stage.clone(), series.metric.clone()), series))
            .collect();
        let mut subject = Self { run, series: HashMap::new(), histograms: HashMap::new(), patch };
        for ((stage, _), series) in latest {
            subject.series.entry(stage).or_default().push(series);
        }
        for (stage, histogram) in histograms {
            subject.histograms.entry(stage).or_default().push(histogram);
        }
        subject
    }

    /// Everything that `stage` measured: values at steps, then final ones.
    pub fn measured<'a>(&'a self, stage: &'a LoadedStage) -> impl Iterator<Item = Measured<'a>> {
        let series = move || self.series.get(&stage.stage).into_iter().flatten();
        let stepped: BTreeSet<&str> = series().map(|series| series.metric.as_str()).collect();
        let value = move |metric: &'a str, step, value| Measured {
            stage: &stage.stage,
            metric,
            step,
            value,
            ends_a_series: false,
        };
        let at_steps = series().flat_map(move |series| {
            series.points.iter().map(move |(step, found)| value(series.metric.as_str(), Some(*step), *found))
        });
        let finals = stage.execution.iter().flat_map(|made| &made.metrics);
        let finals = finals.map(move |(metric, found)| Measured {
            ends_a_series: stepped.contains(metric.as_str()),
            ..value(metric, None, *found)
        });
        at_steps.chain(finals)
    }

    /// The distributions that `stage` reported.
    pub(super) fn histograms<'a>(&'a self, stage: &LoadedStage) -> impl Iterator<Item = &'a Histogram> {
        self.histograms.get(&stage.stage).into_iter().flatten()
    }

    /// When `stage` began to compute what it has; values at steps carry no times of their own.
    pub(super) fn began(&self, stage: &LoadedStage) -> Timestamp {
        let made = stage.execution.as_ref().map(|made| made.started);
        made.or(stage.started).unwrap_or(self.run.info.started)
    }
}
