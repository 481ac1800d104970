//! Stages with a `matrix:` become one stage for each combination of its values.
//!
//! ```text
//! lora: { matrix: { rank: [4, 8] } }        lora[rank=4], lora[rank=8]
//! tuned: { in: { model: lora } }            tuned[rank=4] from lora[rank=4], tuned[rank=8] from lora[rank=8]
//! eval: { in: { m: { gather: tuned } } }    eval, with inputs m[rank=4] and m[rank=8]
//! ```
//!
//! A stage has the axes that it declares and those of the stages that it takes from, unless it gathers
//! them. What follows knows no matrix: after this, instances are stages like any other, and
//! `${matrix.rank}` is put in with the variables.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use indexmap::IndexMap;

use super::{
    document::Node,
    inputs::{self, Wires},
    places::Spot,
    problem::Finding,
    suggest::Suggestions,
    variables::{Given, Scopes},
};
use crate::names::{Instance, split_stage};

/// The most instances that one stage can have.
const MOST_INSTANCES: usize = 10_000;
/// Longest value that stands for itself in a name, in bytes.
const LONGEST_VALUE: usize = 40;

/// The code of what is said of an axis that is not there, which may be so for another reason that is told.
pub(super) const UNKNOWN_AXIS: &str = "unknown_axis";
/// Fields of an input that gathers.
const GATHER_FIELDS: [&str; 2] = ["gather", "over"];

/// One axis of a matrix.
#[derive(Debug)]
struct Axis {
    name: String,
    /// What is put in for `${matrix.NAME}`, by what names of stages say.
    values: IndexMap<String, Given>,
}

/// Axes by their places among all.
type Axes = BTreeSet<usize>;
/// Where an instance is on each of its axes: the place of the value.
type Place = BTreeMap<usize, usize>;

/// An input that is taken from another stage, as the file has it.
struct Taken {
    stage: String,
    /// The axes of that stage whose value is written, as `lora[rank=8]` does.
    chosen: Vec<(String, String)>,
    output: Option<String>,
    /// Whether all of a matrix are taken at once, and over which axes; over all if none is named.
    gathers: Option<Option<Vec<String>>>,
}

/// What is to be made of the stages.
pub(super) struct Plan {
    axes: Vec<Axis>,
    /// The axes of each stage.
    of_stage: HashMap<String, Axes>,
}

/// Whether anything in `document` speaks of a matrix.
pub(super) fn is_needed(document: &Node) -> bool {
    let gathers = |input: &Node| input.get("gather").is_some();
    let speaks = |stage: &Node| {
        let inputs = stage.get("in").and_then(Node::as_map);
        stage.get("matrix").is_some() || inputs.is_some_and(|inputs| inputs.values().any(gathers))
    };
    stages(document).is_some_and(|stages| stages.values().any(speaks))
}

/// What is wrong with the names of stages that are written as instances are called.
pub(super) fn written_names(document: &Node) -> Vec<Finding> {
    let names = stages(document).into_iter().flat_map(IndexMap::keys).filter(|name| name.contains('['));
    let refused = |name: &String| {
        let message =
            format!("stage `{name}` must be named with letters a-z, digits and `_`, a letter first");
        let help = "instances come of a matrix: `matrix: { AXIS: [VALUE, …] }` beside `kind`".to_owned();
        Finding::new("bad_name", message).at(Spot::key(&["stages", name])).help(help)
    };
    names.map(refused).collect()
}

fn stages(document: &Node) -> Option<&IndexMap<String, Node>> {
    document.get("stages").and_then(Node::as_map)
}

/// Reads all matrices of `document`, whose variables are put in.
pub(super) fn plan(document: &Node, suggestions: &Suggestions) -> Result<Plan, Vec<Finding>> {
    let none = IndexMap::new();
    let stages = stages(document).unwrap_or(&none);
    let mut planning =
        Planning { stages, suggestions, axes: Vec::new(), own: HashMap::new(), findings: Vec::new() };
    for (name, stage) in stages {
        let own = planning.declared(name, stage);
        planning.own.insert(name, own);
    }
    // What is wrong with an axis is wrong with all that is said of it.
    if !planning.findings.is_empty() {
        return Err(planning.findings);
    }
    let wires = planning.wires();
    let graph = match inputs::graph(&wires) {
        Ok(graph) => graph,
        Err(cycles) => return Err(cycles),
    };
    let mut of_stage = HashMap::new();
    for name in graph.order() {
        let axes = planning.axes_of(name, &of_stage);
        of_stage.insert(name.to_owned(), axes);
    }
    let Planning { axes, mut findings, .. } = planning;
    if findings.iter().any(|found| found.code == "unknown_stage") {
        findings.retain(|found| found.code != UNKNOWN_AXIS);
    }
    if findings.is_empty() { Ok(Plan { axes, of_stage }) } else { Err(findings) }
}

