//! What a result came from: every execution before it, back to the files from outside.
//!
//! Told from records alone, so it outlives the cache. Within a run the pipeline says which stage an
//! input comes from. Where that stage is not in the run's records (`--only`), whatever run is known
//! to have written the same bytes is followed instead.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map, hash_map::Entry};

use jiff::Timestamp;
use pipe_stages::nearest;
use rusqlite::{Connection, OptionalExtension};
use serde::Serialize;
use serde_json::Value;

use super::{LoadedRun, LoadedStage, Origin, RunInfo, RunsDb, RunsError, methods::input_digests};
use crate::{
    digest::{ActionKey, Digest},
    meant,
    names::{RunId, base, split_stage},
    quoted::quoted,
    record::{Artifact, Outcome},
    units::counted,
};

/// Shortest beginning of a digest that is taken for one.
const SHORTEST: usize = 6;

/// What a person asks the lineage of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Asked {
    /// The stage that has it.
    pub stage: String,
    /// What it is.
    #[serde(flatten)]
    pub what: What,
}

/// A part of a stage's result, or all of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A metric and its final value; one that has steps alone has none.
    Metric(String, Option<f64>),
    /// An output.
    Output(Artifact),
    /// Everything that the stage gave.
    Result,
}

/// A result's executions and the runs that computed them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lineage {
    /// The asked execution, then those that it came from.
    pub steps: Vec<Step>,
    /// The runs that computed them, as far as they are recorded here, earliest first.
    pub runs: Vec<RunInfo>,
}

/// One execution.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Its name, 32 hexadecimal digits.
    pub execution: String,
    /// The run whose record led here.
    pub run: RunId,
    /// What the stage is called in that run.
    pub stage: String,
    /// Its kind.
    pub kind: String,
    /// The kind's version.
    pub kind_version: u32,
    /// Its seed, for kinds that draw.
    pub seed: Option<u64>,
    /// The parameters that decided the bytes.
    pub params: Value,
    /// Its key.
    pub key: Option<ActionKey>,
    /// The run that computed it; `None` if it came with a cache from elsewhere.
    pub computed_by: Option<RunId>,
    /// What the stage was called then.
    pub computed_as: String,
    /// When that was.
    pub started: Timestamp,
    /// How long it took, seconds.
    pub seconds: f64,
    /// What it computed on.
    pub device: Option<String>,
    /// What it read.
    pub inputs: Vec<Input>,
    /// What it wrote.
    pub outputs: Vec<Artifact>,
}

/// One input of an execution.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Input {
    /// Its name.
    pub port: String,
    /// The hash of its contents.
    pub digest: Digest,
    /// Where they came from.
    pub from: Source,
}

/// Where the contents of an input came from.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// An output of an execution that is among the steps.
    Step {
        /// Its place among them.
        #[serde(skip)]
        at: usize,
        /// Its name.
        execution: String,
        /// What the stage is called: two stages that computed the same have the same execution.
        stage: String,
        /// The output.
        port: String,
    },
    /// A file, as the pipeline names it.
    File(String),
    /// A folder.
    Dir(String),
    /// The files that match a pattern.
    Glob(String),
    /// Something that no record tells.
    Unknown,
}

impl Lineage {
    /// The run that computed `step`, if it is recorded here.
    pub fn computed_by(&self, step: &Step) -> Option<&RunInfo> {
        self.runs.iter().find(|run| Some(run.run) == step.computed_by)
    }
}

impl RunsDb {
    /// What `name` means in `run`: `stage.metric`, `stage.output`, a stage, or the beginning of an
    /// output's digest; an error if it means several.
    pub fn asked(&self, run: &LoadedRun, name: &str) -> Result<Asked, RunsError> {
        let (mut all, _) = self.asked_all(run, name)?;
        if all.len() == 1 {
            return Ok(all.remove(0));
        }
        let stages: Vec<&str> = all.iter().map(|asked| asked.stage.as_str()).collect();
        let first = meant::join(stages[0], split_stage(name).1);
        let help = format!("name one, such as `{first}`: {}", meant::which(&stages));
        let (run, name) = (run.info.run, name.to_owned());
        Err(RunsError::Several { run, name, count: counted(stages.len(), "stage"), help })
    }

    /// Everything that `name` means in `run`, at least one: of a matrix the same of each stage. And the stages
    /// that are meant as well, but have no result.
    pub fn asked_all(&self, run: &LoadedRun, name: &str) -> Result<(Vec<Asked>, Vec<String>), RunsError> {
        let mut names: Vec<&str> = run.stages.iter().map(|stage| stage.stage.as_str()).collect();
        names.sort_by(|a, b| meant::in_order(a, b));
        let (mut found, mut without) = (Vec::new(), Vec::new());
        let mut refused = None;
        for path in meant::paths(name, names) {
            match self.resolved_name(run, &path) {
                Ok(asked) => found.push(asked),
                Err(err) => {
                    if let RunsError::NoResult { stage, .. } = &err {
                        without.push(stage.clone());
                    }
                    refused.get_or_insert((path, err));
                }
            }
        }
        match refused {
            // No stage of a matrix has it: said in the words of who asked.
            Some((path, RunsError::NoLineage { .. })) if found.is_empty() && path != name => {
                Err(RunsError::NoLineage {
                    run: run.info.run,
                    name: name.into(),
                    help: names_like(run, name),
                })
            }
            Some((_, err)) if found.is_empty() => Err(err),
            _ => Ok((found, without)),
        }
    }

