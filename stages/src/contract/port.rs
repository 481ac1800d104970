//! Typed inputs and outputs of a stage.

use std::{cmp::Ordering, fmt};

use serde::{Deserialize, Serialize};

/// What the bytes behind a port are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortType {
    /// One file of any content.
    File,
    /// A folder of any content. A stage that writes one packs it into one file, as
    /// [`data::folder`](crate::data::folder) does; a stage that takes it is given a folder.
    Folder,
    /// A file or a folder of any content.
    FileOrFolder,
    /// Labelled reviews, one JSON object a line.
    Reviews,
    /// Token ids of prompts, ragged, safetensors.
    Tokens,
    /// GPT-2 parameters, safetensors.
    Weights,
    /// Hidden states after some blocks, ragged, safetensors.
    Hidden,
    /// What a training stage changed or added to the weights, safetensors.
    Model,
    /// CSV `id,length,label,score,prediction`.
    Predictions,
    /// A markdown document.
    Table,
    /// A JSON document.
    Json,
    /// Whatever a program reads or writes: a file or folder that `pipe` does not look into.
    Any,
}

impl PortType {
    /// Whether an input of this type can be fed by an output (or outside file) of type `given`.
    pub fn accepts(self, given: PortType) -> bool {
        self == given
            || (self == PortType::FileOrFolder && matches!(given, PortType::File | PortType::Folder))
            || self == PortType::Any
            || given == PortType::Any
    }

    /// Whether an input of this type can be fed by a folder.
    pub fn accepts_folder(self) -> bool {
        matches!(self, PortType::Folder | PortType::FileOrFolder | PortType::Any)
    }

    /// The name used in messages and listings.
    pub fn name(self) -> &'static str {
        match self {
            PortType::File => "file",
            PortType::Folder => "folder",
            PortType::FileOrFolder => "file or folder",
            PortType::Reviews => "reviews",
            PortType::Tokens => "tokens",
            PortType::Weights => "weights",
            PortType::Hidden => "hidden",
            PortType::Model => "model",
            PortType::Predictions => "predictions",
            PortType::Table => "table",
            PortType::Json => "json",
            PortType::Any => "anything",
        }
    }
}

impl fmt::Display for PortType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One named input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Port {
    /// The name after the dot in `stage.port`.
    pub name: String,
    /// What its bytes are.
    #[serde(rename = "type")]
    pub port_type: PortType,
    /// One line on what it holds.
    pub doc: String,
}

impl Port {
    /// A port called `name` of type `port_type`.
    pub fn new(name: &str, port_type: PortType, doc: &str) -> Self {
        Self { name: name.into(), port_type, doc: doc.into() }
    }
}

/// The inputs of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Inputs {
    /// Exactly these ports, each required.
    Fixed(Vec<Port>),
    /// One or more inputs of one type, named by the pipeline file.
    Named {
        /// The type that each of them has.
        #[serde(rename = "type")]
        port_type: PortType,
        /// One line on what the names stand for.
        doc: String,
    },
    /// Any number of inputs of one type, named by the pipeline file.
    Free {
        /// The type that each of them has.
        #[serde(rename = "type")]
        port_type: PortType,
        /// One line on what the names stand for.
        doc: String,
        /// Those that parameters speak of.
        needed: Vec<Needed>,
    },
}

/// An input that a parameter speaks of, so that there has to be one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Needed {
    /// The input's name.
    pub input: String,
    /// The parameter, as a dotted path.
    pub by: String,
    /// How the parameter speaks of it, such as `{in.reviews}`.
    pub part: String,
}

/// The inputs and outputs of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ports {
    /// What the stage reads.
    pub inputs: Inputs,
    /// What the stage writes; each output is one file in the end, a folder packed.
    pub outputs: Vec<Port>,
}

impl Default for Ports {
    fn default() -> Self {
        Self { inputs: Inputs::Fixed(Vec::new()), outputs: Vec::new() }
    }
}

impl Ports {
    /// No inputs and no outputs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a required input.
    ///
    /// # Panics
    ///
    /// If the inputs were already said to be named by the pipeline file.
    #[must_use]
    pub fn input(mut self, name: &str, port_type: PortType, doc: &str) -> Self {
        match &mut self.inputs {
            Inputs::Fixed(ports) => ports.push(Port::new(name, port_type, doc)),
            Inputs::Named { .. } | Inputs::Free { .. } => panic!("fixed and named inputs cannot be mixed"),
        }
        self
    }

