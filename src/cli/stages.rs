//! `pipe stages`: what a stage can be.

use std::{fmt::Write, process::ExitCode};

use clap::Args;
use pipe_stages::contract::{Better, Inputs, Ports, StageKind};
use serde_json::{Value, json};

use super::{Failure, Globals, report::terminal_width};

/// List the kinds of stages, or explain one
///
/// Of one kind it shows inputs, outputs, parameters with type, default and meaning, and the
/// metrics that it reports.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe stages
  pipe stages tokenize
  pipe stages --json | jq '.[].name'")]
pub(super) struct Stages {
    /// The kind to explain
    kind: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Stages {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let kinds = pipe_stages::kinds();
        let text = match &self.kind {
            None if self.json => format!("{:#}\n", Value::Array(kinds.iter().map(to_json).collect())),
            None => list(kinds),
            Some(name) => {
                let kind = kinds.iter().find(|kind| kind.name == name).ok_or_else(|| unknown(name, kinds))?;
                if self.json { format!("{:#}\n", to_json(kind)) } else { explain(kind) }
            }
        };
        globals.print(text)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn unknown(name: &str, kinds: &[StageKind]) -> Failure {
    let near = kinds.iter().map(|kind| (strsim::jaro_winkler(name, kind.name), kind.name));
    let near = near.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0));
    Failure::input(format!("there is no kind `{name}`")).help(match near {
        Some((_, near)) => format!("did you mean `{near}`?"),
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

/// The ports for the default parameters, where there are defaults for all.
fn ports(kind: &StageKind) -> Option<Ports> {
    kind.resolve(Value::Null).ok().map(|resolved| resolved.ports)
}

fn explain(kind: &StageKind) -> String {
    let mut out = wrapped(&format!("{}: ", kind.name), 2, kind.summary);
    let seed = if kind.draws { ", draws random numbers (`seed`)" } else { "" };
    let model = if kind.runs_model { ", runs a model on all cores or a GPU" } else { "" };
    let _ = writeln!(out, "version {}{seed}{model}", kind.version);
    match ports(kind).or_else(|| ports_despite_required(kind)) {
        Some(ports) => write_ports(&mut out, &ports),
        None => out.push_str("\nInputs and outputs follow from the parameters.\n"),
    }
    write_parameters(&mut out, kind);
    if !kind.metrics().is_empty() {
        out.push_str("\nMetrics\n");
        let name_width = kind.metrics().iter().map(|metric| metric.name.len()).max().unwrap_or(0).min(32);
        for metric in kind.metrics() {
            let better = match metric.better {
                Better::Higher => " (higher is better)",
                Better::Lower => " (lower is better)",
                Better::Neither => "",
            };
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
            "text" | "text | list of text" => json!("0".repeat(64)),
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
    if ports.outputs.is_empty() {
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

fn write_parameters(out: &mut String, kind: &StageKind) {
    let schema = kind.schema();
    let Some(properties) = schema.get("properties").and_then(Value::as_object).filter(|map| !map.is_empty())
    else {
        out.push_str("\nParameters: none\n");
        return;
    };
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    out.push_str("\nParameters\n");
    for (name, property) in properties {
        let kind = type_name(property, schema.as_value());
        let default = match property.get("default") {
            _ if required.contains(&name.as_str()) => "required".to_owned(),
            Some(Value::Null) | None => "optional".to_owned(),
            Some(default) => format!("default {}", plain(default)),
        };
        let _ = writeln!(out, "  {name}: {kind}, {default}");
        let doc = property.get("description").and_then(Value::as_str).unwrap_or_default();
        for line in paragraphs(doc) {
            out.push_str(&wrapped("      ", 6, &line));
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
        "ports": ports(kind).or_else(|| ports_despite_required(kind)),
        "parameters": kind.schema(),
        "metrics": metrics.collect::<Vec<_>>(),
    })
}
