//! Writes what happens in a run to `runs.db`, in batches, so that recording is not felt.

use std::{
    collections::HashMap,
    path::Path,
    time::{Duration, Instant},
};

use indexmap::IndexMap;
use jiff::Timestamp;
use pipe_stages::contract::{Event, PortType};

use crate::{
    cache::Cache,
    digest::Digest,
    engine::RunEvent,
    fingerprint::Fingerprint,
    names::RunId,
    pipeline::{Pipeline, Source, StageSpec},
    record::{Execution, Histogram, Metric, RunStatus, StageRecord},
    runs::{RunsDb, RunsError},
};

/// How long measured values may wait in memory before they are written.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// The one writer of a run.
///
/// A database that cannot be written does not stop a run that computes: the first error is
/// kept and given back by [`Self::finish`].
pub struct Recorder<'a> {
    database: RunsDb,
    cache: &'a Cache,
    run: RunId,
    root: &'a Path,
    stages: &'a IndexMap<String, StageSpec>,
    records: Vec<StageRecord>,
    measured: HashMap<String, (Vec<Metric>, Vec<Histogram>)>,
    written: Instant,
    error: Option<RunsError>,
}

impl<'a> Recorder<'a> {
    /// Records the run of `pipeline` that `database` gave the number `run`.
    pub fn new(database: RunsDb, cache: &'a Cache, run: RunId, pipeline: &'a Pipeline) -> Self {
        Self {
            database,
            cache,
            run,
            root: &pipeline.root,
            stages: &pipeline.stages,
            records: Vec::new(),
            measured: HashMap::new(),
            written: Instant::now(),
            error: None,
        }
    }

    /// Takes in one event.
    pub fn observe(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Started { stage, execution, .. } => self.started(stage, execution),
            RunEvent::Reported { execution, event, .. } => self.reported(execution, event),
            RunEvent::Finished { record, execution, .. } => {
                if let Some(execution) = execution {
                    self.completed(execution);
                    self.records.push((**record).clone());
                    self.write_records();
                } else {
                    self.records.push((**record).clone());
                }
            }
            RunEvent::Waiting { .. } | RunEvent::Retrying { .. } => {}
        }
        if self.written.elapsed() >= WRITE_EVERY {
            self.write_measured();
            self.write_records();
            self.written = Instant::now();
        }
    }

    /// Writes what is left and how the run ended; returns the database, or the first error there was.
    pub fn finish(mut self, status: RunStatus) -> Result<RunsDb, RunsError> {
        self.write_measured();
        self.write_records();
        let finished = self.database.finish(self.run, status, Timestamp::now());
        self.keep_error(finished);
        self.error.map_or(Ok(self.database), Err)
    }

    fn started(&mut self, stage: &str, execution: &Execution) {
        let begun = self.database.begin_execution(
            self.run,
            &execution.id,
            execution.key,
            &execution.hashed,
            &execution.kind,
            stage,
            execution.started,
        );
        self.keep_error(begun);
    }

    fn reported(&mut self, execution: &str, event: &Event) {
        let (metrics, histograms) = self.measured.entry(execution.to_owned()).or_default();
        match event.clone() {
            Event::Metric { name, step, value } => metrics.push(Metric { name, step, value }),
            Event::Histogram { name, step, edges, counts } => {
                histograms.push(Histogram { name, step, edges, counts });
            }
            _ => {}
        }
    }

    fn completed(&mut self, execution: &Execution) {
        self.measured.remove(&execution.id);
        let recorded = self.database.record_execution(execution);
        self.keep_error(recorded);
        for output in execution.outputs.iter().filter(|output| output.port_type == PortType::Predictions) {
            if let Ok(csv) = std::fs::read(self.cache.object(output.digest)) {
                let kept = self.database.keep_predictions(output.digest, &csv);
                self.keep_error(kept);
            }
        }
        self.keep_measured_predictions(execution);
    }

    /// Keeps the predictions that a stage takes from where no other kept them: a file from outside,
    /// or what a program wrote.
    fn keep_measured_predictions(&mut self, execution: &Execution) {
        let Some(spec) = self.stages.get(&execution.stage) else { return };
        let Some(fingerprint) = Fingerprint::parse(&execution.hashed) else { return };
        for (port, digest) in fingerprint.inputs {
            if spec.ports.input_type(&port) != Some(PortType::Predictions) {
                continue;
            }
            let path = match spec.inputs.get(&port) {
                Some(Source::File(file)) => self.root.join(file),
                _ => self.cache.object(digest),
            };
            // A file that was changed since is another one.
            if let Ok(csv) = std::fs::read(path)
                && Digest::from(blake3::hash(&csv)) == digest
            {
                let kept = self.database.keep_predictions(digest, &csv);
                self.keep_error(kept);
            }
        }
    }

    fn write_measured(&mut self) {
        for (execution, (metrics, histograms)) in std::mem::take(&mut self.measured) {
            let appended = self.database.append_metrics(&execution, &metrics, &histograms);
            self.keep_error(appended);
        }
    }

    fn write_records(&mut self) {
        let mut records = std::mem::take(&mut self.records);
        if records.is_empty() {
            return;
        }
        let mut recorded = self.database.record_stages(self.run, &records);
        if let Err(RunsError::UnknownExecutions { ids, .. }) = &recorded {
            let ids = ids.clone();
            self.complete_found(&ids, &mut records);
            recorded = self.database.record_stages(self.run, &records);
        }
        self.keep_error(recorded);
    }

    /// Records the executions of these `ids`, which satisfied stages but came with a cache from elsewhere.
    fn complete_found(&mut self, ids: &[String], records: &mut [StageRecord]) {
        for record in records {
            let Some(id) = record.execution.as_ref().filter(|id| ids.contains(id)) else { continue };
            let known = record.key.and_then(|key| self.cache.execution(key));
            match known.filter(|execution| execution.id == *id) {
                Some(execution) => self.completed(&execution),
                None => record.execution = None,
            }
        }
    }

    fn keep_error(&mut self, result: Result<(), RunsError>) {
        if let Err(err) = result {
            self.error.get_or_insert(err);
        }
    }
}