    /// What `name` means, whose stage is called as in `run`.
    fn resolved_name(&self, run: &LoadedRun, name: &str) -> Result<Asked, RunsError> {
        let (stage, part) = split_stage(name);
        let unknown = |help: String| RunsError::NoLineage { run: run.info.run, name: name.into(), help };
        let Some(known) = run.stages.iter().find(|known| known.stage == stage) else {
            return by_digest(run, name).unwrap_or_else(|| Err(unknown(names_like(run, name))));
        };
        let Some(made) = &known.execution else {
            let run = run.info.run;
            let help = match known.outcome {
                Outcome::Failed | Outcome::Interrupted => {
                    format!("`pipe logs {run} {}` shows what it said", quoted(stage))
                }
                _ => format!("`pipe show {run}` says why it was not run"),
            };
            let stage = stage.to_owned();
            let outcome = known.outcome.word();
            return Err(RunsError::NoResult { run, stage, outcome, help });
        };
        let what = match part {
            None => What::Result,
            Some(part) => {
                let output =
                    made.outputs.iter().find(|output| output.port == part).cloned().map(What::Output);
                let metric = || made.metrics.get(part).map(|value| What::Metric(part.into(), *value));
                match output.or_else(metric) {
                    Some(what) => what,
                    None if self
                        .series(run.info.run, |metric| metric == part)?
                        .iter()
                        .any(|it| it.stage == stage) =>
                    {
                        What::Metric(part.into(), None)
                    }
                    None => return Err(unknown(names_like(run, name))),
                }
            }
        };
        Ok(Asked { stage: stage.into(), what })
    }

    /// What the result of `stage` in `run` came from; nothing if it has none.
    pub fn lineage(&self, run: LoadedRun, stage: &str) -> Result<Lineage, RunsError> {
        let mut tracing = Tracing { runs: BTreeMap::new(), known: HashMap::new(), steps: Vec::new() };
        let first = run.info.run;
        tracing.runs.insert(first, Recorded::new(run));
        tracing.step(first, stage);
        let mut at = 0;
        while at < tracing.steps.len() {
            for port in 0..tracing.steps[at].inputs.len() {
                tracing.steps[at].inputs[port].from = self.origin(&mut tracing, at, port)?;
            }
            at += 1;
        }
        let computed: BTreeSet<RunId> = tracing.steps.iter().filter_map(|step| step.computed_by).collect();
        let runs = computed.into_iter().map(|run| self.run(run)).collect::<Result<_, _>>()?;
        Ok(Lineage { steps: tracing.steps, runs })
    }

    /// Where an input of a step came from, which becomes a step itself.
    fn origin(&self, tracing: &mut Tracing, at: usize, port: usize) -> Result<Source, RunsError> {
        let (step, input) = (&tracing.steps[at], &tracing.steps[at].inputs[port]);
        let (run, digest) = (step.run, input.digest);
        let written = &tracing.runs[&run].run.resolved["stages"][&step.stage]["in"][&input.port];
        let upstream = match written {
            Value::Object(map) => {
                let path = |what: &str| map.get(what)?.as_str().map(ToOwned::to_owned);
                let dir = || path("dir").map(Source::Dir);
                let glob = || path("glob").map(Source::Glob);
                return Ok(path("file")
                    .map(Source::File)
                    .or_else(dir)
                    .or_else(glob)
                    .unwrap_or(Source::Unknown));
            }
            Value::String(text) => Some(split_stage(text).0.to_owned()),
            _ => None,
        };
        if let Some(found) = upstream.and_then(|stage| tracing.output(run, &stage, digest)) {
            return Ok(found);
        }
        let Some((run, stage)) = self.read(|conn| writer(conn, digest))? else { return Ok(Source::Unknown) };
        if let btree_map::Entry::Vacant(new) = tracing.runs.entry(run) {
            new.insert(Recorded::new(self.load(run)?));
        }
        Ok(tracing.output(run, &stage, digest).unwrap_or(Source::Unknown))
    }
}

/// A lineage that is being followed.
struct Tracing {
    runs: BTreeMap<RunId, Recorded>,
    /// The steps by their executions and what the stage is called: where a stage leaves its input as it
    /// was, one behind it that computes the same has the same execution.
    known: HashMap<(String, String), usize>,
    steps: Vec<Step>,
}

/// A run and the places of its stages.
struct Recorded {
    run: LoadedRun,
    places: HashMap<String, usize>,
}

