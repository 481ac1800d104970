//! What is wrong with commands though each of their parameters is right, or worth knowing: parameters that no
//! placeholder takes, failures that nobody would see.

use pipe_stages::{
    contract::Stage,
    kinds::shell::{Shell, hides_failures, unused_params},
};

use super::{
    StageSpec,
    document::Node,
    places::{Layer, Spot, Written},
    problem::Finding,
    suggest::Suggestions,
};
use crate::names::base;

/// What settings have put where the file has nothing: dotted paths, each with the layer that did.
pub(super) type Added<'a> = Vec<(Vec<String>, &'a Layer)>;

/// The values of `over` at which `document` has nothing, by their paths; `path` is where `over` is laid.
pub(super) fn new_values(document: &Node, path: &[String], over: &Node) -> Vec<Vec<String>> {
    if let Node::Map(map) = over {
        let below = |(key, value): (&String, &Node)| {
            new_values(document, &[path, std::slice::from_ref(key)].concat(), value)
        };
        return map.iter().flat_map(below).collect();
    }
    let before = path.iter().try_fold(document, |node, key| node.get(key));
    if before.is_none() && *over != Node::Null { vec![path.to_vec()] } else { Vec::new() }
}

/// What is wrong with `stage` if it is a command, and what is worth knowing about it.
pub(super) fn look(
    stage: &StageSpec,
    added: &Added<'_>,
    suggestions: &Suggestions,
) -> (Vec<Finding>, Vec<Finding>) {
    if stage.kind.name != Shell::KIND {
        return (Vec::new(), Vec::new());
    }
    let (wrong, mut notes) = unused(stage, added, suggestions);
    if hides_failures(&stage.params) {
        let message = format!(
            "what fails before a `|` in the command of stage `{}` is not seen: `pipefail: true` under `with` \
             fails the stage",
            stage.name
        );
        let found = Finding::new("hidden_failure", message);
        notes.push(found.at(Spot::value(&["stages", &stage.name, "with", "command"])));
    }
    (wrong, notes)
}

/// What is wrong with the parameters that settings have added to `stage`, and which of those that are written
/// in the file no placeholder takes: the command cannot know them.
fn unused(stage: &StageSpec, added: &Added<'_>, suggestions: &Suggestions) -> (Vec<Finding>, Vec<Finding>) {
    let (mut wrong, mut notes) = (Vec::new(), Vec::new());
    if top_level(&stage.params).next().is_none() {
        return (wrong, notes);
    }
    let unused = unused_params(&stage.params);
    for name in &unused {
        let spot = Spot::key(&["stages", &stage.name, "with", "params"]).below(name);
        let is_here = |path: &[String]| {
            // Settings speak of all instances of a matrix at once.
            path.len() == spot.path.len()
                && path
                    .iter()
                    .zip(&spot.path)
                    .enumerate()
                    .all(|(at, (told, here))| told == here || (at == 1 && told == base(here)))
        };
        let setting = added.iter().find(|(path, _)| is_here(path));
        let Some((_, Layer { text, written: Written::Setting { value, .. } })) = setting else {
            let message = format!(
                "the command of stage `{}` takes no `{{params.{name}}}`: the parameter decides reruns alone",
                stage.name
            );
            notes.push(Finding::new("unused_parameter", message).at(spot));
            continue;
        };
        let written = base(&stage.name);
        let message = format!("the command of stage `{written}` has no parameter `{name}`");
        let others = top_level(&stage.params).filter(|other| !unused.contains(other)).collect::<Vec<_>>();
        let near = suggestions.nearest(name, others.iter().map(String::as_str));
        let help = match near {
            Some(near) => format!("did you mean `{written}.params.{near}`?"),
            None => format!("it would be given to the command by `{{params.{name}}}`"),
        };
        let found = Finding::new("unknown_parameter", message).help(help);
        wrong.push(found.bytes(text, 0..value.start.saturating_sub(1), None));
    }
    (wrong, notes)
}

/// The names of a command's own parameters.
fn top_level(params: &serde_json::Value) -> impl Iterator<Item = String> {
    let map = params.get("params").and_then(serde_json::Value::as_object);
    map.into_iter().flatten().map(|(name, _)| name.clone())
}
