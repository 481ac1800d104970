//! The kinds of stages as a page of markdown.

use std::fmt::Write;

use pipe_stages::contract::{Inputs, Port, StageKind};

use super::stages::{direction, nature, parameters, ports};

/// Every kind, under a list that leads to each.
pub(super) fn page(kinds: &[StageKind]) -> String {
    let mut out = String::from("# Kinds of stages\n\n| kind | |\n|---|---|\n");
    for kind in kinds {
        let _ = writeln!(out, "| [`{0}`](#{0}) | {1} |", kind.name, cell(kind.summary));
    }
    for kind in kinds {
        let _ = write!(out, "\n{}", section(kind));
    }
    out
}

/// One kind: its inputs, outputs, parameters and metrics.
pub(super) fn section(kind: &StageKind) -> String {
    let mut out = format!("## {}\n\n{}; {}.\n", kind.name, kind.summary, nature(kind));
    match ports(kind) {
        Some(ports) => {
            match &ports.inputs {
                Inputs::Fixed(inputs) => write_ports(&mut out, "input", inputs),
                Inputs::Named { port_type, doc } => {
                    let any = Port::new("NAME", *port_type, &format!("one or more: {doc}"));
                    write_ports(&mut out, "input", &[any]);
                }
                Inputs::Free { port_type, doc, .. } => {
                    let any = Port::new("NAME", *port_type, &format!("any number: {doc}"));
                    write_ports(&mut out, "input", &[any]);
                }
            }
            write_ports(&mut out, "output", &ports.outputs);
        }
        None => out.push_str("\nInputs and outputs follow from the parameters.\n"),
    }
    let rows = parameters(kind).into_iter().map(|parameter| {
        let default = match parameter.default.strip_prefix("default ") {
            Some(value) => format!("`{value}`"),
            None => parameter.default,
        };
        [format!("`{}`", parameter.name), parameter.type_name, default, parameter.doc.join(" ")]
    });
    write_table(&mut out, ["parameter", "type", "default", ""], rows);
    let rows = kind
        .metrics()
        .iter()
        .map(|metric| [format!("`{}`", metric.name), format!("{}{}", metric.doc, direction(metric.better))]);
    write_table(&mut out, ["metric", ""], rows);
    out
}

fn write_ports(out: &mut String, head: &str, ports: &[Port]) {
    let row = |port: &Port| [format!("`{}`", port.name), port.port_type.to_string(), port.doc.clone()];
    write_table(out, [head, "type", ""], ports.iter().map(row));
}

/// A table, unless it would have no rows.
fn write_table<const N: usize>(
    out: &mut String,
    head: [&str; N],
    rows: impl ExactSizeIterator<Item = [String; N]>,
) {
    if rows.len() == 0 {
        return;
    }
    let _ = writeln!(out, "\n| {} |\n|{}", head.join(" | "), "---|".repeat(N));
    for row in rows {
        let _ = writeln!(out, "| {} |", row.map(|text| cell(&text)).join(" | "));
    }
}

/// `text` where a `|` would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
