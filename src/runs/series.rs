//! What stages measured step by step.

use super::{RunsDb, RunsError, read};
use crate::{names::RunId, record::Histogram};

/// One metric of one stage of a run, step by step.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// The stage's name in the asked run.
    pub stage: String,
    /// The name of the execution that measured it.
    pub execution: String,
    /// Dotted path after the stage's name.
    pub metric: String,
    /// Steps, rising, and the values there; `None` where it was undefined.
    pub points: Vec<(u64, Option<f64>)>,
}

/// The executions of a run whose values count: for a stage that failed or was killed, its own as far as
/// they came.
const MEASURED: &str = "FROM run
     JOIN stage_record AS record ON record.run = coalesce(run.repeats, run.id)
     JOIN execution ON execution.id = record.execution
       OR (record.execution IS NULL AND execution.key = record.key AND execution.run = run.id)";

impl RunsDb {
    /// The values at steps of every metric in `run` that `wanted` picks by its name without the stage.
    ///
    /// Stages that failed or were killed in this run have theirs too, as far as they came.
    pub fn series(&self, run: RunId, wanted: impl Fn(&str) -> bool) -> Result<Vec<Series>, RunsError> {
        self.read(|conn| {
            let mut query = conn.prepare_cached(&format!(
                "SELECT record.name, execution.name, metric_name.name, step_value.step, step_value.value
                 {MEASURED}
                 JOIN step_value ON step_value.execution = execution.id
                 JOIN metric_name ON metric_name.id = step_value.name
                 WHERE run.id = ?
                 ORDER BY record.position, execution.id, metric_name.name, step_value.step"
            ))?;
            let mut rows = query.query([run.0])?;
            let mut series: Vec<Series> = Vec::new();
            while let Some(row) = rows.next()? {
                let metric = row.get_ref(2)?.as_str()?;
                if !wanted(metric) {
                    continue;
                }
                let (stage, execution) = (row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?);
                let point = (row.get::<_, i64>(3)? as u64, row.get(4)?);
                match series.last_mut() {
                    Some(last)
                        if last.metric == metric && last.stage == stage && last.execution == execution =>
                    {
                        last.points.push(point);
                    }
                    _ => series.push(Series {
                        stage: stage.into(),
                        execution: execution.into(),
                        metric: metric.into(),
                        points: vec![point],
                    }),
                }
            }
            Ok(series)
        })
    }

    /// Every distribution that stages of `run` reported, each with the stage.
    pub fn histograms(&self, run: RunId) -> Result<Vec<(String, Histogram)>, RunsError> {
        self.read(|conn| {
            let mut query = conn.prepare_cached(&format!(
                "SELECT record.name, metric_name.name, histogram_value.step, histogram_value.edges,
                        histogram_value.counts
                 {MEASURED}
                 JOIN histogram_value ON histogram_value.execution = execution.id
                 JOIN metric_name ON metric_name.id = histogram_value.name
                 WHERE run.id = ?
                 ORDER BY record.position, execution.id, metric_name.name, histogram_value.step"
            ))?;
            let found = query.query_map([run.0], |row| {
                let step = row.get::<_, Option<i64>>(2)?.map(|step| step as u64);
                let (edges, counts) = (read::json(row, 3)?, read::json(row, 4)?);
                Ok((row.get(0)?, Histogram { name: row.get(1)?, step, edges, counts }))
            })?;
            found.collect()
        })
    }
}
