//! What was changed from one run to another, taken apart: each change can be made alone, and left out alone.
//!
//! Changes are those of the pipeline that can decide a metric: parameters, seeds, kinds and wiring of the
//! stages that it comes from. One change is all that a person did at once, as far as it can be seen:
//!
//! written                                          | one change
//! -------------------------------------------------|-----------------------------------------
//! a variable, and each value that it was put into  | `vars.lr`
//! the same parameter of all stages of a matrix     | `train.rank`, from the same value to the same
//! another kind of a stage                          | `train`, with its parameters and inputs
//! one more or one less input that is gathered      | `eval.in.models`

use std::collections::BTreeSet;

use indexmap::{IndexMap, IndexSet};
use pipe_stages::kinds::shell;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{LoadedRun, LoadedStage};
use crate::names::{base, split_stage};

/// Something that is otherwise in the second run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// What it is: `lora.rank`, `vars.lr`, `seed`.
    pub name: String,
    /// Its value in the first run; `None` where it is not written.
    pub from: Option<Value>,
    /// Its value in the second.
    pub to: Option<Value>,
    #[serde(skip)]
    edits: Vec<Edit>,
}

/// One place of the document.
#[derive(Debug, Clone, PartialEq)]
struct Edit {
    path: Vec<String>,
    from: Option<Value>,
    to: Option<Value>,
}

/// What changed from the run `a` to the run `b` and may decide what the stage `wanted` measures.
pub fn changes(a: &LoadedRun, b: &LoadedRun, wanted: &str) -> Vec<Change> {
    let mut found: Vec<Change> = Vec::new();
    let mut add = |name: String, edit: Edit, is_one_by_name: bool| {
        let known = found.iter_mut().find(|known| is_one_by_name && known.name == name);
        let Some(known) = known else {
            found.push(Change { name, from: edit.from.clone(), to: edit.to.clone(), edits: vec![edit] });
            return;
        };
        known.edits.push(edit);
    };
    let seeds = [a, b].map(|run| run.resolved.get("seed"));
    if let Some(edit) = edit(&["seed"], seeds[0], seeds[1]) {
        add("seed".into(), edit, false);
    }
    let mut stages = upstream(&a.resolved, wanted);
    stages.extend(upstream(&b.resolved, wanted));
    for stage in stages {
        let [Some(was), Some(is)] = [a, b].map(|run| run.resolved.get("stages")?.get(&stage)) else {
            continue;
        };
        let name = base(&stage);
        let at = ["stages", stage.as_str()];
        if was.get("kind") != is.get("kind") {
            add(name.into(), Edit { path: path(&at), from: Some(was.clone()), to: Some(is.clone()) }, true);
            continue;
        }
        if let Some(edit) = edit(&[&at[..], &["seed"]].concat(), was.get("seed"), is.get("seed")) {
            add(format!("{name}.seed"), edit, false);
        }
        let kind = is.get("kind").and_then(Value::as_str).unwrap_or_default();
        let recorded = [a, b].map(|run| run.stages.iter().find(|known| known.stage == stage));
        let mut leaves = Vec::new();
        differing(was.get("with"), is.get("with"), &mut Vec::new(), &mut leaves);
        for Edit { path: below, from, to } in leaves {
            let dotted = below.join(".");
            if !shell::decides_nothing(kind, &dotted) && !is_default(recorded, &below) {
                let path = [path(&at), vec!["with".to_owned()], below].concat();
                add(format!("{name}.{dotted}"), Edit { path, from, to }, false);
            }
        }
        let inputs = |stage: &Value| stage.get("in").and_then(Value::as_object).cloned().unwrap_or_default();
        let (was, is) = (inputs(was), inputs(is));
        let ports: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
        for port in ports {
            if let Some(edit) = edit(&[&at[..], &["in", port.as_str()]].concat(), was.get(port), is.get(port))
            {
                add(format!("{name}.in.{}", base(port)), edit, true);
            }
        }
    }
    together(found, &a.resolved, &b.resolved)
}

/// The stages that `stage` comes from, and itself.
fn upstream(document: &Value, stage: &str) -> IndexSet<String> {
    let mut all = IndexSet::from([stage.to_owned()]);
    let mut next = 0;
    while let Some(stage) = all.get_index(next) {
        let inputs = document["stages"][stage.as_str()]["in"].as_object();
        let sources = inputs.into_iter().flat_map(Map::values).filter_map(Value::as_str);
        let sources: Vec<String> = sources.map(|source| split_stage(source).0.to_owned()).collect();
        all.extend(sources);
        next += 1;
    }
    // Those that come first are told first.
    all.reverse();
    all
}

/// Whether a parameter that only one of the runs writes, or both otherwise, has the same value in both.
fn is_default(recorded: [Option<&LoadedStage>; 2], path: &[String]) -> bool {
    let value = |stage: Option<&LoadedStage>| {
        path.iter().try_fold(stage?.params.clone(), |value, key| value.get(key).cloned())
    };
    let [was, is] = recorded.map(value);
    was.is_some() && was == is
}

fn path(segments: &[&str]) -> Vec<String> {
    segments.iter().map(|segment| (*segment).to_owned()).collect()
}