impl Recorded {
    fn new(run: LoadedRun) -> Self {
        let places = run.stages.iter().enumerate().map(|(at, stage)| (stage.stage.clone(), at)).collect();
        Self { run, places }
    }
}

impl Tracing {
    /// The output of `stage` in `run` with these contents.
    fn output(&mut self, run: RunId, stage: &str, digest: Digest) -> Option<Source> {
        let at = self.step(run, stage)?;
        let step = &self.steps[at];
        let port = step.outputs.iter().find(|output| output.digest == digest)?.port.clone();
        Some(Source::Step { at, execution: step.execution.clone(), stage: step.stage.clone(), port })
    }

    /// The place of the step that gave `stage` its result in `run`; it is added if it is new.
    fn step(&mut self, run: RunId, stage: &str) -> Option<usize> {
        let recorded = &self.runs[&run];
        let stage = &recorded.run.stages[*recorded.places.get(stage)?];
        let made = stage.execution.as_ref()?;
        let at = self.steps.len();
        match self.known.entry((made.id.clone(), stage.stage.clone())) {
            Entry::Occupied(known) => return Some(*known.get()),
            Entry::Vacant(new) => new.insert(at),
        };
        self.steps.push(step(run, stage, made));
        Some(at)
    }
}

fn step(run: RunId, stage: &LoadedStage, made: &Origin) -> Step {
    let inputs = input_digests(&made.hashed).into_iter();
    Step {
        execution: made.id.clone(),
        run,
        stage: stage.stage.clone(),
        kind: stage.kind.clone(),
        kind_version: stage.kind_version,
        seed: stage.seed,
        params: made.hashed.get("with").cloned().unwrap_or_default(),
        key: stage.key,
        computed_by: made.run,
        computed_as: made.stage.clone(),
        started: made.started,
        seconds: made.duration,
        device: made.device.clone(),
        inputs: inputs
            .map(|(port, digest)| Input { port: port.to_owned(), digest, from: Source::Unknown })
            .collect(),
        outputs: made.outputs.clone(),
    }
}

/// The first run, and the stage in it, that is recorded to have had an output with these contents.
fn writer(conn: &Connection, digest: Digest) -> rusqlite::Result<Option<(RunId, String)>> {
    conn.prepare_cached(
        "SELECT record.run, record.name FROM artifact_record AS artifact
         JOIN stage_record AS record ON record.execution = artifact.execution
         WHERE artifact.digest = ? ORDER BY record.run, record.position LIMIT 1",
    )?
    .query_row([digest.to_string()], |row| Ok((RunId(row.get(0)?), row.get(1)?)))
    .optional()
}

/// The output of `run` whose digest begins with `text`, if that could be one.
fn by_digest(run: &LoadedRun, text: &str) -> Option<Result<Asked, RunsError>> {
    if text.len() < SHORTEST || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let text = text.to_ascii_lowercase();
    let made = run.stages.iter().filter_map(|stage| Some((stage, stage.execution.as_ref()?)));
    let outputs = made.flat_map(|(stage, made)| made.outputs.iter().map(move |output| (stage, output)));
    let found: Vec<_> = outputs.filter(|(_, output)| output.digest.to_string().starts_with(&text)).collect();
    let (stage, output) = *found.first()?;
    if found.iter().any(|(_, other)| other.digest != output.digest) {
        let names = found.iter().map(|(stage, output)| format!("{}.{}", stage.stage, output.port));
        let help = format!("it begins the digests of {}", names.collect::<Vec<_>>().join(", "));
        return Some(Err(RunsError::NoLineage { run: run.info.run, name: text, help }));
    }
    Some(Ok(Asked { stage: stage.stage.clone(), what: What::Output(output.clone()) }))
}

/// What may have been meant by `wanted`.
fn names_like(run: &LoadedRun, wanted: &str) -> String {
    let stage = split_stage(wanted).0;
    let stages = run.stages.iter().map(|stage| stage.stage.as_str());
    if stage.contains('[')
        && meant::meant(stage, stages.clone()).is_ok_and(|meant| meant.is_empty())
        && let Some(help) = meant::help(stage, "its stages are", stages)
    {
        return help;
    }
    // All stages of a matrix have the same outputs: they are named as they were asked for, or as in the file.
    let made = run.stages.iter().filter_map(|known| {
        let name = if base(&known.stage) == base(stage) { stage } else { base(&known.stage) };
        Some((name, known.execution.as_ref()?))
    });
    let parts = made.flat_map(|(name, made)| {
        let ports = made.outputs.iter().map(|output| &output.port);
        ports.chain(made.metrics.keys()).map(move |part| format!("{name}.{part}"))
    });
    let whole = run.stages.iter().map(|stage| base(&stage.stage).to_owned());
    let all: BTreeSet<String> = whole.chain(parts).collect();
    match nearest(wanted, all.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!(
            "name a metric (`STAGE.METRIC`), an output (`STAGE.OUTPUT`), a stage, or the first {SHORTEST} digits \
             or more of an output's digest; `pipe show {} --json` has them",
            run.info.run
        ),
    }
}