struct Planning<'d> {
    stages: &'d IndexMap<String, Node>,
    suggestions: &'d Suggestions,
    axes: Vec<Axis>,
    /// The axes that each stage declares.
    own: HashMap<&'d str, Axes>,
    findings: Vec<Finding>,
}

impl<'d> Planning<'d> {
    fn report(&mut self, code: &'static str, message: String, spot: Spot, help: impl Into<Option<String>>) {
        self.findings.push(Finding::new(code, message).at(spot).help(help));
    }

    fn wires(&self) -> Wires<'d> {
        let stages = self.stages;
        let fed = |(port, node)| {
            let (upstream, _) = stages.get_key_value(&Taken::read(node)?.stage)?;
            Some((port, upstream.as_str()))
        };
        stages.iter().map(|(name, node)| (name.as_str(), inputs_of(node).filter_map(fed).collect())).collect()
    }

    /// The axes that a stage declares.
    fn declared(&mut self, stage: &str, node: &Node) -> Axes {
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
            let Some(values) = self.values(stage, name, values) else { continue };
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

    /// The values of an axis by their names.
    fn values(&mut self, stage: &str, axis: &str, node: &Node) -> Option<IndexMap<String, Given>> {
        let path = ["stages", stage, "matrix", axis];
        let given = |value: &Node, key: &str| Given {
            name: format!("matrix.{axis}"),
            path: path.iter().copied().chain([key]).map(str::to_owned).collect(),
            value: value.clone(),
        };
        let mut values = IndexMap::new();
        match node {
            Node::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    let at = at.to_string();
                    let spot = Spot::value(&[path[0], path[1], path[2], path[3], &at]);
                    let label = match item {
                        Node::Number(number) => number.to_string(),
                        Node::Bool(value) => value.to_string(),
                        Node::Text(text) => text.clone(),
                        other => {
                            let message = format!(
                                "a value of axis `{axis}` is {}, which has no name",
                                other.describe()
                            );
                            let help = format!("name each: `{axis}: {{ NAME: VALUE, … }}`");
                            self.report("wrong_type", message, spot, help);
                            return None;
                        }
                    };
                    if !is_label(&label) {
                        let message = format!("{} cannot be part of a stage's name", item.describe());
                        let help = format!(
                            "name each value: `{axis}: {{ NAME: VALUE, … }}`, with letters, digits, `_`, `.`, `+` and `-`"
                        );
                        self.report("bad_name", message, spot, help);
                        return None;
                    }
                    let message = format!("`{label}` is written twice on axis `{axis}`");
                    if values.insert(label, given(item, &at)).is_some() {
                        self.report("duplicate_value", message, spot, None);
                        return None;
                    }
                }
            }
            Node::Map(map) => {
                for (label, value) in map {
                    if !is_label(label) {
                        let message = format!("`{label}` cannot be part of a stage's name");
                        let help = format!(
                            "name it with letters, digits, `_`, `.`, `+` and `-`, {LONGEST_VALUE} at most"
                        );
                        let spot = Spot::key(&[path[0], path[1], path[2], path[3], label]);
                        self.report("bad_name", message, spot, help);
                        return None;
                    }
                    values.insert(label.clone(), given(value, label));
                }
            }
            other => {
                let message = format!(
                    "axis `{axis}` must be a list of values, or a map of names and values, not {}",
                    other.describe()
                );
                self.report("wrong_type", message, Spot::value(&path), None);
                return None;
            }
        }
        if values.is_empty() {
            self.report("no_values", format!("axis `{axis}` has no values"), Spot::value(&path), None);
            return None;
        }
        Some(values)
    }

    /// The axes of a stage: its own and those of the stages that it takes from, which are `known`.
    fn axes_of(&mut self, name: &str, known: &HashMap<String, Axes>) -> Axes {
        let stages = self.stages;
        let mut axes = self.own.get(name).cloned().unwrap_or_default();
        let mut from: HashMap<usize, &str> = axes.iter().map(|axis| (*axis, "")).collect();
        for (port, node) in inputs_of(&stages[name]) {
            let Some(taken) = Taken::read(node) else {
                self.wrong_gather(name, port, node);
                continue;
            };
            let Some((upstream, _)) = stages.get_key_value(&taken.stage) else {
                let names = stages.keys().map(String::as_str);
                self.findings.push(inputs::unknown_stage(name, port, &taken.stage, names, self.suggestions));
                continue;
            };
            for axis in self.passed_on(name, port, &taken, &known[upstream]) {
                from.entry(axis).or_insert(upstream);
                axes.insert(axis);
            }
        }
        self.refuse_two_of_a_name(name, &axes, &from);
        let count =
            axes.iter().try_fold(1, |count: usize, axis| count.checked_mul(self.axes[*axis].values.len()));
        if count.is_none_or(|count| count > MOST_INSTANCES) {
            let message = format!("stage `{name}` has more than {MOST_INSTANCES} combinations of values");
            let help = "take fewer values, or axes in stages of their own".to_owned();
            self.report("too_many", message, Spot::key(&["stages", name]), help);
            axes.clear();
        }
        axes
    }

    /// Reports what is wrong with `{ gather: … }`, if the input is one.
    fn wrong_gather(&mut self, stage: &str, port: &str, node: &Node) {
        let Some(map) = node.as_map().filter(|map| map.contains_key("gather")) else { return };
        let path = ["stages", stage, "in", port];
        for field in map.keys().filter(|field| !GATHER_FIELDS.contains(&field.as_str())) {
            let help = self.suggestions.help(field, "fields are", GATHER_FIELDS);
            let spot = Spot::key(&[path[0], path[1], path[2], path[3], field]);
            self.report("unknown_field", format!("an input that gathers has no field `{field}`"), spot, help);
        }
        let mut wrong = |field: &str, wanted: &str, is_right: &dyn Fn(&Node) -> bool| {
            if let Some(given) = map.get(field).filter(|given| !is_right(given)) {
                let message = format!("`{field}` must be {wanted}, not {}", given.describe());
                let spot = Spot::value(&[path[0], path[1], path[2], path[3], field]);
                self.report("wrong_type", message, spot, None);
            }
        };
        let is_stage = |node: &Node| node.as_text().is_some_and(|text| !text.contains("${"));
        wrong("gather", "`STAGE` or `STAGE.OUTPUT`", &is_stage);
        wrong("over", "an axis or a list of axes", &|node| over(node).is_some());
    }

    /// Of the axes of a stage those that one that takes from it has, too.
    fn passed_on(&mut self, stage: &str, port: &str, taken: &Taken, theirs: &Axes) -> Axes {
        let spot = || Spot::value(&["stages", stage, "in", port]);
        let names: Vec<String> = theirs.iter().map(|axis| self.axes[*axis].name.clone()).collect();
        let mut left = theirs.clone();
        for (axis, value) in &taken.chosen {
            let Some(at) = left.iter().copied().find(|at| self.axes[*at].name == *axis) else {
                let message = match names.as_slice() {
                    [] => format!("stage `{}` has no matrix to choose from", taken.stage),
                    _ => format!("stage `{}` has no axis `{axis}`", taken.stage),
                };
                let help = self.suggestions.help(axis, "its axes are", names.iter().map(String::as_str));
                self.report(UNKNOWN_AXIS, message, spot(), help);
                continue;
            };
            if !self.axes[at].values.contains_key(value) {
                let values = self.axes[at].values.keys().map(String::as_str).collect::<Vec<_>>();
                let help = self.suggestions.help(value, "its values are", values);
                self.report("unknown_value", format!("axis `{axis}` has no value `{value}`"), spot(), help);
            }
            left.remove(&at);
        }
        match &taken.gathers {
            None => left,
            Some(_) if left.is_empty() && !names.is_empty() => {
                let message =
                    format!("every axis of stage `{}` is chosen, so nothing is left to gather", taken.stage);
                self.report("nothing_to_gather", message, spot(), "take it without `gather`".to_owned());
                left
            }
            Some(_) if left.is_empty() => {
                let message = format!("stage `{}` has no matrix to gather", taken.stage);
                let help = format!("write `{port}: {}` to take its output", taken.stage);
                self.report(UNKNOWN_AXIS, message, spot(), help);
                left
            }
            Some(None) => Axes::new(),
            Some(Some(over)) => {
                for axis in over {
                    match left.iter().copied().find(|at| self.axes[*at].name == *axis) {
                        Some(at) => drop(left.remove(&at)),
                        None => {
                            let message = format!("stage `{}` has no axis `{axis}` to gather", taken.stage);
                            let help =
                                self.suggestions.help(axis, "its axes are", names.iter().map(String::as_str));
                            self.report(UNKNOWN_AXIS, message, spot(), help);
                        }
                    }
                }
                left
            }
        }
    }

    /// Refuses axes of one name that have different values.
    fn refuse_two_of_a_name(&mut self, stage: &str, axes: &Axes, from: &HashMap<usize, &str>) {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for &axis in axes {
            let Axis { name, .. } = &self.axes[axis];
            let Some(other) = seen.insert(name, axis) else { continue };
            let source = |axis: usize| match from[&axis] {
                "" => "its own `matrix`".to_owned(),
                upstream => format!("`{upstream}`"),
            };
            let message = format!(
                "stage `{stage}` has two axes `{name}` with different values: of {} and of {}",
                source(other),
                source(axis)
            );
            let help = "give both the same values, call one otherwise, or gather one: `{ gather: STAGE }`"
                .to_owned();
            self.report("different_axes", message, Spot::key(&["stages", stage]), help);
            return;
        }
    }
}

