//! A [`Stage`] with its types erased, so that kinds can stand in one table.

use std::{
    any::TypeId,
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Map, Value};

use super::{MetricDoc, Ports, Stage, StageCx, StageError};
use crate::nearest;

/// A kind of stage, as the pipeline check, the listing and the worker use it.
#[derive(Debug, Clone, Copy)]
pub struct StageKind {
    /// The name that `kind:` takes.
    pub name: &'static str,
    /// One line on what it does.
    pub summary: &'static str,
    /// Part of every key, raised when the same inputs would give other bytes.
    pub version: u32,
    /// Whether it may draw random numbers.
    pub draws: bool,
    /// Whether it runs a model, on all cores and on a GPU where one is given.
    pub runs_model: bool,
    resolve: fn(Value) -> Result<Resolved, Vec<ParamProblem>>,
    ports: fn(Value) -> Option<Ports>,
    schema: fn() -> schemars::Schema,
    metrics: fn() -> &'static [MetricDoc],
    run: fn(Value, &mut StageCx<'_>) -> Result<(), StageError>,
}

/// Parameters that were read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// All parameters, defaults filled in.
    pub params: Value,
    /// Those of them that decide the bytes written, for the key.
    pub hashed: Value,
    /// The inputs and outputs that follow from them.
    pub ports: Ports,
    /// Whether the stage draws, so that its seed is part of the key.
    pub draws: bool,
}

/// A parameter that cannot be used as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamProblem {
    /// Dotted path below `with`, such as `targets.1`; empty for the parameters as a whole.
    pub path: String,
    /// What of the text at `path` is wrong, such as `{out.model}`; none for all of it.
    pub part: Option<String>,
    /// What is wrong: lowercase, no full stop.
    pub message: String,
    /// What to write instead, if known.
    pub help: Option<String>,
}

impl ParamProblem {
    /// The parameter at `path` is wrong in the way that `message` says.
    pub fn new(path: &str, message: impl Into<String>) -> Self {
        Self { path: path.into(), part: None, message: message.into(), help: None }
    }

    /// Says what of the text is wrong.
    #[must_use]
    pub fn part(mut self, part: impl Into<String>) -> Self {
        self.part = Some(part.into());
        self
    }

    /// Adds what to write instead.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl StageKind {
    /// The table entry for `S`.
    pub const fn of<S: Stage>() -> Self {
        Self {
            name: S::KIND,
            summary: S::SUMMARY,
            version: S::VERSION,
            draws: S::DRAWS,
            runs_model: S::RUNS_MODEL,
            resolve: resolve::<S>,
            ports: ports::<S>,
            schema: || schemars::schema_for!(S::Params),
            metrics: S::metrics,
            run: run::<S>,
        }
    }

    /// Reads parameters (a JSON object, or null for none), reporting every problem at once.
    pub fn resolve(&self, with: Value) -> Result<Resolved, Vec<ParamProblem>> {
        (self.resolve)(with)
    }

    /// The inputs and outputs that parameters give which can be read, also where [`Self::resolve`] finds
    /// something wrong with them.
    pub fn ports(&self, with: Value) -> Option<Ports> {
        (self.ports)(with)
    }

    /// The JSON Schema of the parameters, with their documentation and defaults.
    pub fn schema(&self) -> schemars::Schema {
        (self.schema)()
    }

    /// The metrics that the kind reports.
    pub fn metrics(&self) -> &'static [MetricDoc] {
        (self.metrics)()
    }

    /// Runs the stage with parameters that [`Self::resolve`] returned.
    pub fn run(&self, params: Value, cx: &mut StageCx<'_>) -> Result<(), StageError> {
        (self.run)(params, cx)
    }
}

fn run<S: Stage>(params: Value, cx: &mut StageCx<'_>) -> Result<(), StageError> {
    let params = serde_json::from_value(params).map_err(|err| {
        StageError::new(format!("the parameters do not fit kind `{}`", S::KIND)).because(err)
    })?;
    S::run(params, cx)
}

fn ports<S: Stage>(with: Value) -> Option<Ports> {
    serde_json::from_value(with).ok().map(|params| S::ports(&params))
}

/// Reads the parameters of `S`; each wrong one is noted and taken out until the rest can be read.
fn resolve<S: Stage>(with: Value) -> Result<Resolved, Vec<ParamProblem>> {
    let mut given = match with {
        Value::Null => Map::new(),
        Value::Object(map) => map,
        other => {
            let message = format!("parameters are a map, not {}", describe(&other));
            return Err(vec![ParamProblem::new("", message)]);
        }
    };
    let known = parameters::<S>();
    let mut problems = unknown_parameters(S::KIND, &known, &mut given);
    let mut is_as_written = true;
    let params: S::Params = loop {
        match serde_path_to_error::deserialize(Value::Object(given.clone())) {
            Ok(params) => break params,
            Err(err) => {
                let path = err.path().to_string();
                let top = path.split(['.', '[']).next().unwrap_or_default().to_owned();
                let removed = given.remove(&top).is_some();
                is_as_written = false;
                // serde tells a missing parameter at the root, one at a time.
                let path = if path == "." { String::new() } else { dotted(&path) };
                let missing_after_removal = path.is_empty() && !problems.is_empty();
                if !missing_after_removal {
                    problems.push(ParamProblem::new(&path, plain(&err.into_inner().to_string())));
                }
                if !removed {
                    return Err(problems);
                }
            }
        }
    };
    // Defaults stand where a parameter was taken out: what they give says nothing of the file.
    if is_as_written {
        problems.extend(S::check(&params));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Resolved {
        hashed: S::hashed(&params),
        ports: S::ports(&params),
        draws: S::draws(&params),
        params: serde_json::to_value(&params).expect("parameters serialize to JSON"),
    })
}

/// Takes parameters that the kind does not have out of `given` and returns a problem for each.
fn unknown_parameters(kind: &str, known: &[String], given: &mut Map<String, Value>) -> Vec<ParamProblem> {
    let unknown: Vec<String> = given.keys().filter(|name| !known.contains(name)).cloned().collect();
    unknown
        .into_iter()
        .map(|name| {
            given.remove(&name);
            let help = match nearest(&name, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None if known.is_empty() => format!("kind `{kind}` takes no parameters"),
                None => format!("kind `{kind}` takes {}", known.join(", ")),
            };
            ParamProblem::new(&name, format!("kind `{kind}` has no parameter `{name}`")).help(help)
        })
        .collect()
}

/// The names of the parameters of `S`, from its schema; made once, since a pipeline may have
/// thousands of stages of a kind and a schema takes longer than everything else about one.
fn parameters<S: Stage>() -> Arc<[String]> {
    static KNOWN: Mutex<BTreeMap<TypeId, Arc<[String]>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let made = known.entry(TypeId::of::<S>()).or_insert_with(|| {
        let schema = schemars::schema_for!(S::Params);
        let properties = schema.get("properties").and_then(Value::as_object);
        properties.map(|map| map.keys().cloned().collect()).unwrap_or_default()
    });
    made.clone()
}

/// `targets[1].name` as `targets.1.name`.
fn dotted(path: &str) -> String {
    path.replace('[', ".").replace(']', "")
}

/// serde's message without its position, which speaks of text that the person never wrote.
fn plain(message: &str) -> String {
    message.split(" at line ").next().unwrap_or(message).to_owned()
}

fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}