fn edit(segments: &[&str], from: Option<&Value>, to: Option<&Value>) -> Option<Edit> {
    (from != to).then(|| Edit { path: path(segments), from: from.cloned(), to: to.cloned() })
}

/// The values below `path` in which two maps differ.
fn differing(from: Option<&Value>, to: Option<&Value>, path: &mut Vec<String>, found: &mut Vec<Edit>) {
    let map = |value: Option<&Value>| match value {
        Some(Value::Object(map)) => Some(map.clone()),
        None | Some(Value::Null) if path.is_empty() => Some(Map::new()),
        _ => None,
    };
    if let (Some(was), Some(is)) = (map(from), map(to)) {
        let keys: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
        for key in keys {
            path.push(key.clone());
            differing(was.get(key), is.get(key), path, found);
            path.pop();
        }
    } else if from != to {
        found.push(Edit { path: path.clone(), from: from.cloned(), to: to.cloned() });
    }
}

/// Puts changes together that are those of one variable, or the same in several stages of a matrix.
fn together(changes: Vec<Change>, a: &Value, b: &Value) -> Vec<Change> {
    let changed: Vec<(&String, &Value, &Value)> = b["vars"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, to)| Some((name, a["vars"].get(name)?, to)))
        .filter(|(_, from, to)| from != to)
        .collect();
    let mut found: IndexMap<String, Change> = IndexMap::new();
    for change in changes {
        let explains = |(_, from, to): &&(&String, &Value, &Value)| is_put_in(&change, from, to);
        let mut variables = changed.iter().filter(explains);
        let (name, from, to) = match (variables.next(), variables.next()) {
            (Some((name, from, to)), None) => {
                (format!("vars.{name}"), Some((*from).clone()), Some((*to).clone()))
            }
            _ => (change.name.clone(), change.from, change.to),
        };
        // Of a matrix the same parameter may change otherwise in each stage.
        let key = format!("{name} {from:?} {to:?}");
        let all = found.entry(key).or_insert_with(|| Change { name, from, to, edits: Vec::new() });
        all.edits.extend(change.edits);
    }
    found.into_values().collect()
}

/// Whether a change is what comes of a variable that goes from `from` to `to`: as a whole, or in a text.
fn is_put_in(change: &Change, from: &Value, to: &Value) -> bool {
    let (Some(was), Some(is)) = (&change.from, &change.to) else { return false };
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    };
    let in_text = || {
        let (was, is, from, to) = (was.as_str()?, is.as_str()?, text(from)?, text(to)?);
        Some(!from.is_empty() && was.contains(&from) && was.replace(&from, &to) == is)
    };
    (was, is) == (from, to) || in_text().unwrap_or(false)
}

/// The part of `document` that the stage `wanted` needs.
pub fn part(document: &Value, wanted: &str) -> Value {
    let mut part = document.clone();
    let needed = upstream(document, wanted);
    if let Some(stages) = part.get_mut("stages").and_then(Value::as_object_mut) {
        stages.retain(|stage, _| needed.contains(stage));
    }
    if let Some(map) = part.as_object_mut() {
        // What others have published is not about an experiment with parts of it changed.
        map.remove("expect");
    }
    part
}

impl Change {
    /// Whether `pipe run --set` writes its values.
    pub fn is_setting(&self) -> bool {
        let is_one =
            |edit: &Edit| edit.path.len() == 1 || edit.path.get(2).is_some_and(|place| place == "with");
        self.edits.iter().all(is_one) || self.name.starts_with("vars.")
    }

    /// The pipeline of the first run with this change, for the stage `wanted`; stages that it brings are those
    /// of the second.
    pub fn made(&self, first: &Value, second: &Value, wanted: &str) -> Value {
        let edits = self.edits.iter().map(|edit| (&edit.path, edit.to.as_ref()));
        part(&edited(first, second, edits), wanted)
    }

    /// The pipeline of the second run without this change.
    pub fn undone(&self, first: &Value, second: &Value, wanted: &str) -> Value {
        let edits = self.edits.iter().map(|edit| (&edit.path, edit.from.as_ref()));
        part(&edited(second, first, edits), wanted)
    }
}

/// `document` with other values, and the stages that only `other` has.
fn edited<'e>(
    document: &Value,
    other: &Value,
    edits: impl Iterator<Item = (&'e Vec<String>, Option<&'e Value>)>,
) -> Value {
    let mut document = document.clone();
    if let (Some(stages), Some(others)) =
        (document.get_mut("stages").and_then(Value::as_object_mut), other["stages"].as_object())
    {
        for (stage, node) in others {
            stages.entry(stage).or_insert_with(|| node.clone());
        }
    }
    for (path, value) in edits {
        set(&mut document, path, value);
    }
    document
}

fn set(document: &mut Value, path: &[String], value: Option<&Value>) {
    let Some((last, above)) = path.split_last() else { return };
    let mut at = document;
    for key in above {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let map = at.as_object_mut().expect("it was made one");
        at = map.entry(key).or_insert(Value::Null);
    }
    if !at.is_object() {
        *at = Value::Object(Map::new());
    }
    let map = at.as_object_mut().expect("it was made one");
    match value {
        Some(value) => drop(map.insert(last.clone(), value.clone())),
        None => drop(map.remove(last)),
    }
}