impl Plan {
    /// Puts instances in the place of stages that have axes, and returns what `${matrix.…}` means in each.
    pub fn carry_out(&self, document: &mut Node, filled: &Node) -> Scopes {
        let mut scopes = Scopes::new();
        let (Node::Map(map), Some(known)) = (document, stages(filled)) else { return scopes };
        let Some(Node::Map(stages)) = map.get_mut("stages") else { return scopes };
        let mut expanded = IndexMap::new();
        for (name, mut node) in std::mem::take(stages) {
            if let Node::Map(fields) = &mut node {
                fields.shift_remove("matrix");
            }
            for place in self.places(&name, &Place::new()) {
                let mut node = node.clone();
                if let Node::Map(fields) = &mut node
                    && let Some(Node::Map(inputs)) = fields.get_mut("in")
                {
                    *inputs = self.inputs_at(std::mem::take(inputs), &known[&name], &place);
                }
                let instance = self.instance(&name, &place);
                let given = place.iter().map(|(axis, value)| {
                    let Axis { name, values } = &self.axes[*axis];
                    (name.clone(), values[*value].clone())
                });
                scopes.insert(instance.clone(), given.collect());
                expanded.insert(instance, node);
            }
        }
        *stages = expanded;
        scopes
    }

    /// All places of the instances of a stage that agree with `fixed`, the last axis fastest.
    fn places(&self, stage: &str, fixed: &Place) -> Vec<Place> {
        let mut places = vec![Place::new()];
        for axis in self.of_stage.get(stage).into_iter().flatten() {
            let values = match fixed.get(axis) {
                Some(value) => *value..*value + 1,
                None => 0..self.axes[*axis].values.len(),
            };
            let with = |place: &Place, value: usize| {
                let mut place = place.clone();
                place.insert(*axis, value);
                place
            };
            places = places.iter().flat_map(|place| values.clone().map(|value| with(place, value))).collect();
        }
        places
    }

