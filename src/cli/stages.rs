//! `pipe stages`: what a stage can be.

use std::{fmt::Write, process::ExitCode};

use clap::Args;
use pipe_stages::{
    contract::{Better, Inputs, Ports, StageKind},
    nearest,
};
use serde_json::{Value, json};

use super::{Failure, Globals, report::terminal_width, stages_page};

/// List the kinds of stages, or explain one
///
/// Of one kind it shows inputs, outputs, parameters with type, default and meaning, and the
/// metrics that it reports.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe stages
  pipe stages tokenize
  pipe stages --json | jq '.[].name'
  pipe stages --md > stages.md")]
pub(super) struct Stages {
    /// The kind to explain
    kind: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print markdown: a page of reference
    #[arg(long, conflicts_with = "json")]
    md: bool,
}

impl Stages {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let kinds = pipe_stages::kinds();
        let text = match &self.kind {
            None if self.json => format!("{:#}\n", Value::Array(kinds.iter().map(to_json).collect())),
            None if self.md => stages_page::page(kinds),
            None => list(kinds),
            Some(name) => {
                let kind = kinds.iter().find(|kind| kind.name == name).ok_or_else(|| unknown(name, kinds))?;
                match (self.json, self.md) {
                    (true, _) => format!("{:#}\n", to_json(kind)),
                    (_, true) => stages_page::section(kind),
                    _ => explain(kind),
                }
            }
        };
        globals.print(text)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn unknown(name: &str, kinds: &[StageKind]) -> Failure {
    let near = nearest(name, kinds.iter().map(|kind| kind.name));
    Failure::input(format!("there is no kind `{name}`")).help(match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`pipe stages` lists the kinds".into(),
    })
}

/// Columns for text: the terminal's, at most 100.
fn width() -> usize {
    terminal_width().clamp(60, 100)
}

fn list(kinds: &[StageKind]) -> String {
    let name_width = kinds.iter().map(|kind| kind.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for kind in kinds {
        let lead = format!("{:name_width$}  ", kind.name);
        out.push_str(&wrapped(&lead, name_width + 2, kind.summary));
    }
    out + "\n`pipe stages KIND` explains one.\n"
}

/// The ports for the default parameters; where some have no default, for a value of their type.
pub(super) fn ports(kind: &StageKind) -> Option<Ports> {
    let with_defaults = kind.resolve(Value::Null).ok().map(|resolved| resolved.ports);
    with_defaults.or_else(|| ports_despite_required(kind))
}

/// What a kind is besides its ports and parameters, in one line.
pub(super) fn nature(kind: &StageKind) -> String {
    let seed = if kind.draws { ", draws random numbers (`seed`)" } else { "" };
    let model = if kind.runs_model { ", runs a model on all cores or a GPU" } else { "" };
    format!("version {}{seed}{model}", kind.version)
}

/// The direction that is better, as it stands after what a metric means.
pub(super) fn direction(better: Better) -> &'static str {
    match better {
        Better::Higher => " (higher is better)",
        Better::Lower => " (lower is better)",
        Better::Neither => "",
    }
}

fn explain(kind: &StageKind) -> String {
    let mut out = wrapped(&format!("{}: ", kind.name), 2, kind.summary);
    let _ = writeln!(out, "{}", nature(kind));
    match ports(kind) {
        Some(ports) => write_ports(&mut out, &ports),
        None => out.push_str("\nInputs and outputs follow from the parameters.\n"),
    }
    write_parameters(&mut out, kind);
    if !kind.metrics().is_empty() {
        out.push_str("\nMetrics\n");
        let name_width = kind.metrics().iter().map(|metric| metric.name.len()).max().unwrap_or(0).min(32);
        for metric in kind.metrics() {
            let better = direction(metric.better);
            let lead = format!("  {:name_width$}  ", metric.name);
            out.push_str(&wrapped(&lead, name_width + 4, &format!("{}{better}", metric.doc)));
        }
    }
    out
}

/// The ports of a kind that has required parameters, found by giving each a value of its type.
fn ports_despite_required(kind: &StageKind) -> Option<Ports> {
    let schema = kind.schema();
    let required = schema.get("required").and_then(Value::as_array)?;
    let mut with = serde_json::Map::new();
    for name in required.iter().filter_map(Value::as_str) {
        let property = schema.get("properties")?.get(name)?;
        let value = match type_name(property, schema.as_value()).as_str() {
            "text" if name == "sha256" => json!("0".repeat(64)),
            "text" | "text | list of text" => json!("https://example.org"),
            "whole number" | "number" => json!(1),
            "true or false" => json!(false),
            text if text.starts_with("list") => json!([]),
            "map" => json!({}),
            _ => return None,
        };
        with.insert(name.to_owned(), value);
    }
    kind.resolve(Value::Object(with)).ok().map(|resolved| resolved.ports)
}

fn write_ports(out: &mut String, ports: &Ports) {
    match &ports.inputs {
        Inputs::Fixed(inputs) if inputs.is_empty() => out.push_str("\nInputs: none\n"),
        Inputs::Fixed(inputs) => {
            out.push_str("\nInputs\n");
            write_port_list(out, inputs);
        }
        Inputs::Named { port_type, doc } => {
            out.push_str("\nInputs\n");
            out.push_str(&wrapped(&format!("  NAME  {port_type}  "), 8, &format!("one or more: {doc}")));
        }
        Inputs::Free { port_type, doc, .. } => {
            out.push_str("\nInputs\n");
            out.push_str(&wrapped(&format!("  NAME  {port_type}  "), 8, &format!("any number: {doc}")));
        }
    }
    // What is taken without a fixed list is named by parameters, and so is what is given.
    if ports.outputs.is_empty() && matches!(ports.inputs, Inputs::Free { .. }) {
        out.push_str("\nOutputs: those that its parameters name\n");
    } else if ports.outputs.is_empty() {
        out.push_str("\nOutputs: none\n");
    } else {
        out.push_str("\nOutputs\n");
        write_port_list(out, &ports.outputs);
    }
}

