//! What a run rests on that has every result, so that the next one may be seen to find them all.
//!
//! Checking a file of ten thousand stages and looking up their keys costs more than all the rest of a run
//! without work. Nothing of that can come out otherwise while the file, the options, the variables and
//! the program are the same, the stats of all inputs from outside and of all results are, and no
//! result was added or removed. Where any of this is not so, the run goes the long way.

use std::{collections::HashMap, path::Path};

use jiff::Timestamp;
use pipe_stages::{contract::Stage, kinds::shell::Shell};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Begun, Request, Tools};
use crate::{
    cache::{Cache, Hit, Mark, Stamps},
    digest::{ActionKey, Digest},
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

    /// Remembers the run `begun` of `request`, after which all stages are found, in this `order`; it has looked at the
    /// cache since `mark`.
    pub(super) fn keep(
        request: &Request<'_>,
        begun: Begun,
        tools: &Tools<'_>,
        order: &[String],
        mut next: NextRun,
        tables: Vec<Digest>,
        mark: Mark,
    ) {
        let pipeline = request.pipeline;
        let (Some(told), Some(objects)) = (pipeline.told, tools.cache.stamps(&next.objects)) else {
            return;
        };
        let mut variables: Vec<_> = pipeline.stages.values().flat_map(variables_of).collect();
        variables.sort_unstable();
        variables.dedup();
        let repeat = Self {
            run: begun.run,
            began: begun.at,
            stages: order.iter().filter_map(|stage| next.found.remove(stage)).collect(),
            tables,
            expects: pipeline.resolved.get("expect").is_some(),
            told,
            program: Program::of_this_process(),
            variables,
            outside: next.outside,
            objects,
        };
        tools.cache.keep_repeat(&pipeline.file, &repeat, mark);
    }
}

/// What the next run will find, as far as this one has results.
#[derive(Debug, Default)]
pub(super) struct NextRun {
    found: HashMap<String, Found>,
    /// The execution that has given each key its result.
    results: HashMap<ActionKey, String>,
    /// Whether a key had one result for a stage and a newer one, that of a forced stage, for another: the
    /// newer one will be found for both.
    is_superseded: bool,
    outside: Vec<(Source, Digest)>,
    objects: Vec<Digest>,
}

impl NextRun {
    /// Notes the result of `stage`, and the inputs from outside that decide whether it is found again.
    pub fn note(&mut self, stage: &str, key: ActionKey, outside: Vec<(Source, Digest)>, hit: &Hit) {
        let before = self.results.insert(key, hit.execution.clone());
        self.is_superseded |= before.is_some_and(|before| before != hit.execution);
        let found = Found { stage: stage.to_owned(), since: hit.run, device: hit.device.clone() };
        self.found.insert(stage.to_owned(), found);
        self.outside.extend(outside);
        self.objects.extend(hit.outputs.iter().map(|output| output.digest));
    }

    /// Whether all of so many stages have the results that will be found.
    pub fn finds_all(&self, stages: usize) -> bool {
        self.found.len() == stages && !self.is_superseded
    }
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