    fn instance(&self, stage: &str, place: &Place) -> String {
        let at = place.iter().map(|(axis, value)| {
            let Axis { name, values } = &self.axes[*axis];
            (name.as_str(), values.get_index(*value).expect("a place is on its axis").0.as_str())
        });
        Instance { stage, at: at.collect() }.to_string()
    }

    /// The inputs of the instance at `place`; `known` is its stage with the variables put in.
    fn inputs_at(
        &self,
        inputs: IndexMap<String, Node>,
        known: &Node,
        place: &Place,
    ) -> IndexMap<String, Node> {
        let mut all = IndexMap::new();
        for (port, node) in inputs {
            let taken = known.get("in").and_then(|inputs| Taken::read(inputs.get(&port)?));
            let Some((taken, axes)) = taken
                .and_then(|taken| Some((self.of_stage.get(&taken.stage)?, taken)))
                .filter(|(axes, _)| !axes.is_empty())
                .map(|(axes, taken)| (taken, axes))
            else {
                all.insert(port, node);
                continue;
            };
            let mut fixed: Place =
                place.iter().filter(|(axis, _)| axes.contains(axis)).map(|(a, v)| (*a, *v)).collect();
            let mut over = axes.clone();
            for (name, value) in &taken.chosen {
                let axis = axes.iter().find(|axis| self.axes[**axis].name == *name);
                if let Some((axis, value)) =
                    axis.and_then(|axis| Some((*axis, self.axes[*axis].values.get_index_of(value)?)))
                {
                    fixed.insert(axis, value);
                    over.remove(&axis);
                }
            }
            let Some(wanted) = &taken.gathers else {
                all.insert(port, Node::Text(taken.from(&self.instance(&taken.stage, &fixed))));
                continue;
            };
            if let Some(wanted) = wanted {
                over.retain(|axis| wanted.contains(&self.axes[*axis].name));
            }
            // What is gathered over is not fixed, though the stage itself may have such an axis.
            fixed.retain(|axis, _| !over.contains(axis));
            for from in self.places(&taken.stage, &fixed) {
                let text = taken.from(&self.instance(&taken.stage, &from));
                let label: Place = from.into_iter().filter(|(axis, _)| over.contains(axis)).collect();
                all.insert(self.instance(&port, &label), Node::Text(text));
            }
        }
        all
    }
}