    /// Takes any number of inputs of one type under names that the pipeline file gives.
    #[must_use]
    pub fn named_inputs(mut self, port_type: PortType, doc: &str) -> Self {
        self.inputs = Inputs::Named { port_type, doc: doc.into() };
        self
    }

    /// Takes any number of inputs of one type, none too, under names that the pipeline file gives.
    #[must_use]
    pub fn free_inputs(
        mut self,
        port_type: PortType,
        doc: &str,
        needed: impl IntoIterator<Item = Needed>,
    ) -> Self {
        self.inputs = Inputs::Free { port_type, doc: doc.into(), needed: needed.into_iter().collect() };
        self
    }

    /// Adds an output.
    #[must_use]
    pub fn output(mut self, name: &str, port_type: PortType, doc: &str) -> Self {
        self.outputs.push(Port::new(name, port_type, doc));
        self
    }

    /// The type of the input called `name`, if there can be one.
    pub fn input_type(&self, name: &str) -> Option<PortType> {
        match &self.inputs {
            Inputs::Fixed(ports) => ports.iter().find(|port| port.name == name).map(|port| port.port_type),
            Inputs::Named { port_type, .. } | Inputs::Free { port_type, .. } => Some(*port_type),
        }
    }

    /// The output called `name`, if there is one.
    pub fn find_output(&self, name: &str) -> Option<&Port> {
        self.outputs.iter().find(|port| port.name == name)
    }
}

/// The name of an input, such as `corpus`, or `models[rank=4,seed=1]` where several are gathered under the
/// name that the file gives.
///
/// Names are in the order of the file's names as text; of those gathered under one, values decide axis by
/// axis: numbers by their size, so that 4 is before 16, and before other texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputName<'a> {
    whole: &'a str,
    in_file: &'a str,
    label: Option<&'a str>,
}

impl<'a> InputName<'a> {
    /// Takes a name apart.
    pub fn of(whole: &'a str) -> Self {
        let parts = whole.strip_suffix(']').and_then(|text| text.split_once('['));
        let (in_file, label) = parts.map_or((whole, None), |(in_file, label)| (in_file, Some(label)));
        Self { whole, in_file, label }
    }

    /// What the pipeline file calls it: `models` for `models[rank=4]`.
    pub fn in_file(self) -> &'a str {
        self.in_file
    }

    /// What tells it from others gathered under the same name: `rank=4`, or `rank=4,seed=1` of two axes.
    pub fn label(self) -> Option<&'a str> {
        self.label
    }

    /// Whether `name` stands for this input: its own name, or that of all gathered with it.
    pub fn is_called(self, name: &str) -> bool {
        name == self.whole || name == self.in_file
    }

    /// Sorts inputs as `order` names them; the rest are behind, as names are ordered.
    ///
    /// An input stands where its own name does, else where the name does under which it is gathered.
    pub fn place(self, order: &[impl AsRef<str>]) -> (usize, Self) {
        let place_of = |name: &str| order.iter().position(|ordered| ordered.as_ref() == name);
        (place_of(self.whole).or_else(|| place_of(self.in_file)).unwrap_or(usize::MAX), self)
    }

    /// What people call it: the title of its own name, else that of all gathered with it and what tells it
    /// from these, else its name. `titled` has the title of a name.
    pub fn title<'t>(self, titled: impl Fn(&str) -> Option<&'t str>) -> String {
        match (titled(self.whole), titled(self.in_file), self.label) {
            (Some(own), ..) => own.to_owned(),
            (None, Some(of_all), Some(label)) => format!("{of_all} ({label})"),
            (None, ..) => self.whole.to_owned(),
        }
    }

    /// The axes with their values.
    fn values(self) -> impl Iterator<Item = (&'a str, AxisValue<'a>)> {
        let axes = self.label.into_iter().flat_map(|label| label.split(','));
        axes.map(|axis| {
            let (name, value) = axis.split_once('=').unwrap_or((axis, ""));
            (name, AxisValue::of(value))
        })
    }
}

impl Ord for InputName<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let of_file = self.in_file.cmp(other.in_file);
        of_file.then_with(|| self.values().cmp(other.values())).then_with(|| self.whole.cmp(other.whole))
    }
}

impl PartialOrd for InputName<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A value on an axis of a sweep: numbers by their size, before texts.
pub struct AxisValue<'a> {
    text: &'a str,
    /// The finite number that it is.
    number: Option<f64>,
}

