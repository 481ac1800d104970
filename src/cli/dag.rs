//! `pipe dag`: what feeds what.

use std::{collections::HashMap, fmt::Write, process::ExitCode};

use clap::{Args, ValueEnum};

use super::{Failure, Globals, PipelineArgs, units::counted};
use crate::pipeline::{Pipeline, Source, StageSpec};

/// Show which stage feeds which
///
/// The text form lists the stages in an order in which they can run, each with what it takes.
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
        globals.print(match self.format {
            Format::Text => text(&pipeline),
            Format::Mermaid => mermaid(&pipeline),
            Format::Dot => dot(&pipeline),
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn in_order<'a>(
    pipeline: &'a Pipeline,
    dag: &'a crate::pipeline::Dag,
) -> impl Iterator<Item = &'a StageSpec> {
    dag.order().map(|name| &pipeline.stages[name])
}

/// The source as the pipeline file writes it; the output's name only where there are several.
fn written(pipeline: &Pipeline, source: &Source) -> String {
    match source {
        Source::Output { stage, .. } if pipeline.stages[stage].ports.outputs.len() == 1 => stage.clone(),
        Source::Output { stage, port } => format!("{stage}.{port}"),
        Source::File(path) => format!("file {}", path.display()),
        Source::Dir(path) => format!("dir {}", path.display()),
        Source::Glob(pattern) => format!("glob {pattern}"),
    }
}

/// Columns that a line of the text form should not pass.
const WIDTH: usize = 80;

fn text(pipeline: &Pipeline) -> String {
    let dag = pipeline.dag();
    let longest = |width: fn(&StageSpec) -> usize, most| {
        pipeline.stages.values().map(width).filter(|width| *width <= most).max().unwrap_or(0)
    };
    let name_width = longest(|stage| stage.name.len(), 24);
    let kind_width = longest(|stage| stage.kind.name.len(), 16);
    let mut out = format!("{}: {}\n\n", pipeline.name, counted(pipeline.stages.len(), "stage"));
    for stage in in_order(pipeline, &dag) {
        let start = format!("{:name_width$}  {:kind_width$}  ", stage.name, stage.kind.name);
        let indent = " ".repeat(name_width + kind_width + 4);
        let mut line = start;
        for (index, (port, source)) in stage.inputs.iter().enumerate() {
            let source = written(pipeline, source);
            let taken = if *port == source { source } else { format!("{port}: {source}") };
            let comma = if index + 1 < stage.inputs.len() { "," } else { "" };
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

fn mermaid(pipeline: &Pipeline) -> String {
    let dag = pipeline.dag();
    let mut out = String::from("flowchart TD\n");
    let mut outside = Outside::default();
    // A stage may be called `end`, which mermaid cannot bear as an id.
    for stage in in_order(pipeline, &dag) {
        let _ = writeln!(out, "  s_{0}[\"{0}<br/><small>{1}</small>\"]", stage.name, stage.kind.name);
    }
    for stage in in_order(pipeline, &dag) {
        for (port, source) in &stage.inputs {
            let (from, label) = match source {
                Source::Output { stage: from, port: output } => {
                    (format!("s_{from}"), edge_label(output, port))
                }
                other => {
                    let (id, is_new) = outside.id(&written(pipeline, other));
                    if is_new {
                        let _ = writeln!(out, "  {id}[/\"{}\"/]", mermaid_text(&written(pipeline, other)));
                    }
                    (id, port.clone())
                }
            };
            let _ = writeln!(out, "  {from} -->|\"{}\"| s_{}", mermaid_text(&label), stage.name);
        }
    }
    out
}

fn mermaid_text(text: &str) -> String {
    text.replace('"', "#quot;").replace('<', "#lt;").replace('>', "#gt;")
}

fn dot(pipeline: &Pipeline) -> String {
    let dag = pipeline.dag();
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut outside = Outside::default();
    let mut out = format!("digraph {} {{\n  node [shape=box, style=rounded];\n", quoted(&pipeline.name));
    for stage in in_order(pipeline, &dag) {
        let _ = writeln!(out, "  {} [label=\"{}\\n{}\"];", quoted(&stage.name), stage.name, stage.kind.name);
    }
    for stage in in_order(pipeline, &dag) {
        for (port, source) in &stage.inputs {
            let (from, label) = match source {
                Source::Output { stage: from, port: output } => (quoted(from), edge_label(output, port)),
                other => {
                    let (id, is_new) = outside.id(&written(pipeline, other));
                    let id = quoted(&format!("{id}."));
                    if is_new {
                        let label = quoted(&written(pipeline, other));
                        let _ = writeln!(out, "  {id} [label={label}, shape=note];");
                    }
                    (id, port.clone())
                }
            };
            let _ = writeln!(out, "  {from} -> {} [label={}];", quoted(&stage.name), quoted(&label));
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
