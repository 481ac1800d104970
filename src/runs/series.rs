//! What stages measured step by step.

use super::{RunsDb, RunsError};
use crate::names::RunId;

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

impl RunsDb {
    /// The values at steps of every metric in `run` that `wanted` picks by its name without the stage.
    ///
    /// Stages that failed or were killed in this run have theirs too, as far as they came.
    pub fn series(&self, run: RunId, wanted: impl Fn(&str) -> bool) -> Result<Vec<Series>, RunsError> {
        self.read(|conn| {
            let mut query = conn.prepare_cached(
                "SELECT record.name, execution.name, metric_name.name, step_value.step, step_value.value
                 FROM run
                 JOIN stage_record AS record ON record.run = coalesce(run.repeats, run.id)
                 JOIN execution ON execution.id = record.execution
                   OR (record.execution IS NULL AND execution.key = record.key AND execution.run = run.id)
                 JOIN step_value ON step_value.execution = execution.id
                 JOIN metric_name ON metric_name.id = step_value.name
                 WHERE run.id = ?
                 ORDER BY record.position, execution.id, metric_name.name, step_value.step",
            )?;
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
}
