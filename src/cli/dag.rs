//! `pipe dag`: what feeds what.

use std::{collections::HashMap, fmt::Write, process::ExitCode};

use clap::{Args, ValueEnum};
use indexmap::IndexMap;

use super::{Failure, Globals, PipelineArgs, units::counted};
use crate::{
    meant::in_order,
    names::base,
    pipeline::{Pipeline, Source},
};

/// Show which stage feeds which
///
/// The text form lists the stages in an order in which they can run, each with what it takes; those of a
/// matrix are one there. Drawings have each, unless there are more than 60.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe dag pipelines/all_three.yaml
  pipe dag pipelines/all_three.yaml --format mermaid      for a markdown file
  pipe dag pipelines/all_three.yaml --format dot | dot -Tsvg > dag.svg")]
pub(super) struct Dag {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The form
    #[arg(long, short, value_enum, default_value_t)]
    format: Format,
    /// Each stage of a matrix by itself
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Format {
    /// A list to read in a terminal
    #[default]
    Text,
    /// A mermaid flowchart
    Mermaid,
    /// Graphviz
    Dot,
}

impl Dag {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let pipeline = self.pipeline.load(globals)?;
        let is_text = matches!(self.format, Format::Text);
        let are_folded = !self.all && (is_text || pipeline.stages.len() > MOST);
        let nodes = nodes(&pipeline, are_folded);
        globals.print(match self.format {
            Format::Text => text(&pipeline, &nodes),
            Format::Mermaid => mermaid(&nodes),
            Format::Dot => dot(&pipeline.name, &nodes),
        })?;
        if !is_text && nodes.len() < pipeline.stages.len() {
            globals.say(format_args!(
                "{} are many to draw: those of a matrix are drawn as one; `--all` draws each",
                counted(pipeline.stages.len(), "stage")
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Of more stages than this those of a matrix are drawn as one.
const MOST: usize = 60;

/// A stage, or all of a matrix.
struct Node<'a> {
    name: &'a str,
    /// How many stages it stands for.
    count: usize,
    kind: &'a str,
    /// What it takes, by port.
    inputs: Vec<(&'a str, Feed<'a>)>,
}

/// Where an input comes from.
#[derive(PartialEq)]
enum Feed<'a> {
    /// An output of a node, and whether it is the only one.
    Output { node: &'a str, port: &'a str, is_only: bool },
    /// From outside, as the pipeline file writes it.
    Outside(String),
}

/// The stages of `pipeline` in an order in which they can run, those of a matrix as one if `are_folded`.
fn nodes(pipeline: &Pipeline, are_folded: bool) -> Vec<Node<'_>> {
    let name = |stage| if are_folded { base(stage) } else { stage };
    let mut nodes: IndexMap<&str, Node<'_>> = IndexMap::new();
    let dag = pipeline.dag();
    let order: Vec<&str> = dag.order().collect();
    for stage in order.into_iter().map(|name| &pipeline.stages[name]) {
        let new = || Node { name: name(&stage.name), count: 0, kind: stage.kind.name, inputs: Vec::new() };
        let node = nodes.entry(name(&stage.name)).or_insert_with(new);
        node.count += 1;
        for (port, source) in &stage.inputs {
            let from = match source {
                Source::Output { stage, port } => {
                    let is_only = pipeline.stages[stage].ports.outputs.len() == 1;
                    Feed::Output { node: name(stage), port, is_only }
                }
                Source::File(path) => Feed::Outside(format!("file {}", path.display())),
                Source::Dir(path) => Feed::Outside(format!("dir {}", path.display())),
                Source::Glob(pattern) => Feed::Outside(format!("glob {pattern}")),
            };
            let input = (name(port), from);
            if !node.inputs.contains(&input) {
                node.inputs.push(input);
            }
        }
    }
    for node in nodes.values_mut() {
        node.inputs.sort_by(|(a, _), (b, _)| in_order(a, b));
    }
    nodes.into_values().collect()
}

impl Node<'_> {
    /// Its name, with how many stages it stands for.
    fn title(&self) -> String {
        match self.count {
            1 => self.name.to_owned(),
            count => format!("{} ({})", self.name, counted(count, "stage")),
        }
    }
}

impl Feed<'_> {
    /// As the pipeline file writes it; the output's name only where there are several.
    fn written(&self) -> String {
        match self {
            Feed::Output { node, is_only: true, .. } => (*node).to_owned(),
            Feed::Output { node, port, .. } => format!("{node}.{port}"),
            Feed::Outside(text) => text.clone(),
        }
    }
}