impl<'a> AxisValue<'a> {
    /// What `text` stands for.
    pub fn of(text: &'a str) -> Self {
        Self { number: text.parse().ok().filter(|it: &f64| it.is_finite()), text }
    }

    /// Whether it is the same number, written otherwise perhaps, or the same text.
    pub fn is_same(&self, other: &Self) -> bool {
        self.text == other.text || (self.number.is_some() && self.number == other.number)
    }
}

impl Ord for AxisValue<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_size = match (self.number, other.number) {
            (Some(one), Some(other)) => one.total_cmp(&other),
            // By text alone, 2 < 10 < 1a < 2 would go round.
            (one, other) => other.is_some().cmp(&one.is_some()),
        };
        by_size.then_with(|| self.text.cmp(other.text))
    }
}

impl PartialOrd for AxisValue<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for AxisValue<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for AxisValue<'_> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sorted<'a>(names: &[&'a str]) -> Vec<&'a str> {
        let mut names = names.to_vec();
        names.sort_by_key(|name| InputName::of(name));
        names
    }

    #[test]
    fn a_gathered_input_has_the_name_in_the_file_and_a_label() {
        for (whole, in_file, label) in [
            ("models", "models", None),
            ("models[rank=4]", "models", Some("rank=4")),
            ("models[lr=0.001,seed=1]", "models", Some("lr=0.001,seed=1")),
            ("models]", "models]", None),
            ("models[rank", "models[rank", None),
        ] {
            let name = InputName::of(whole);
            assert_eq!((name.in_file(), name.label()), (in_file, label), "{whole}");
            assert!(name.is_called(whole) && name.is_called(in_file) && !name.is_called("rank"));
        }
    }

    #[test]
    fn gathered_inputs_are_in_the_order_of_their_values() {
        for in_order in [
            vec!["m", "m[rank=4]", "m[rank=8]", "m[rank=16]", "m_2[rank=1]"],
            vec!["m[lr=1e-4]", "m[lr=0.001]", "m[lr=0.01]", "m[lr=1.0]"],
            vec!["m[a=2,seed=10]", "m[a=10,seed=2]", "m[a=10,seed=10]"],
            vec!["m[x=-1]", "m[x=0]", "m[x=+1]", "m[x=1]", "m[x=1.0]", "m[x=2]"],
            vec!["m[x=2]", "m[x=10]", "m[x=10a]", "m[x=inf]", "m[x=nan]", "m[x=small]"],
            vec!["m[a=9]", "m[b=1]"],
            vec!["m[a=]", "m[a]"],
        ] {
            let backwards: Vec<_> = in_order.iter().rev().copied().collect();
            assert_eq!(sorted(&backwards), in_order);
        }
    }

    #[test]
    fn an_input_stands_where_its_own_name_does_else_where_its_group_does() {
        let placed = |order: &[&str]| {
            let mut names = ["b", "a", "lora[rank=16]", "lora[rank=4]", "lora[rank=8]"];
            names.sort_by_key(|name| InputName::of(name).place(order));
            names.join(" ")
        };
        assert_eq!(placed(&[]), "a b lora[rank=4] lora[rank=8] lora[rank=16]");
        assert_eq!(placed(&["b", "lora"]), "b lora[rank=4] lora[rank=8] lora[rank=16] a");
        assert_eq!(placed(&["lora[rank=8]", "lora", "b"]), "lora[rank=8] lora[rank=4] lora[rank=16] b a");
        assert_eq!(placed(&["lora", "lora[rank=4]"]), "lora[rank=8] lora[rank=16] lora[rank=4] a b");
    }

    proptest! {
        #[test]
        fn names_without_brackets_are_in_the_order_of_texts(
            one in r"[a-c0-3_.\-=]{0,4}", other in r"[a-c0-3_.\-=]{0,4}",
        ) {
            prop_assert_eq!(InputName::of(&one).cmp(&InputName::of(&other)), one.cmp(&other));
        }

        /// Numbers and texts in one order, so that no three go round.
        #[test]
        fn the_order_is_one_whatever_the_values(
            values in proptest::array::uniform3(r"[12a.,+\-]{0,3}(,x=[12a]{1,2})?"),
        ) {
            let names = values.map(|value| format!("m[x={value}]"));
            let [a, b, c] = names.each_ref().map(|name| InputName::of(name));
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            prop_assert_eq!(a == b, a.cmp(&b) == Ordering::Equal);
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
        }
    }
}
