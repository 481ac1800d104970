//! Lays profiles and `--set` over a document.
//!
//! Maps merge, scalars and lists replace, `null` removes. Where a stage gets a new `kind`, and
//! where an input gets a new source, what was there before goes as a whole.

use indexmap::IndexMap;
use pipe_stages::contract::StageKind;

use super::{
    commands::new_values,
    document::{self, Node},
    places::{Layer, Text, Written},
    problem::Finding,
    suggest::Suggestions,
};

/// Words that `--set` reads as parts of the document; no stage can be called so.
pub(super) const RESERVED: [&str; 6] = ["name", "seed", "vars", "stages", "expect", "profiles"];
/// What a stage can say besides its parameters.
const STAGE_FIELDS: [&str; 7] = ["kind", "matrix", "in", "with", "resources", "retry", "timeout"];

/// Lays `over` over the whole document `base`.
pub(super) fn lay(base: &mut Node, over: Node) {
    merge(base, over, Level::Document);
}

/// What a map is, where that decides how it merges.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Level {
    Document,
    Stages,
    Stage,
    Inputs,
    Input,
    Plain,
}

impl Level {
    fn below(self, key: &str) -> Level {
        match (self, key) {
            (Level::Document, "stages") => Level::Stages,
            (Level::Stages, _) => Level::Stage,
            // An expectation, too, is replaced as a whole: another value has another source.
            (Level::Document, "expect") => Level::Inputs,
            (Level::Stage, "in") => Level::Inputs,
            (Level::Inputs, _) => Level::Input,
            _ => Level::Plain,
        }
    }
}

fn merge(base: &mut Node, over: Node, level: Level) {
    match (base, over) {
        (Node::Map(base), Node::Map(over)) if level != Level::Input => {
            if level == Level::Stage && over.get("kind").is_some_and(|kind| base.get("kind") != Some(kind)) {
                base.clear();
            }
            for (key, value) in over {
                match base.get_mut(&key) {
                    _ if value == Node::Null => {
                        base.shift_remove(&key);
                    }
                    Some(before) => merge(before, value, level.below(&key)),
                    None => {
                        base.insert(key, without_nulls(value));
                    }
                }
            }
        }
        (base, over) => *base = without_nulls(over),
    }
}

