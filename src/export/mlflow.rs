//! Runs as the folders and files of MLflow's file store.
//!
//! ```text
//! mlruns/<experiment>/meta.yaml
//! mlruns/<experiment>/<run>/{meta.yaml, params/*, metrics/*, tags/*, artifacts/*}
//! ```
//!
//! The store is the one form of MLflow's that is documented by its files; the SQLite form changes with
//! every release, and `mlflow migrate-filestore` makes it from this one. Names of experiments' and
//! runs' folders follow from what they hold, so exporting a run again replaces it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::{Path, PathBuf},
};

use indexmap::IndexMap;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Measured, Subject, written};
use crate::{
    fingerprint::leaves,
    names::Instance,
    runs::{RunInfo, State},
};

/// Longest value of a parameter that MLflow takes, in characters.
const LONGEST_VALUE: usize = 6000;
/// Longest name that MLflow takes.
const LONGEST_NAME: usize = 250;
/// How many digits of its hash a name ends with that would not be the only one without.
const HASH_SHOWN: usize = 8;

/// A file below the folder of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path below that folder.
    pub path: PathBuf,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// The number of the experiment for the pipeline of this name; MLflow makes up numbers like it.
pub fn experiment_id(pipeline: &str) -> String {
    let hash = blake3::hash(pipeline.as_bytes());
    let first: [u8; 8] = hash.as_bytes()[..8].try_into().expect("a hash has more bytes");
    format!("{}", 100_000_000_000_000_000 + u64::from_le_bytes(first) % 900_000_000_000_000_000)
}

/// The `meta.yaml` of an experiment that lies in `folder`.
pub fn experiment_meta(name: &str, id: &str, folder: &Path, created: Timestamp) -> String {
    yaml(&json!({
        "artifact_location": folder.display().to_string(),
        "creation_time": created.as_millisecond(),
        "experiment_id": id,
        "last_update_time": created.as_millisecond(),
        "lifecycle_stage": "active",
        "name": name,
    }))
}

/// The name of a run's folder: MLflow's id of it.
pub fn run_folder(run: &RunInfo) -> String {
    let named = format!("{} {} {}", run.run, run.started, run.host);
    blake3::hash(named.as_bytes()).to_hex()[..32].to_owned()
}

/// The files of a run of this experiment, which will lie in `folder`.
pub fn run_files(subject: &Subject, experiment: &str, folder: &Path) -> Vec<File> {
    let run = &subject.run;
    let text = |path: String, text: String| File { path: path.into(), bytes: text.into_bytes() };
    let names = Names::of(subject);
    let mut files = vec![text("meta.yaml".into(), meta(&run.info, experiment, folder))];
    for (name, value) in tags(subject) {
        files.push(text(format!("tags/{}", safe(&name, LONGEST_NAME)), value));
    }
    files.push(text("params/seed".into(), run.info.seed.to_string()));
    for stage in &run.stages {
        for (path, value) in leaves(&stage.params) {
            let value = written(&value).chars().take(LONGEST_VALUE).collect();
            files.push(text(format!("params/{}", names.params.get(&param_name(&stage.stage, &path))), value));
        }
        let began = subject.began(stage).as_millisecond();
        let mut metrics: IndexMap<&str, String> = IndexMap::new();
        for it in subject.measured(stage) {
            let value = it.value.map_or_else(|| "nan".to_owned(), |value| value.to_string());
            let lines = metrics.entry(names.metrics.get(&metric_name(&it))).or_default();
            writeln!(lines, "{began} {value} {}", it.step.unwrap_or(0)).expect("a text grows");
        }
        files.extend(metrics.into_iter().map(|(name, lines)| text(format!("metrics/{name}"), lines)));
    }
    files.push(text("artifacts/pipeline.yaml".into(), yaml(&run.resolved)));
    if let Some(patch) = &subject.patch {
        files.push(File { path: "artifacts/uncommitted.patch".into(), bytes: patch.clone() });
    }
    files
}

fn meta(run: &RunInfo, experiment: &str, folder: &Path) -> String {
    // The numbers of MLflow's `RunStatus`.
    let status = match run.state {
        State::Running => 1,
        State::Done => 3,
        State::Failed => 4,
        State::Interrupted | State::Killed => 5,
    };
    let id = run_folder(run);
    yaml(&json!({
        "artifact_uri": folder.join("artifacts").display().to_string(),
        "deleted_time": null,
        "end_time": run.ended.map(Timestamp::as_millisecond),
        "entry_point_name": "",
        "experiment_id": experiment,
        "lifecycle_stage": "active",
        "run_id": id,
        "run_name": run.run,
        "run_uuid": id,
        "source_name": "",
        "source_type": 4,
        "source_version": "",
        "start_time": run.started.as_millisecond(),
        "status": status,
        "tags": [],
        "user_id": "",
    }))
}

