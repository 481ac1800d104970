//! Checks what a pipeline expects to come out: published values with tolerances.
//!
//! What they are compared with is known only after a run, so that is done from the record
//! ([`crate::runs::expected`]); none of it is in any key.

use indexmap::IndexMap;
use pipe_stages::contract::{Inputs, MetricDoc};

use super::{
    check::{Checker, Draft},
    document::Node,
    places::Spot,
    problem::Finding,
};
use crate::names::split_stage;

const FIELDS: [&str; 3] = ["value", "tolerance", "source"];

pub(super) fn check(node: &Node, drafts: &IndexMap<String, Draft>, checker: &mut Checker<'_>) {
    let Some(map) = node.as_map() else {
        if *node != Node::Null {
            checker.wrong_type("expect", node, "a map of metrics and values", &["expect"]);
        }
        return;
    };
    for (metric, node) in map {
        if let Some(found) = unknown(metric, drafts, checker) {
            checker.findings.push(found);
        }
        expectation(metric, node, checker);
    }
}

fn expectation(metric: &str, node: &Node, checker: &mut Checker<'_>) {
    let Some(map) = node.as_map() else {
        let wanted = "a map such as `{ value: 0.92, tolerance: 0.005 }`";
        checker.wrong_type(&format!("expectation `{metric}`"), node, wanted, &["expect", metric]);
        return;
    };
    checker.known_fields(map.keys(), &FIELDS, "an expectation", &["expect", metric]);
    for field in ["value", "tolerance"] {
        let path = ["expect", metric, field];
        match map.get(field) {
            Some(Node::Number(number))
                if field == "value" || number.as_f64().is_some_and(|number| number >= 0.0) => {}
            Some(other) => {
                let wanted = if field == "value" { "a number" } else { "a number from 0" };
                checker.wrong_type(field, other, wanted, &path);
            }
            None => {
                let message = format!("expectation `{metric}` has no `{field}`");
                let found = Finding::new("missing_field", message).at(Spot::key(&["expect", metric]));
                let help = match field {
                    "value" => "the value that was published".to_owned(),
                    _ => "how far off it may be and still count as reproduced".to_owned(),
                };
                checker.findings.push(found.help(help));
            }
        }
    }
    if let Some(other) = map.get("source").filter(|source| source.as_text().is_none()) {
        checker.wrong_type("source", other, "a text", &["expect", metric, "source"]);
    }
}

/// What is wrong with the name of a metric, as far as that is known before a run: some kinds say
/// what they measure, programs do not.
fn unknown(metric: &str, drafts: &IndexMap<String, Draft>, checker: &Checker<'_>) -> Option<Finding> {
    let spot = || Spot::key(&["expect", metric]);
    let wrong = |message: String, help: Option<String>| {
        Some(Finding::new("unknown_metric", message).at(spot()).help(help))
    };
    let (stage, name) = split_stage(metric);
    let name = name.unwrap_or_default();
    let Some(draft) = drafts.get(stage) else {
        let help = checker.suggestions.help(stage, "stages are", drafts.keys().map(String::as_str));
        return wrong(format!("`{metric}` is of stage `{stage}`, which is not in the pipeline"), help);
    };
    let kind = draft.kind?;
    if name.is_empty() {
        let example = kind.metrics().first().map(|doc| format!("such as `{stage}.{}`", doc.name));
        return wrong(format!("`{metric}` names a stage and no metric of it"), example);
    }
    if kind.metrics().is_empty() {
        return None;
    }
    let Some(doc) = kind.metrics().iter().find(|doc| doc.matches(name)) else {
        let last = |name: &'static str| name.rsplit('.').next().unwrap_or(name);
        let names: Vec<&str> = kind.metrics().iter().map(|doc| last(doc.name)).collect();
        let written = name.rsplit('.').next().unwrap_or(name);
        let near = checker.suggestions.nearest(written, names);
        let help = near.map(|near| format!("did you mean `{near}`?"));
        let all = || Some(format!("`pipe stages {}` lists them", kind.name));
        return wrong(format!("kind `{}` has no metric `{name}`", kind.name), help.or_else(all));
    };
    unknown_input(stage, name, doc, draft, checker).and_then(|(message, help)| wrong(message, help))
}

/// Metrics of kinds whose inputs the pipeline names begin with an input.
fn unknown_input(
    stage: &str,
    name: &str,
    doc: &MetricDoc,
    draft: &Draft,
    checker: &Checker<'_>,
) -> Option<(String, Option<String>)> {
    let ports = &draft.resolved.as_ref()?.ports;
    let first = split_stage(name).0;
    let names_an_input = matches!(ports.inputs, Inputs::Named { .. }) && doc.name.starts_with("*.");
    if !names_an_input || draft.wanted.contains_key(first) {
        return None;
    }
    let names = draft.wanted.keys().map(String::as_str);
    let help = checker.suggestions.help(first, "inputs are", names);
    Some((format!("stage `{stage}` has no input `{first}`, so no metric `{name}`"), help))
}