/// Columns that a line of the text form should not pass.
const WIDTH: usize = 80;

/// Columns of the longest name that others are padded to.
const NAME_WIDTH: usize = 40;

fn text(pipeline: &Pipeline, nodes: &[Node<'_>]) -> String {
    let longest = |widths: &mut dyn Iterator<Item = usize>, most| {
        widths.filter(|width| *width <= most).max().unwrap_or(0)
    };
    let name_width = longest(&mut nodes.iter().map(|node| node.title().len()), NAME_WIDTH);
    let kind_width = longest(&mut nodes.iter().map(|node| node.kind.len()), 16);
    let mut out = format!("{}: {}\n\n", pipeline.name, counted(pipeline.stages.len(), "stage"));
    for node in nodes {
        let start = format!("{:name_width$}  {:kind_width$}  ", node.title(), node.kind);
        let indent = " ".repeat(name_width + kind_width + 4);
        let mut line = start;
        for (index, (port, from)) in node.inputs.iter().enumerate() {
            let source = from.written();
            let taken = if *port == source { source } else { format!("{port}: {source}") };
            let comma = if index + 1 < node.inputs.len() { "," } else { "" };
            let lead = if index == 0 { "<- " } else { " " };
            if index > 0 && line.len() + lead.len() + taken.len() + comma.len() > WIDTH {
                let _ = writeln!(out, "{line}");
                line = format!("{indent}   {taken}{comma}");
            } else {
                let _ = write!(line, "{lead}{taken}{comma}");
            }
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

fn mermaid(nodes: &[Node<'_>]) -> String {
    let mut out = String::from("flowchart TD\n");
    let mut outside = Outside::default();
    // A stage may be called `end`, which mermaid cannot bear as an id, nor the brackets of a matrix.
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let mut ids: HashMap<&str, String> = HashMap::new();
    for node in nodes {
        let name = base(node.name);
        let id = if name == node.name {
            format!("s_{name}")
        } else {
            let number = numbers.entry(name).or_default();
            *number += 1;
            format!("m_{name}_{number}")
        };
        let _ = writeln!(out, "  {id}[\"{}<br/><small>{}</small>\"]", node.title(), node.kind);
        ids.insert(node.name, id);
    }
    for node in nodes {
        for (port, from) in &node.inputs {
            let (from, label) = match from {
                Feed::Output { node, port: output, .. } => (ids[node].clone(), edge_label(output, port)),
                Feed::Outside(written) => {
                    let (id, is_new) = outside.id(written);
                    if is_new {
                        let _ = writeln!(out, "  {id}[/\"{}\"/]", mermaid_text(written));
                    }
                    (id, (*port).to_owned())
                }
            };
            let _ = writeln!(out, "  {from} -->|\"{}\"| {}", mermaid_text(&label), ids[node.name]);
        }
    }
    out
}

fn mermaid_text(text: &str) -> String {
    text.replace('"', "#quot;").replace('<', "#lt;").replace('>', "#gt;")
}

fn dot(name: &str, nodes: &[Node<'_>]) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut outside = Outside::default();
    let mut out = format!("digraph {} {{\n  node [shape=box, style=rounded];\n", quoted(name));
    for node in nodes {
        let _ = writeln!(out, "  {} [label=\"{}\\n{}\"];", quoted(node.name), node.title(), node.kind);
    }
    for node in nodes {
        for (port, from) in &node.inputs {
            let (from, label) = match from {
                Feed::Output { node, port: output, .. } => (quoted(node), edge_label(output, port)),
                Feed::Outside(written) => {
                    let (id, is_new) = outside.id(written);
                    let id = quoted(&format!("{id}."));
                    if is_new {
                        let _ = writeln!(out, "  {id} [label={}, shape=note];", quoted(written));
                    }
                    (id, (*port).to_owned())
                }
            };
            let _ = writeln!(out, "  {from} -> {} [label={}];", quoted(node.name), quoted(&label));
        }
    }
    out + "}\n"
}

fn edge_label(output: &str, input: &str) -> String {
    if output == input { input.to_owned() } else { format!("{output} → {input}") }
}

/// Ids of files from outside, one for each.
#[derive(Default)]
struct Outside {
    ids: HashMap<String, String>,
}

impl Outside {
    /// The id and whether it is new.
    fn id(&mut self, source: &str) -> (String, bool) {
        let next = format!("outside_{}", self.ids.len() + 1);
        if let Some(id) = self.ids.get(source) {
            return (id.clone(), false);
        }
        self.ids.insert(source.to_owned(), next.clone());
        (next, true)
    }
}
