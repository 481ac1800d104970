//! The axes that a stage declares: `rank: [4, 8]`, or `size: { small: { n_layer: 2 }, large: { n_layer: 12 } }`.

use indexmap::IndexMap;

use super::{
    super::{
        check::is_name,
        document::Node,
        places::{Part, Spot},
        problem::Finding,
        variables::Given,
    },
    Axes, Planning,
};

/// Longest value that stands for itself in a name, in bytes.
const LONGEST_VALUE: usize = 40;

/// One axis of a matrix.
pub(super) struct Axis {
    pub name: String,
    /// What is put in for `${matrix.NAME}`, by what names of stages say.
    pub values: IndexMap<String, Given>,
}

impl Planning<'_> {
    /// The axes that a stage declares.
    pub(super) fn declared(&mut self, stage: &str, node: &Node) -> Axes {
        let mut axes = Axes::new();
        let Some(matrix) = node.get("matrix").filter(|matrix| **matrix != Node::Null) else { return axes };
        let spot = Spot::value(&["stages", stage, "matrix"]);
        let Some(map) = matrix.as_map() else {
            let message =
                format!("`matrix` must be a map of names and lists of values, not {}", matrix.describe());
            let help =
                "write `matrix: { rank: [4, 8] }`, and `${matrix.rank}` where the value belongs".to_owned();
            self.report("wrong_type", message, spot, help);
            return axes;
        };
        for (name, values) in map {
            let spot = Spot::key(&["stages", stage, "matrix", name]);
            if !is_name(name) {
                let message =
                    format!("axis `{name}` must be named with letters a-z, digits and `_`, a letter first");
                self.report("bad_name", message, spot, None);
                continue;
            }
            if self.is_useless(node, name) {
                let message = format!("stage `{stage}` does not use its axis `{name}`");
                let help = format!("write `${{matrix.{name}}}` where its value belongs");
                self.report("useless_axis", message, spot, help);
            }
            let values = match values_of(stage, name, values) {
                Ok(values) => values,
                Err(found) => {
                    self.findings.push(found);
                    continue;
                }
            };
            let alike = |axis: &Axis| axis.name == *name && same(&axis.values, &values);
            let place = self.axes.iter().position(alike).unwrap_or_else(|| {
                self.axes.push(Axis { name: name.clone(), values });
                self.axes.len() - 1
            });
            axes.insert(place);
        }
        axes
    }

    /// Whether nothing in a stage speaks of its axis, nor of something that may be meant for it.
    fn is_useless(&self, stage: &Node, axis: &str) -> bool {
        let is_known = |name: &str| {
            self.stages
                .values()
                .any(|stage| stage.get("matrix").is_some_and(|matrix| matrix.get(name).is_some()))
        };
        let mut is_useless = true;
        for (_, node) in stage.as_map().into_iter().flatten().filter(|(field, _)| *field != "matrix") {
            references(node, &mut |reference| {
                let name =
                    reference.strip_prefix("matrix.").map(|name| name.split('.').next().unwrap_or(name));
                let may_be_meant = name.map_or(reference == axis, |name| name == axis || !is_known(name));
                is_useless &= !may_be_meant;
            });
        }
        is_useless
    }
}

/// The values of an axis by their names: what `matrix` says of it.
fn values_of(stage: &str, axis: &str, node: &Node) -> Result<IndexMap<String, Given>, Finding> {
    let path = ["stages", stage, "matrix", axis].map(str::to_owned);
    let below = |key: &str| [&path[..], &[key.to_owned()]].concat();
    let written: Vec<(String, Option<String>, &Node)> = match node {
        Node::List(items) => {
            items.iter().enumerate().map(|(at, item)| (at.to_string(), own_name(item), item)).collect()
        }
        Node::Map(map) => map.iter().map(|(name, value)| (name.clone(), Some(name.clone()), value)).collect(),
        other => {
            let wanted = "a list of values, or a map of names and values";
            let message = format!("axis `{axis}` must be {wanted}, not {}", other.describe());
            return Err(Finding::new("wrong_type", message).at(Spot::of_value(&path)));
        }
    };
    let part = if matches!(node, Node::Map(_)) { Part::Key } else { Part::Value };
    let mut values = IndexMap::new();
    for (key, name, value) in written {
        let spot = Spot { path: below(&key), part };
        let Some(name) = name.filter(|name| is_part_of_a_name(name)) else {
            let what = if part == Part::Key { format!("`{key}`") } else { value.describe() };
            let help = format!(
                "name each value, as in `{axis}: {{ NAME: VALUE, … }}`, with letters, digits, `_`, `.`, `+` and \
                 `-`, {LONGEST_VALUE} at most"
            );
            let found = Finding::new("bad_name", format!("{what} cannot be part of a stage's name"));
            return Err(found.at(spot).help(help));
        };
        let given = Given { name: format!("matrix.{axis}"), path: below(&key), value: value.clone() };
        if values.contains_key(&name) {
            let message = format!("`{name}` is written twice on axis `{axis}`");
            return Err(Finding::new("duplicate_value", message).at(spot));
        }
        values.insert(name, given);
    }
    if values.is_empty() {
        let found = Finding::new("no_values", format!("axis `{axis}` has no values"));
        return Err(found.at(Spot::of_value(&path)));
    }
    Ok(values)
}

/// What a value is called that is given no name.
fn own_name(value: &Node) -> Option<String> {
    match value {
        Node::Number(number) => Some(number.to_string()),
        Node::Bool(value) => Some(value.to_string()),
        Node::Text(text) => Some(text.clone()),
        Node::Null | Node::List(_) | Node::Map(_) | Node::Unfit(_) => None,
    }
}

fn same(a: &IndexMap<String, Given>, b: &IndexMap<String, Given>) -> bool {
    let plain = |values: &IndexMap<String, Given>| -> Vec<_> {
        values.iter().map(|(label, given)| (label.clone(), given.value.clone())).collect()
    };
    plain(a) == plain(b)
}

fn is_part_of_a_name(text: &str) -> bool {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '+' | '-');
    !text.is_empty() && text.len() <= LONGEST_VALUE && text.chars().all(is_of_name)
}

/// Calls `found` with what stands between `${` and `}` in all texts of `node`.
fn references<'n>(node: &'n Node, found: &mut impl FnMut(&'n str)) {
    match node {
        Node::Text(text) => {
            text.split("${")
                .skip(1)
                .filter_map(|rest| rest.split('}').next())
                .for_each(|it| found(it.trim()));
        }
        Node::List(items) => items.iter().for_each(|item| references(item, found)),
        Node::Map(map) => map.values().for_each(|value| references(value, found)),
        Node::Null | Node::Bool(_) | Node::Number(_) | Node::Unfit(_) => {}
    }
}
