//! What a run rests on that has every result, so that the next one may be seen to find them all.
//!
//! Checking a file of ten thousand stages and looking up their keys costs more than all the rest of a run
//! without work. Nothing of that can come out otherwise while the file, the options, the variables and
//! the program are the same, the stats of all inputs from outside and of all results are, and no
//! result was added or removed. Where any of this is not so, the run goes the long way.

use std::path::Path;

use jiff::Timestamp;
use pipe_stages::{contract::Stage, kinds::shell::Shell};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Request, Tools};
use crate::{
    cache::{Cache, Mark, Stamps},
    digest::Digest,
    names::RunId,
    pipeline::{Source, StageSpec, Told},
};

/// A run of a whole pipeline that found or made all results.
#[derive(Debug, Serialize, Deserialize)]
pub struct Repeat {
    /// The run.
    pub run: RunId,
    /// When it began.
    pub began: Timestamp,
    /// Its stages, in order.
    pub stages: Vec<Found>,
    /// The tables that its last stages had written.
    pub tables: Vec<Digest>,
    /// Whether the pipeline states what is expected.
    pub expects: bool,
    told: Digest,
    program: Option<Program>,
    variables: Vec<(String, Option<String>)>,
    outside: Vec<(Source, Digest)>,
    objects: Stamps,
}

/// A stage that is found, and the run that had executed it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Found {
    /// Its name.
    pub stage: String,
    /// The run; `None` if the result came with a cache from elsewhere.
    pub since: Option<RunId>,
    /// What it computed on, for a stage that runs a model.
    pub device: Option<String>,
}

impl Repeat {
    /// The run that one of the pipeline `told` would repeat.
    pub fn find(told: &Told, cache: &Cache) -> Option<Self> {
        let repeat: Self = cache.repeat(&told.file)?;
        let known = |(source, digest): &(Source, Digest)| known(cache, &told.root, source) == Some(*digest);
        let is_same = repeat.told == told.hash
            && repeat.program.is_some()
            && repeat.program == Program::of_this_process()
            && repeat.variables.iter().all(|(name, value)| variable(name) == *value)
            && repeat.outside.iter().all(known)
            && cache.are_as_stamped(&repeat.objects);
        is_same.then_some(repeat)
    }

    /// Whether the run made any of its results.
    pub fn has_made(&self) -> bool {
        self.stages.iter().any(|found| found.since == Some(self.run))
    }

    /// Remembers that `run`, which began at `began`, found all of it, looking at the cache since `mark`.
    pub fn goes_on_with(mut self, run: RunId, began: Timestamp, cache: &Cache, file: &Path, mark: Mark) {
        (self.run, self.began) = (run, began);
        cache.keep_repeat(file, &self, mark);
    }

    /// Remembers the run of `request`, after which all of `stages` are found; it has looked at the cache since
    /// `mark`.
    pub(super) fn keep(
        request: &Request<'_>,
        tools: &Tools<'_>,
        stages: Vec<Found>,
        rests_on: RestsOn,
        tables: Vec<Digest>,
        mark: Mark,
    ) {
        let pipeline = request.pipeline;
        let (Some(told), Some(objects)) = (pipeline.told, tools.cache.stamps(&rests_on.objects)) else {
            return;
        };
        let mut variables: Vec<_> = pipeline.stages.values().flat_map(variables_of).collect();
        variables.sort_unstable();
        variables.dedup();
        let repeat = Self {
            run: request.run,
            began: request.began,
            stages,
            tables,
            expects: pipeline.resolved.get("expect").is_some(),
            told,
            program: Program::of_this_process(),
            variables,
            outside: rests_on.outside,
            objects,
        };
        tools.cache.keep_repeat(&pipeline.file, &repeat, mark);
    }
}

/// What decided that every stage was found.
#[derive(Debug, Default)]
pub(super) struct RestsOn {
    pub outside: Vec<(Source, Digest)>,
    pub objects: Vec<Digest>,
}

/// The program: another one may read the same file otherwise.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Program {
    size: u64,
    modified: Option<std::time::SystemTime>,
}

impl Program {
    fn of_this_process() -> Option<Self> {
        let metadata = std::env::current_exe().and_then(std::fs::metadata).ok()?;
        Some(Self { size: metadata.len(), modified: metadata.modified().ok() })
    }
}

/// The variables of the environment that are in the key of `spec`, with the values hashed.
fn variables_of(spec: &StageSpec) -> impl Iterator<Item = (String, Option<String>)> {
    let declared = (spec.kind.name == Shell::KIND).then(|| spec.hashed.get("env").and_then(Value::as_object));
    let text = |value: &Value| value.as_str().map(str::to_owned);
    declared.flatten().into_iter().flatten().map(move |(name, value)| (name.clone(), text(value)))
}

/// The value of a variable as the key has it.
fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// The digest of an input from outside, if its stat says that it is known.
fn known(cache: &Cache, root: &Path, source: &Source) -> Option<Digest> {
    match source {
        Source::File(path) => cache.known_file(root, path),
        Source::Dir(path) => cache.known_folder(root, path),
        Source::Glob(pattern) => cache.known_glob(root, pattern),
        Source::Output { .. } => None,
    }
}
