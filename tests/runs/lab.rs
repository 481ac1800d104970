//! A `runs.db` in a folder of its own, filled with made-up runs.

use std::{collections::BTreeMap, path::PathBuf};

use jiff::{SignedDuration, Timestamp};
use pipe::{
    digest::{ActionKey, Digest},
    fingerprint::{Fingerprint, action_key},
    names::RunId,
    record::{
        Artifact, Execution, GitState, Invocation, Metric, Outcome, Reason, RunStart, RunStatus, StageRecord,
    },
    runs::RunsDb,
};
use pipe_stages::contract::PortType;
use serde_json::{Value, json};
use tempfile::TempDir;

pub struct Lab {
    pub folder: TempDir,
    pub db: RunsDb,
    made: BTreeMap<String, Execution>,
}

/// A stage as a pipeline file would have it.
#[derive(Clone)]
pub struct Stage {
    pub name: &'static str,
    pub kind: &'static str,
    pub params: Value,
    pub inputs: Value,
    pub takes: Value,
    pub seed: u64,
    pub metrics: Vec<(&'static str, Option<f64>)>,
}

pub fn stage(name: &'static str, kind: &'static str, params: Value) -> Stage {
    Stage { name, kind, params, inputs: json!({}), takes: json!({}), seed: 1337, metrics: Vec::new() }
}

impl Stage {
    /// Takes `content` from `source`, written as in a pipeline file, at the input `port`.
    pub fn input(mut self, port: &str, source: Value, content: &str) -> Self {
        self.inputs[port] = json!(digest(content));
        self.takes[port] = source;
        self
    }

    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    pub fn metric(mut self, name: &'static str, value: f64) -> Self {
        self.metrics.push((name, Some(value)));
        self
    }

    pub fn hashed(&self) -> String {
        let inputs = serde_json::from_value(self.inputs.clone()).unwrap();
        let (kind, with, seed) = (self.kind.into(), self.params.clone(), Some(self.seed));
        Fingerprint { kind, version: 1, with, inputs, seed }.hashed()
    }

    pub fn key(&self) -> ActionKey {
        action_key(&self.hashed())
    }
}

pub fn digest(content: &str) -> Digest {
    blake3::hash(content.as_bytes()).into()
}

/// A noon so long ago that times are always written as dates.
pub fn noon() -> Timestamp {
    "2020-03-01T12:00:00Z".parse().unwrap()
}

pub fn after(run: RunId, seconds: i64) -> Timestamp {
    noon() + SignedDuration::from_secs(run.0 * 3600 + seconds)
}

impl Lab {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = RunsDb::open(&folder.path().join("runs.db")).unwrap();
        Self { folder, db, made: BTreeMap::new() }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("runs.db")
    }

    pub fn start(file: &str) -> RunStart {
        RunStart {
            file: file.into(),
            pipeline: "toy".into(),
            profiles: vec![],
            sets: vec![],
            seed: 1337,
            resolved: json!({ "name": "toy", "stages": {} }),
            invocation: Invocation {
                command: vec!["run".into(), file.into()],
                git: Some(GitState { commit: "4f1c2d3e5a6b7980".into(), is_dirty: false, patch: Vec::new() }),
                version: "0.1.0".into(),
                host: "anvil".into(),
                cpus: 2,
                started: noon(),
            },
        }
    }

    /// Runs `stages`: those whose key was never run are executed, others are found.
    pub fn run(&mut self, stages: &[Stage]) -> RunId {
        self.run_as(Self::start("toy.yaml"), stages)
    }

    pub fn run_as(&mut self, mut start: RunStart, stages: &[Stage]) -> RunId {
        let latest = self.db.runs(Some(1)).unwrap().first().map_or(0, |run| run.run.0);
        start.invocation.started = after(RunId(latest + 1), 0);
        for stage in stages {
            start.resolved["stages"][stage.name] = json!({ "kind": stage.kind, "in": stage.takes });
        }
        let run = self.db.begin(&start).unwrap();
        let mut records = Vec::new();
        for (at, stage) in stages.iter().enumerate() {
            let key = stage.key();
            let started = after(run, 10 * at as i64 + 1);
            let found = self.made.values().find(|made| made.key == key).cloned();
            let execution = found.clone().unwrap_or_else(|| execution(run, stage, started));
            if found.is_none() {
                self.db.record_execution(&execution).unwrap();
                self.made.insert(execution.id.clone(), execution.clone());
            }
            records.push(record(stage, &execution, found.is_some(), started));
        }
        self.db.record_stages(run, &records).unwrap();
        self.db.finish(run, RunStatus::Done, after(run, 90)).unwrap();
        run
    }
}

pub fn execution(run: RunId, stage: &Stage, started: Timestamp) -> Execution {
    let id = blake3::hash(format!("{run} {}", stage.key()).as_bytes()).to_hex()[..32].to_owned();
    let metrics = stage.metrics.iter();
    Execution {
        key: stage.key(),
        hashed: stage.hashed(),
        kind: stage.kind.into(),
        stage: stage.name.into(),
        run,
        started,
        duration: 8.5,
        cpu: 15.25,
        peak_memory: 734_003_200,
        device: Some("cpu (avx2, 2 threads)".into()),
        outputs: vec![Artifact {
            port: "out".into(),
            port_type: PortType::File,
            digest: digest(&id),
            bytes: 1234,
        }],
        metrics: metrics
            .map(|(name, value)| Metric { name: (*name).into(), step: None, value: *value })
            .collect(),
        histograms: vec![],
        id,
    }
}

pub fn record(stage: &Stage, execution: &Execution, found: bool, started: Timestamp) -> StageRecord {
    let reason =
        if found { Reason::Satisfied { since: Some(execution.run), device: None } } else { Reason::NeverRun };
    StageRecord {
        stage: stage.name.into(),
        kind: stage.kind.into(),
        kind_version: 1,
        seed: Some(stage.seed),
        params: stage.params.clone(),
        key: Some(stage.key()),
        outcome: if found { Outcome::Cached } else { Outcome::Ran },
        execution: Some(execution.id.clone()),
        reasons: vec![reason],
        started,
        duration: if found { 0.001 } else { 8.75 },
        exit_code: None,
        error: None,
        log: if found { String::new() } else { format!("line 1 of {0}\nline 2 of {0}\n", stage.name) },
    }
}