fn without_nulls(node: Node) -> Node {
    match node {
        Node::Map(map) => {
            let kept = map.into_iter().filter(|(_, value)| *value != Node::Null);
            Node::Map(kept.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        other => other,
    }
}

/// Lays `PATH=VALUE` over the document and returns the layer that it makes, with the paths of values where
/// nothing was before.
pub(super) fn set(
    document: &mut Node,
    setting: &str,
    kinds: &[StageKind],
    suggestions: &Suggestions,
) -> Result<(Layer, Vec<Vec<String>>), Vec<Finding>> {
    let text = Text::option("--set", setting);
    let wrong = |code, message: String| Finding::new(code, message).bytes(&text, 0..setting.len(), None);
    let Some((left, right)) = setting.split_once('=') else {
        let found = wrong("not_a_setting", format!("`--set {setting}` has no `=`"));
        return Err(vec![
            found.help("write `--set lora.rank=16`, `--set vars.train=100` or `--set seed=7`".to_owned()),
        ]);
    };
    let segments: Vec<&str> = left.trim().split('.').map(str::trim).collect();
    if segments.iter().any(|segment| segment.is_empty()) || segments.len() > 32 {
        let found = wrong("not_a_setting", format!("`{left}` is not a dotted path such as `lora.rank`"));
        return Err(vec![found]);
    }
    let value_at = left.len() + 1..setting.len();
    let value = document::read(&Text::option("--set", right));
    let value = match value {
        Ok((value, duplicates)) if duplicates.is_empty() => value,
        Ok((_, mut found)) => {
            let Finding { code, message, help, .. } = found.swap_remove(0);
            return Err(vec![Finding::new(code, message).bytes(&text, value_at, None).help(help)]);
        }
        Err(finding) => {
            let message = format!("the value of `{}`: {}", left.trim(), finding.message);
            return Err(vec![
                Finding::new(finding.code, message).bytes(&text, value_at, None).help(finding.help),
            ]);
        }
    };
    let path = resolve_path(document, &segments, kinds, suggestions)
        .map_err(|found| vec![found.bytes(&text, 0..left.len(), None)])?;
    nothing_in_the_way(document, &path).map_err(|found| vec![found.bytes(&text, 0..left.len(), None)])?;
    let added = new_values(document, &path, &value);
    let over = path.iter().rev().fold(value, |node, key| Node::Map(IndexMap::from([(key.clone(), node)])));
    lay(document, over);
    Ok((Layer { text, written: Written::Setting { path, value: value_at } }, added))
}

/// The path of the document that the left side of a setting means.
fn resolve_path(
    document: &Node,
    segments: &[&str],
    kinds: &[StageKind],
    suggestions: &Suggestions,
) -> Result<Vec<String>, Finding> {
    let owned = |segments: &[&str]| segments.iter().map(|segment| (*segment).to_owned()).collect::<Vec<_>>();
    let no_stages = IndexMap::new();
    let stages = document.get("stages").and_then(Node::as_map).unwrap_or(&no_stages);
    match segments {
        ["name" | "seed" | "vars" | "stages" | "expect"] | ["stages", _] => Ok(owned(segments)),
        ["expect", ..] => Err(Finding::new("not_a_setting", "an expectation cannot be set by itself")
            .help("set all: `--set \"expect={eval.lora.accuracy: {value: 0.9, tolerance: 0.01}}\"`, or `--set expect=null`".to_owned())),
        ["vars", variable, ..] => {
            let vars = document.get("vars").and_then(Node::as_map);
            if vars.is_some_and(|vars| vars.contains_key(*variable)) {
                return Ok(owned(segments));
            }
            let names = vars.into_iter().flat_map(IndexMap::keys).map(String::as_str);
            Err(Finding::new("unknown_variable", format!("the pipeline has no variable `{variable}`"))
                .help(suggestions.help(variable, "variables are", names.collect::<Vec<_>>())))
        }
        ["stages", stage, ..] if stages.contains_key(*stage) => Ok(owned(segments)),
        ["stages", stage, ..] => Err(unknown_stage(stage, stages, suggestions)),
        ["profiles", ..] => Err(Finding::new("not_a_setting", "a profile cannot be set")
            .help("choose one with `--profile`, or set the value itself".to_owned())),
        [stage, parameter @ ..] if stages.contains_key(*stage) => {
            let kind = stages[*stage].get("kind").and_then(Node::as_text);
            let kind = kind.and_then(|name| kinds.iter().find(|kind| kind.name == name));
            let has = |name: &str| kind.is_some_and(|kind| parameters(kind).any(|known| known == name));
            match parameter {
                [] => Err(Finding::new("not_a_setting", format!("`{stage}` is a stage, not a value"))
                    .help(format!("name a parameter: `--set {stage}.PARAMETER=VALUE`"))),
                ["seed"] if !has("seed") && kind.is_some_and(|kind| kind.draws) => {
                    Ok(owned(&["stages", stage, "seed"]))
                }
                [field, ..] if STAGE_FIELDS.contains(field) && kind.is_some() && !has(field) => {
                    let whole = segments.join(".");
                    Err(Finding::new("unknown_parameter", format!("`{stage}` has no parameter `{field}`"))
                        .help(format!("for the stage's `{field}`, write `--set stages.{whole}=…`")))
                }
                _ => Ok(["stages", stage, "with"].iter().chain(parameter).map(|s| (*s).to_owned()).collect()),
            }
        }
        [variable, ..] if document.get("vars").and_then(Node::as_map).is_some_and(|vars| vars.contains_key(*variable)) => {
            Err(Finding::new("unknown_stage", format!("the pipeline has no stage `{variable}`"))
                .help(format!("`{variable}` is a variable: write `--set vars.{}=…`", segments.join("."))))
        }
        [stage, ..] => Err(unknown_stage(stage, stages, suggestions)),
        [] => Err(Finding::new("not_a_setting", "nothing is named")),
    }
}

fn unknown_stage(stage: &str, stages: &IndexMap<String, Node>, suggestions: &Suggestions) -> Finding {
    let names = stages.keys().map(String::as_str);
    Finding::new("unknown_stage", format!("the pipeline has no stage `{stage}`")).help(suggestions.help(
        stage,
        "stages are",
        names,
    ))
}

/// Refuses to set something below a value that is no map.
fn nothing_in_the_way(document: &Node, path: &[String]) -> Result<(), Finding> {
    let mut node = document;
    for (index, segment) in path.iter().enumerate() {
        match node {
            Node::Map(map) => match map.get(segment) {
                Some(next) => node = next,
                None => return Ok(()),
            },
            Node::Null => return Ok(()),
            other => {
                let message = format!(
                    "`{}` is {}, so it has no `{segment}` to set",
                    path[..index].join("."),
                    other.describe()
                );
                let help = matches!(other, Node::List(_))
                    .then(|| "a list is set as a whole: `NAME=[a, b]`".to_owned());
                return Err(Finding::new("wrong_type", message).help(help));
            }
        }
    }
    Ok(())
}

/// The names of the parameters of `kind`.
pub(super) fn parameters(kind: &StageKind) -> impl Iterator<Item = String> {
    let schema = kind.schema();
    let properties = schema.get("properties").and_then(serde_json::Value::as_object);
    properties.map(|map| map.keys().cloned().collect::<Vec<_>>()).unwrap_or_default().into_iter()
}
