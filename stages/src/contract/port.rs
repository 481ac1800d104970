//! Typed inputs and outputs of a stage.

use std::fmt;

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
