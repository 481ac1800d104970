//! The profiles that a pipeline file declares.

use std::collections::HashSet;

use indexmap::IndexMap;

use super::{
    document::Node,
    places::{Part, Spot},
    problem::Finding,
    suggest::Suggestions,
};

/// What a profile can change.
pub(super) const FIELDS: [&str; 5] = ["name", "seed", "vars", "stages", "expect"];

/// The names of the profiles; reports those that are not overlays.
pub(super) fn declared(
    document: &Node,
    suggestions: &Suggestions,
    findings: &mut Vec<Finding>,
) -> Vec<String> {
    let none = IndexMap::new();
    let profiles = match document.get("profiles") {
        None | Some(Node::Null) => &none,
        Some(Node::Map(profiles)) => profiles,
        Some(other) => {
            let message = format!("`profiles` must be a map of names and overlays, not {}", other.describe());
            findings.push(Finding::new("wrong_type", message).at(Spot::value(&["profiles"])));
            &none
        }
    };
    let stages_of = |node: &Node| -> Vec<String> {
        let stages = node.get("stages").and_then(Node::as_map);
        stages.into_iter().flat_map(IndexMap::keys).cloned().collect()
    };
    let known: HashSet<String> = [document]
        .into_iter()
        .chain(profiles.values())
        .flat_map(|node| {
            let stages = node.get("stages").and_then(Node::as_map);
            let named = stages.into_iter().flatten().filter(|(_, stage)| **stage != Node::Null);
            named.map(|(name, _)| name.clone()).collect::<Vec<_>>()
        })
        .collect();
    for (name, over) in profiles {
        if name.contains(char::is_control) {
            let message = "the name of a profile is one line without control characters";
            findings.push(Finding::new("bad_name", message).at(Spot::key(&["profiles", name])));
        }
        let spot = Spot::value(&["profiles", name]);
        let Some(map) = over.as_map() else {
            if *over != Node::Null {
                let message =
                    format!("profile `{name}` must be a map like the pipeline's, not {}", over.describe());
                findings.push(Finding::new("wrong_type", message).at(spot));
            }
            continue;
        };
        for field in map.keys().filter(|field| !FIELDS.contains(&field.as_str())) {
            let help = suggestions.help(field, "it can hold", FIELDS);
            let spot = Spot::key(&["profiles", name, field]);
            let message = format!("a profile has no field `{field}`");
            findings.push(Finding::new("unknown_field", message).at(spot).help(help));
        }
        let set = over.get("vars").and_then(Node::as_map).into_iter().flat_map(IndexMap::keys);
        for variable in set.filter(|variable| !is_variable(document, variable)) {
            let message =
                format!("profile `{name}` sets variable `{variable}`, which the pipeline does not have");
            let known = document.get("vars").and_then(Node::as_map).into_iter().flat_map(IndexMap::keys);
            let help = suggestions.help(variable, "variables are", known.map(String::as_str));
            let spot = Spot::key(&["profiles", name, "vars", variable]);
            findings.push(Finding::new("unknown_variable", message).at(spot).help(help));
        }
        for stage in stages_of(over).iter().filter(|stage| !known.contains(*stage)) {
            let message = format!("profile `{name}` removes stage `{stage}`, which does not exist");
            let help = suggestions.nearest(stage, known.iter().map(String::as_str));
            let spot = Spot { part: Part::Key, ..Spot::key(&["profiles", name, "stages", stage]) };
            let found = Finding::new("unknown_stage", message).at(spot);
            findings.push(found.help(help.map(|near| format!("did you mean `{near}`?"))));
        }
    }
    profiles.keys().cloned().collect()
}

/// Whether the file declares the variable `name`, or speaks of it anywhere: a profile may bring both.
fn is_variable(document: &Node, name: &str) -> bool {
    fn speaks_of(node: &Node, variable: &str) -> bool {
        match node {
            Node::Text(text) => text.contains(variable),
            Node::List(items) => items.iter().any(|item| speaks_of(item, variable)),
            Node::Map(map) => map.values().any(|value| speaks_of(value, variable)),
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::Unfit(_) => false,
        }
    }
    let declared = document.get("vars").and_then(Node::as_map).is_some_and(|vars| vars.contains_key(name));
    declared || speaks_of(document, &format!("vars.{name}}}"))
}
