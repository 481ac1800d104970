//! Kind `shell`: any program as a stage.
//!
//! The command is the stage's process: no worker stands between. What it reads is declared as
//! inputs and what it writes as outputs; `{in.NAME}` and `{out.NAME}` in the command are their
//! paths. The program's own code is an input like any other: `in: { script: { file: train.py } }`.

mod better;
mod check;
mod gathered;
mod metrics;
mod once;
mod outputs;
mod table;
mod template;

use std::{
    collections::BTreeMap,
    ops::Not,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::contract::{Job, Needed, ParamProblem, PortType, Ports, Stage, StageCx, StageError};
pub use better::{Direction, better, named_by_better};
use outputs::{Declared, Written};
use template::Piece;

pub use outputs::{collect, file_name};

/// Variables that every command is given; they are not part of the key.
pub const PASSED_ON: [&str; 14] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TERM",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
];

/// Variables that every command has with these values, unless `env` names them; they are not part of the key.
///
/// Python would write `__pycache__` into an input that is a folder, which is to change an input; and it would
/// keep what it prints to itself until there is much of it, so that a killed stage had said nothing.
pub const SET: [(&str, &str); 2] = [("PYTHONDONTWRITEBYTECODE", "1"), ("PYTHONUNBUFFERED", "1")];

/// Runs a command.
pub struct Shell;

/// Parameters of `shell`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// A line for `sh -ec`, or a list of words that run without a shell, in the project root.
    /// `{in.NAME}` is the path of an input (a folder for `dir`, `glob` and an output that is one),
    /// `{out.NAME}` where to write an output, `{params.NAME}` a parameter, `{metrics}` where to write
    /// metrics, `{checkpoint}` a folder that survives a kill, `{threads}` the cores it may use, `{seed}`
    /// the stage's seed, which then decides a rerun. Values are quoted for the shell. `{{name}}` is
    /// the text `{name}`. Of an input that gathers the stages of a matrix, `{in.NAME}` is all paths, each
    /// a word of its own, and `{labels.NAME}` says in the same order which is which, `rank=4 rank=8`.
    pub command: Command,
    /// Values for `{params.NAME}`; dots lead into maps.
    #[serde(default)]
    pub params: Map<String, Value>,
    /// Names of the outputs, each a file that the command must write. The name may have an ending, as in
    /// `plot.svg`: then `{out.plot}` has it, too, for programs that go by it. With a slash behind it, as in
    /// `model/`, it is a folder that the command must make at `{out.model}`; a stage that takes it is given
    /// a folder with the same files, links followed.
    #[serde(default)]
    pub outputs: Vec<String>,
    /// Environment variables that the command is given beside PATH, HOME, USER, LOGNAME, SHELL,
    /// TERM, LANG, `LC_ALL`, `LC_CTYPE`, TZ, TMPDIR, `LD_LIBRARY_PATH`, `VIRTUAL_ENV` and
    /// `CONDA_PREFIX`.
    /// The values of those named here decide a rerun and are recorded; others are not passed on.
    /// `PYTHONDONTWRITEBYTECODE` is 1, so that Python changes no folder it takes modules from, and so is
    /// `PYTHONUNBUFFERED`, so that the log has what it prints at once, unless they are named here.
    #[serde(default)]
    pub env: Vec<String>,
    /// Environment variables that the command is given too, such as tokens: their values are recorded
    /// nowhere and decide nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Whether a command that fails before a `|` fails the stage, as the last one does: the line is
    /// given to `bash -eo pipefail -c`. Switching it on reruns the stage.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub pipefail: bool,
    /// Where metrics are read from when the command has ended: an output, or the name of a file
    /// such as `metrics.json` whose path is `{metrics}`; or a list of outputs and at most one such file.
    /// JSON: numbers by dotted path, lists as steps from 1, of which the last is the final value. CSV:
    /// columns `name`, `value` and perhaps `step`, or a metric a column: at the steps in column `step`,
    /// else at those in `epoch` if they are whole and differ, else lines are counted, and a single line
    /// has final values. Columns of texts are left out, unless they tell values of a step apart: then
    /// names begin with them, `val.loss`. Empty cells have no value.
    #[serde(default)]
    pub metrics: Option<MetricsFiles>,
    /// Which direction is better, by metric: `{ "*loss": lower, accuracy: higher }`. Names are as the stage
    /// reports them (`val.loss`); `*` stands for any characters. A name goes before patterns, and of
    /// patterns the one with the most characters beside `*`; where two of as many disagree, neither
    /// direction is better. It says how results are shown and reruns nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub better: BTreeMap<String, Direction>,
    /// Whether the command can read nothing but its inputs, system folders and where programs live,
    /// and write nothing but its outputs, metrics, `{checkpoint}` and a TMPDIR of its own. Needs Linux
    /// 6.2 or newer (Landlock). The network stays open. Switching it on reruns the stage.
    #[serde(default)]
    pub sandbox: bool,
}