/// What MLflow shows of its own accord, and what only we know.
fn tags(subject: &Subject) -> Vec<(String, String)> {
    let run = &subject.run.info;
    let mut tags = vec![
        ("mlflow.runName", run.run.to_string()),
        ("mlflow.source.type", "LOCAL".to_owned()),
        ("mlflow.source.name", format!("pipe {}", run.command.join(" "))),
        ("pipe.run", run.run.to_string()),
        ("pipe.file", run.file.display().to_string()),
        ("pipe.version", run.version.clone()),
        ("pipe.host", run.host.clone()),
        ("pipe.profiles", run.profiles.join(" ")),
        ("pipe.tags", run.tags.join(" ")),
    ];
    if let Some(git) = &run.git {
        tags.push(("mlflow.source.git.commit", git.commit.clone()));
        tags.push(("pipe.dirty", git.dirty.to_string()));
    }
    let notes: Vec<&str> = run.notes.iter().map(|note| note.text.as_str()).collect();
    tags.push(("mlflow.note.content", notes.join("\n\n")));
    tags.into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn metric_name(it: &Measured<'_>) -> String {
    format!("{}.{}{}", stage_name(it.stage), it.metric, if it.ends_a_series { ".final" } else { "" })
}

fn param_name(stage: &str, path: &str) -> String {
    format!("{}.{path}", stage_name(stage))
}

/// A stage of a matrix in characters that MLflow takes: `train[rank=4,lr=0.1]` is `train rank:4 lr:0.1`.
fn stage_name(stage: &str) -> Cow<'_, str> {
    match Instance::parse(stage) {
        Some(Instance { stage, at }) if !at.is_empty() => {
            let at = at.iter().map(|(axis, value)| format!(" {axis}:{value}"));
            Cow::Owned(format!("{stage}{}", at.collect::<String>()))
        }
        _ => Cow::Borrowed(stage),
    }
}

/// What a run's parameters and metrics are called.
struct Names {
    params: Distinct,
    metrics: Distinct,
}

impl Names {
    fn of(subject: &Subject) -> Self {
        let stages = || subject.run.stages.iter();
        let params = stages()
            .flat_map(|stage| leaves(&stage.params).into_keys().map(|path| param_name(&stage.stage, &path)));
        let metrics = stages().flat_map(|stage| subject.measured(stage)).map(|it| metric_name(&it));
        Self { params: Distinct::of(params.collect()), metrics: Distinct::of(metrics.collect()) }
    }
}

/// Names that MLflow takes for names of ours, a different one for each.
struct Distinct(BTreeMap<String, String>);

impl Distinct {
    /// Where two names would be called the same, those that MLflow does not take as they are end with
    /// the beginning of their hash: so they are called the same in every run that has both.
    fn of(names: BTreeSet<String>) -> Self {
        let mut count: BTreeMap<String, usize> = BTreeMap::new();
        names.iter().for_each(|name| *count.entry(safe(name, LONGEST_NAME)).or_default() += 1);
        let distinct = |name: String| {
            let plain = safe(&name, LONGEST_NAME);
            if plain == name || count[&plain] == 1 {
                return (name, plain);
            }
            let hash = blake3::hash(name.as_bytes()).to_hex();
            let short = safe(&name, LONGEST_NAME - 1 - HASH_SHOWN);
            (name, format!("{short}_{}", &hash[..HASH_SHOWN]))
        };
        Self(names.into_iter().map(distinct).collect())
    }

    fn get(&self, name: &str) -> &str {
        &self.0[name]
    }
}

/// `name` as a name of MLflow's, which is also a file's: of a program's metrics any character may come.
fn safe(name: &str, longest: usize) -> String {
    let mut safe = String::new();
    for c in name.chars() {
        if safe.len() + c.len_utf8() > longest {
            break;
        }
        safe.push(if c.is_alphanumeric() || "_-. :".contains(c) { c } else { '_' });
    }
    safe
}

fn yaml(value: &Value) -> String {
    serde_yaml::to_string(value).expect("plain values serialize to YAML")
}
