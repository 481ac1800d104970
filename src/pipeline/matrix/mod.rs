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

mod axes;
mod instances;
mod taken;

use std::collections::{BTreeSet, HashMap};

use indexmap::IndexMap;

use super::{
    document::Node,
    inputs::{self, Wires},
    places::Spot,
    problem::Finding,
    suggest::Suggestions,
};
use axes::Axis;
use taken::{Gathers, Taken};

/// The most instances that one stage can have.
const MOST_INSTANCES: usize = 10_000;
/// The code of what is said of an axis that is not there, which may be so for another reason that is told.
pub(super) const UNKNOWN_AXIS: &str = "unknown_axis";

/// Axes by their places among all.
type Axes = BTreeSet<usize>;

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
    let graph = inputs::graph(&wires)?;
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
            Gathers::Not => left,
            _ if left.is_empty() && !names.is_empty() => {
                let message =
                    format!("every axis of stage `{}` is chosen, so nothing is left to gather", taken.stage);
                self.report("nothing_to_gather", message, spot(), "take it without `gather`".to_owned());
                left
            }
            _ if left.is_empty() => {
                let message = format!("stage `{}` has no matrix to gather", taken.stage);
                let help = format!("write `{port}: {}` to take its output", taken.stage);
                self.report(UNKNOWN_AXIS, message, spot(), help);
                left
            }
            Gathers::OverAll => Axes::new(),
            Gathers::Over(over) => {
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

fn inputs_of(stage: &Node) -> impl Iterator<Item = (&str, &Node)> {
    let inputs = stage.get("in").and_then(Node::as_map);
    inputs.into_iter().flatten().map(|(port, node)| (port.as_str(), node))
}