/// Files that metrics are read from: one, or several.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "must be a text, or a list of texts")]
pub enum MetricsFiles {
    /// An output, or the name of a file.
    One(String),
    /// Outputs, and at most one that is none.
    Several(Vec<String>),
}

/// A command: one line for a shell, or words.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "must be a text, or a list of texts")]
pub enum Command {
    /// A line for `sh -ec`.
    Line(String),
    /// A program and its arguments.
    Words(Vec<String>),
}

impl Params {
    fn declared(&self) -> impl Iterator<Item = Declared<'_>> {
        self.outputs.iter().map(|output| Declared::of(output))
    }

    /// The names of the outputs.
    fn output_names(&self) -> impl Iterator<Item = &str> {
        self.declared().map(|output| output.name)
    }

    /// What the files are called that metrics are read from.
    fn metrics_files(&self) -> &[String] {
        match &self.metrics {
            None => &[],
            Some(MetricsFiles::One(name)) => std::slice::from_ref(name),
            Some(MetricsFiles::Several(names)) => names,
        }
    }

    /// The output that a file of metrics is.
    fn measured(&self, file: &str) -> Option<Declared<'_>> {
        self.declared().find(|output| output.name == file || output.file_name == file)
    }

    /// What `{metrics}` is the path of: the file that is no output, else the first.
    fn metrics_file(&self) -> Option<&String> {
        let files = self.metrics_files();
        files.iter().find(|file| self.measured(file).is_none()).or(files.first())
    }
}

impl Command {
    fn texts(&self) -> &[String] {
        match self {
            Command::Line(line) => std::slice::from_ref(line),
            Command::Words(words) => words,
        }
    }

    /// The names of all placeholders.
    fn placeholders(&self) -> impl Iterator<Item = (&str, bool)> {
        self.texts().iter().flat_map(|text| placeholders(text))
    }

    /// The dotted path of the text at `index` of [`Self::texts`].
    fn path(&self, index: usize) -> String {
        match self {
            Command::Line(_) => "command".into(),
            Command::Words(_) => format!("command.{index}"),
        }
    }
}

/// The names of the placeholders of a text, and whether shell quotes are open there.
fn placeholders(text: &str) -> impl Iterator<Item = (&str, bool)> {
    template::pieces(text).into_iter().filter_map(|piece| match piece {
        Piece::Placeholder { name, in_quotes, .. } => Some((name, in_quotes)),
        Piece::Text(_) => None,
    })
}

impl Stage for Shell {
    type Params = Params;
    const KIND: &'static str = "shell";
    const SUMMARY: &'static str = "Runs any program";
    const VERSION: u32 = 1;
    const DRAWS: bool = true;

    fn draws(params: &Params) -> bool {
        params.command.placeholders().any(|(name, _)| name == "seed")
    }

    fn ports(params: &Params) -> Ports {
        let mut inputs = BTreeMap::new();
        for (at, text) in params.command.texts().iter().enumerate() {
            for (placeholder, _) in placeholders(text) {
                if let Some((prefix @ ("in" | "labels"), name)) = placeholder.split_once('.') {
                    inputs.entry((name, prefix)).or_insert(at);
                }
            }
        }
        let needed = inputs.into_iter().map(|((name, prefix), at)| Needed {
            input: name.into(),
            by: params.command.path(at),
            part: format!("{{{prefix}.{name}}}"),
        });
        let mut ports =
            Ports::new().free_inputs(PortType::Any, "what the command reads, as `{in.NAME}`", needed);
        for output in params.declared() {
            let port_type = if output.is_folder { PortType::Folder } else { PortType::Any };
            ports = ports.output(output.name, port_type, "written by the command");
        }
        ports
    }

    fn check(params: &Params) -> Vec<ParamProblem> {
        check::check(params)
    }

    /// The values of the declared environment variables in place of their names; not `better`, which says
    /// how results are shown.
    fn hashed(params: &Params) -> Value {
        let value = |name: &String| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let env: BTreeMap<&String, _> = params.env.iter().map(|name| (name, value(name))).collect();
        let mut hashed = json!({
            "command": params.command,
            "params": params.params,
            "outputs": params.outputs,
            "metrics": params.metrics,
            "env": env,
        });
        // It decides what the command can read; a result from outside the sandbox proves nothing.
        if params.sandbox {
            hashed["sandbox"] = json!(true);
        }
        if params.pipefail {
            hashed["pipefail"] = json!(true);
        }
        hashed
    }

    fn run(_: Params, _: &mut StageCx<'_>) -> Result<(), StageError> {
        Err(StageError::new("a command is a process of its own and does not run in a worker"))
    }
}

/// Whether the parameter at `path` of a stage of `kind` is one of a command that decides no byte of what it writes.
pub fn decides_nothing(kind: &str, path: &str) -> bool {
    kind == Shell::KIND && matches!(path.split('.').next(), Some("better" | "secrets"))
}

