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
    record::{Execution, Histogram, Metric, Outcome, RunStatus, StageRecord},
    runs::{RunsDb, RunsError},
};

/// How long what happened may wait in memory before it is written, but for what was computed.
///
/// What a kill leaves unwritten is in the cache: the next run finds the results there and records them.
const WRITE_EVERY: Duration = Duration::from_millis(250);

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
    /// Executions that go on and are not recorded yet, with what the stage is called.
    begun: HashMap<String, Execution>,
    completed: Vec<Execution>,
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
            begun: HashMap::new(),
            completed: Vec::new(),
            measured: HashMap::new(),
            written: Instant::now(),
            error: None,
        }
    }

    /// Takes in one event.
    pub fn observe(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Started { execution, .. } => {
                self.begun.insert(execution.id.clone(), (**execution).clone());
            }
            RunEvent::Reported { execution, event, .. } => self.reported(execution, event),
            RunEvent::Finished { record, execution, .. } => {
                if let Some(execution) = execution {
                    self.begun.remove(&execution.id);
                    self.measured.remove(&execution.id);
                    self.completed.push((**execution).clone());
                    // At once: were its result damaged after a kill, nothing else would know its metrics.
                    self.write_completed();
                }
                self.records.push((**record).clone());
                if record.outcome == Outcome::Cached {
                    // A run that only finds is recorded at once, in its end: it may share earlier records.
                    return;
                }
            }
            RunEvent::Looking { .. } => return,
            RunEvent::Waiting { .. } | RunEvent::Retrying { .. } | RunEvent::Idle => {}
        }
        if self.written.elapsed() >= WRITE_EVERY {
            self.write();
            self.written = Instant::now();
        }
    }

    /// Writes what is left and how the run ended; returns the database, or the first error there was.
    pub fn finish(mut self, status: RunStatus) -> Result<RunsDb, RunsError> {
        self.write();
        let finished = self.database.finish(self.run, status, Timestamp::now());
        self.keep_error(finished);
        self.error.map_or(Ok(self.database), Err)
    }

    fn write(&mut self) {
        self.write_begun();
        self.write_measured();
        self.write_completed();
        self.write_records();
    }

    fn write_begun(&mut self) {
        for execution in std::mem::take(&mut self.begun).into_values() {
            let begun = self.database.begin_execution(&execution);
            self.keep_error(begun);
        }
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

    fn write_completed(&mut self) {
        let completed = std::mem::take(&mut self.completed);
        if completed.is_empty() {
            return;
        }
        let recorded = self.database.record_executions(&completed);
        self.keep_error(recorded);
        let outputs = completed.iter().flat_map(|execution| &execution.outputs);
        for output in outputs.filter(|output| output.port_type == PortType::Predictions) {
            if let Ok(csv) = std::fs::read(self.cache.object(output.digest)) {
                let kept = self.database.keep_predictions(output.digest, &csv);
                self.keep_error(kept);
            }
        }
        completed.iter().for_each(|execution| self.keep_measured_predictions(execution));
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
                Some(execution) => self.completed.push(execution),
                None => record.execution = None,
            }
        }
        self.write_completed();
    }

    fn keep_error(&mut self, result: Result<(), RunsError>) {
        if let Err(err) = result {
            self.error.get_or_insert(err);
        }
    }
}