impl Taken {
    /// Reads what is written for an input; `None` for what no stage writes, and for what only a value of the
    /// matrix tells.
    fn read(node: &Node) -> Option<Self> {
        let (text, gathers) = match node {
            Node::Text(text) => (text.as_str(), None),
            Node::Map(map) if map.keys().all(|field| GATHER_FIELDS.contains(&field.as_str())) => {
                let over = map.get("over").map(|node| over(node).ok_or(())).transpose().ok()?;
                (map.get("gather")?.as_text()?, Some(over))
            }
            _ => return None,
        };
        // Of what is no stage it is told later what is wrong with it.
        if text.contains("${") || text.contains(['/', '*']) || text.is_empty() {
            return None;
        }
        let (stage, output) = split_stage(text);
        let Instance { stage, at } = Instance::parse(stage)?;
        let chosen = at.into_iter().map(|(axis, value)| (axis.to_owned(), value.to_owned())).collect();
        Some(Self { stage: stage.to_owned(), chosen, output: output.map(str::to_owned), gathers })
    }

    /// What is written to take the same output from `instance`.
    fn from(&self, instance: &str) -> String {
        match &self.output {
            Some(output) => format!("{instance}.{output}"),
            None => instance.to_owned(),
        }
    }
}

/// The axes that `over` names.
fn over(node: &Node) -> Option<Vec<String>> {
    match node {
        Node::Text(axis) => Some(vec![axis.clone()]),
        Node::List(axes) => axes.iter().map(|axis| Some(axis.as_text()?.to_owned())).collect(),
        _ => None,
    }
}

fn inputs_of(stage: &Node) -> impl Iterator<Item = (&str, &Node)> {
    let inputs = stage.get("in").and_then(Node::as_map);
    inputs.into_iter().flatten().map(|(port, node)| (port.as_str(), node))
}

fn same(a: &IndexMap<String, Given>, b: &IndexMap<String, Given>) -> bool {
    let plain = |values: &IndexMap<String, Given>| -> Vec<_> {
        values.iter().map(|(label, given)| (label.clone(), given.value.clone())).collect()
    };
    plain(a) == plain(b)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn is_label(text: &str) -> bool {
    let is_of_label = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '+' | '-');
    !text.is_empty() && text.len() <= LONGEST_VALUE && text.chars().all(is_of_label)
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
