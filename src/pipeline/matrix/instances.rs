//! Puts instances in the place of stages with a matrix.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::{
    super::{document::Node, variables::Scopes},
    Axis, Plan, Taken, stages,
    taken::Gathers,
};
use crate::names::Instance;

/// Where an instance is on each of its axes: the place of the value.
type Place = BTreeMap<usize, usize>;

impl Plan {
    /// Puts instances in the place of stages that have axes, and returns what `${matrix.…}` means in each.
    pub(in super::super) fn carry_out(&self, document: &mut Node, filled: &Node) -> Scopes {
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
            match &taken.gathers {
                Gathers::Not => {
                    all.insert(port, Node::Text(taken.from(&self.instance(&taken.stage, &fixed))));
                    continue;
                }
                Gathers::OverAll => {}
                Gathers::Over(wanted) => over.retain(|axis| wanted.contains(&self.axes[*axis].name)),
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