/// Whether what fails before a `|` of the command is taken for success.
pub fn hides_failures(params: &Value) -> bool {
    let Ok(params) = serde_json::from_value::<Params>(params.clone()) else { return false };
    match &params.command {
        Command::Line(line) => !params.pipefail && !line.contains("pipefail") && template::has_pipe(line),
        Command::Words(_) => false,
    }
}

/// The names of `params` that no placeholder of `command` takes, dotted where they lie in maps: the command
/// cannot know their values.
///
/// `params` are the parameters of a stage of this kind.
pub fn unused_params(params: &Value) -> Vec<String> {
    let Ok(params) = serde_json::from_value::<Params>(params.clone()) else { return Vec::new() };
    let taken: Vec<&str> =
        params.command.placeholders().filter_map(|(name, _)| name.strip_prefix("params.")).collect();
    let mut unused = Vec::new();
    for (name, value) in &params.params {
        leaves(name, value, &mut |path| {
            let is_taken = taken.iter().any(|taken| {
                path.strip_prefix(taken).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            });
            if !is_taken {
                unused.push(path.to_owned());
            }
        });
    }
    unused
}

/// Calls `found` with the dotted path of every value at or below `path` that is no map.
fn leaves(path: &str, value: &Value, found: &mut impl FnMut(&str)) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().for_each(|(key, value)| leaves(&format!("{path}.{key}"), value, found));
        }
        _ => found(path),
    }
}

/// The value at a dotted path of `params`, as text.
fn parameter(params: &Params, path: &str) -> Option<String> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let mut value = params.params.get(first)?;
    for part in rest.into_iter().flat_map(|rest| rest.split('.')) {
        value = value.get(part)?;
    }
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

fn text(path: &Path) -> Option<String> {
    path.to_str().map(str::to_owned)
}

/// A command that is ready to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The program and its arguments.
    pub words: Vec<String>,
    /// The names of the environment variables that it is given.
    pub environment: Vec<String>,
    /// Where it writes its outputs, by their names.
    pub outputs: BTreeMap<String, Written>,
    /// The files that it writes metrics to.
    pub metrics: Vec<Metrics>,
    /// Whether it can touch nothing but what it declares.
    pub is_sandboxed: bool,
}

/// Where metrics are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// What the pipeline file calls it.
    pub name: String,
    /// The file.
    pub path: PathBuf,
}

/// Puts the paths and values of `job`, of kind [`Shell`], into its command.
pub fn invocation(job: &Job) -> Result<Invocation, StageError> {
    let params: Params = serde_json::from_value(job.params.clone())
        .map_err(|err| StageError::new("the parameters do not fit kind `shell`").because(err))?;
    let outputs = outputs::written(job, &params);
    let path_of = |file: &String| {
        let output = params.measured(file).and_then(|output| outputs.get(output.name));
        output.map_or_else(|| job.events.with_file_name(file), |output| output.path.clone())
    };
    let words_of = |name: &str| {
        let one = |value: Option<String>| value.map(|value| vec![value]);
        let words = match name.split_once('.') {
            Some(("in", input)) => gathered::paths(job, input),
            Some(("labels", input)) => Some(gathered::labels(job, input)?),
            Some(("out", output)) => one(outputs.get(output).and_then(|output| text(&output.path))),
            Some(("params", path)) => one(parameter(&params, path)),
            None if name == "metrics" => one(params.metrics_file().and_then(|file| text(&path_of(file)))),
            None if name == "checkpoint" => one(text(&job.checkpoint)),
            None if name == "threads" => one(Some(job.threads.to_string())),
            None if name == "seed" => one(Some(job.seed.to_string())),
            _ => None,
        };
        let words = words.filter(|words| !words.is_empty());
        words.ok_or_else(|| StageError::new(format!("nothing is known of placeholder `{{{name}}}`")))
    };
    let words = match &params.command {
        Command::Line(line) => {
            let shell: &[&str] =
                if params.pipefail { &["bash", "-eo", "pipefail", "-c"] } else { &["sh", "-ec"] };
            let line = template::fill_line(line, &words_of)?;
            shell.iter().map(|&word| word.to_owned()).chain([line]).collect()
        }
        Command::Words(words) => {
            let filled: Result<Vec<_>, _> =
                words.iter().map(|word| template::fill_word(word, &words_of)).collect();
            filled?.concat()
        }
    };
    let metrics = params.metrics_files().iter();
    let metrics = metrics.map(|file| Metrics { name: file.clone(), path: path_of(file) }).collect();
    let passed_on = PASSED_ON.iter().map(|&name| name.to_owned());
    let environment = passed_on.chain(params.env).chain(params.secrets).collect();
    Ok(Invocation { words, environment, outputs, metrics, is_sandboxed: params.sandbox })
}
