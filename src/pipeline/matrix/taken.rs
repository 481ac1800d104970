//! What a stage takes from one with a matrix: `lora`, `lora[rank=8].model`, `{ gather: lora, over: rank }`.

use super::{
    super::{document::Node, places::Spot},
    Planning,
};
use crate::names::{Instance, split_stage};

/// Fields of an input that gathers.
const GATHER_FIELDS: [&str; 2] = ["gather", "over"];

/// Whether all of a matrix are taken at once.
pub(super) enum Gathers {
    /// One is taken by each instance.
    Not,
    /// Over all axes that are not chosen.
    OverAll,
    /// Over these axes.
    Over(Vec<String>),
}

/// An input that is taken from another stage, as the file has it.
pub(super) struct Taken {
    pub stage: String,
    /// The axes of that stage whose value is written, as `lora[rank=8]` does.
    pub chosen: Vec<(String, String)>,
    output: Option<String>,
    pub gathers: Gathers,
}

impl Taken {
    /// Reads what is written for an input; `None` for what no stage writes, and for what only a value of the
    /// matrix tells.
    pub fn read(node: &Node) -> Option<Self> {
        let (text, gathers) = match node {
            Node::Text(text) => (text.as_str(), Gathers::Not),
            Node::Map(map) if map.keys().all(|field| GATHER_FIELDS.contains(&field.as_str())) => {
                let gathers = match map.get("over") {
                    None => Gathers::OverAll,
                    Some(node) => Gathers::Over(over(node)?),
                };
                (map.get("gather")?.as_text()?, gathers)
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
    pub fn from(&self, instance: &str) -> String {
        match &self.output {
            Some(output) => format!("{instance}.{output}"),
            None => instance.to_owned(),
        }
    }
}

impl Planning<'_> {
    /// Reports what is wrong with `{ gather: … }`, if the input is one.
    pub(super) fn wrong_gather(&mut self, stage: &str, port: &str, node: &Node) {
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
}

/// The axes that `over` names.
fn over(node: &Node) -> Option<Vec<String>> {
    match node {
        Node::Text(axis) => Some(vec![axis.clone()]),
        Node::List(axes) => axes.iter().map(|axis| Some(axis.as_text()?.to_owned())).collect(),
        _ => None,
    }
}