fn write_port_list(out: &mut String, ports: &[pipe_stages::contract::Port]) {
    let name_width = ports.iter().map(|port| port.name.len()).max().unwrap_or(0);
    let type_width = ports.iter().map(|port| port.port_type.name().len()).max().unwrap_or(0);
    for port in ports {
        let lead = format!("  {:name_width$}  {:type_width$}  ", port.name, port.port_type.name());
        out.push_str(&wrapped(&lead, name_width + type_width + 6, &port.doc));
    }
}

/// A parameter as a person reads of it.
pub(super) struct Parameter {
    pub name: String,
    pub type_name: String,
    /// `default 8`, `required` or `optional`.
    pub default: String,
    /// The paragraphs of what it means.
    pub doc: Vec<String>,
}

/// The parameters of a kind, from its schema.
pub(super) fn parameters(kind: &StageKind) -> Vec<Parameter> {
    let schema = kind.schema();
    let required = schema.get("required").and_then(Value::as_array);
    let is_required = |name: &str| required.into_iter().flatten().any(|required| required == name);
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Vec::new() };
    let parameter = |(name, property): (&String, &Value)| Parameter {
        name: name.clone(),
        type_name: type_name(property, schema.as_value()),
        default: match property.get("default") {
            _ if is_required(name) => "required".to_owned(),
            Some(Value::Null) | None => "optional".to_owned(),
            Some(default) => format!("default {}", plain(default)),
        },
        doc: paragraphs(property.get("description").and_then(Value::as_str).unwrap_or_default()),
    };
    properties.iter().map(parameter).collect()
}

fn write_parameters(out: &mut String, kind: &StageKind) {
    let parameters = parameters(kind);
    if parameters.is_empty() {
        out.push_str("\nParameters: none\n");
        return;
    }
    out.push_str("\nParameters\n");
    for Parameter { name, type_name, default, doc } in parameters {
        let _ = writeln!(out, "  {name}: {type_name}, {default}");
        for paragraph in doc {
            out.push_str(&wrapped("      ", 6, &paragraph));
        }
    }
}

/// Joins the lines of each paragraph of a doc comment.
fn paragraphs(doc: &str) -> Vec<String> {
    doc.split("\n\n")
        .map(|text| text.lines().map(str::trim).collect::<Vec<_>>().join(" "))
        .filter(|text| !text.is_empty())
        .collect()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() && text.trim() == text => text.clone(),
        other => other.to_string(),
    }
}

/// The type of a parameter in words, from its schema.
fn type_name(property: &Value, root: &Value) -> String {
    if let Some(reference) = property.get("$ref").and_then(Value::as_str) {
        let pointer = reference.strip_prefix('#').unwrap_or_default();
        return root.pointer(pointer).map_or_else(|| "value".into(), |target| type_name(target, root));
    }
    if let Some(allowed) = property.get("enum").and_then(Value::as_array) {
        let names: Vec<String> = allowed.iter().filter(|value| !value.is_null()).map(plain).collect();
        return names.join(" | ");
    }
    if let Some(constant) = property.get("const") {
        return plain(constant);
    }
    for several in ["anyOf", "oneOf"] {
        if let Some(options) = property.get(several).and_then(Value::as_array) {
            let null = |option: &&Value| option.get("type").and_then(Value::as_str) != Some("null");
            let names: Vec<String> =
                options.iter().filter(null).map(|option| type_name(option, root)).collect();
            return names.join(" | ");
        }
    }
    if let Some([only]) = property.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
        return type_name(only, root);
    }
    let name = match property.get("type") {
        Some(Value::String(name)) => name.as_str(),
        Some(Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).find(|name| *name != "null").unwrap_or_default()
        }
        _ => "",
    };
    match name {
        "string" => "text".into(),
        "integer" => "whole number".into(),
        "number" => "number".into(),
        "boolean" => "true or false".into(),
        "object" => "map".into(),
        "array" => match property.get("items") {
            Some(items) => format!("list of {}", type_name(items, root)),
            None => "list".into(),
        },
        _ => "value".into(),
    }
}

/// `text` after `lead`, broken between words, further lines indented by `indent`.
fn wrapped(lead: &str, indent: usize, text: &str) -> String {
    let width = width();
    let mut out = String::new();
    let mut line = lead.to_owned();
    let mut is_empty = true;
    for word in text.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > width {
            let _ = writeln!(out, "{line}");
            line = " ".repeat(indent);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    let _ = writeln!(out, "{}", line.trim_end());
    out
}

fn to_json(kind: &StageKind) -> Value {
    let metrics = kind
        .metrics()
        .iter()
        .map(|metric| json!({ "name": metric.name, "doc": metric.doc, "better": metric.better }));
    json!({
        "name": kind.name,
        "summary": kind.summary,
        "version": kind.version,
        "draws": kind.draws,
        "runs_model": kind.runs_model,
        "ports": ports(kind),
        "parameters": kind.schema(),
        "metrics": metrics.collect::<Vec<_>>(),
    })
}
