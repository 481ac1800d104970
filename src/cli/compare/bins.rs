//! Figures by review length, side by side.

use crate::{
    cli::units::measured,
    runs::{
        compare::{Comparison, MetricRow},
        seeds::GroupRow,
    },
};

use super::sheet::{Part, Table, name, word};

/// The figures that a table of bins shows.
const FIGURES: [&str; 3] = ["accuracy", "precision", "recall"];

/// A figure of a bin: `lora.bin.0-256.accuracy` is (`lora`, `0-256`, `accuracy`).
fn parts(row: &MetricRow) -> Option<(&str, &str, &str)> {
    let (before, after) = match row.name.strip_prefix("bin.") {
        Some(rest) => ("", rest),
        None => row.name.split_once(".bin.")?,
    };
    let (bin, figure) = after.rsplit_once('.')?;
    FIGURES.contains(&figure).then_some((before, bin, figure))
}

/// One method of one stage, and its figures in every column.
struct Method<'a> {
    stage: &'a str,
    name: &'a str,
    /// `(bin, figure, values)`.
    figures: Vec<(&'a str, &'a str, Vec<Option<f64>>)>,
}

/// A table for each method whose figures by length are not all the same; with `all` for each.
///
/// Of several configurations, the means over their seeds are shown.
pub(super) fn tables(comparison: &Comparison, all: bool) -> Vec<Part> {
    let by_group = comparison.groups.len() > 1;
    let columns: Vec<String> = if by_group {
        comparison.groups.iter().map(|group| group.name.clone()).collect()
    } else {
        comparison.columns.clone()
    };
    let means = |row: &MetricRow| -> Option<Vec<Option<f64>>> {
        let is_same = |other: &&GroupRow| other.stage == row.stage && other.name == row.name;
        let found = comparison.group_metrics.iter().find(is_same)?;
        Some(found.spreads.iter().map(|spread| spread.map(|spread| spread.mean)).collect())
    };
    let mut methods: Vec<Method<'_>> = Vec::new();
    for row in comparison.metrics.iter().filter(|row| all || !row.shared) {
        let Some((name, bin, figure)) = parts(row) else { continue };
        let values = if by_group {
            means(row).unwrap_or_else(|| vec![row.values[0]; columns.len()])
        } else {
            row.values.clone()
        };
        let known = methods.iter().position(|method| method.stage == row.stage && method.name == name);
        let at = known.unwrap_or_else(|| {
            methods.push(Method { stage: &row.stage, name, figures: Vec::new() });
            methods.len() - 1
        });
        methods[at].figures.push((bin, figure, values));
    }
    let moved = |method: &&Method<'_>| {
        method.figures.iter().any(|(.., values)| values.iter().any(|value| *value != values[0]))
    };
    let shown = methods.iter().filter(|method| all || moved(method));
    shown.map(|method| Part::Table(table(method, &columns))).collect()
}

fn table(method: &Method<'_>, columns: &[String]) -> Table {
    let about = [method.stage, method.name].into_iter().filter(|part| !part.is_empty());
    let mut headings = vec![name(&format!("{} by length", about.collect::<Vec<_>>().join(".")))];
    // Below the figures, the first row names the columns.
    let mut lines = vec![vec![String::new()]];
    for figure in FIGURES {
        headings.push(word(figure).right());
        headings.extend(columns.iter().skip(1).map(|_| word("").right()));
        lines[0].extend(columns.iter().cloned());
    }
    let mut bins: Vec<&str> = Vec::new();
    for (bin, _, values) in &method.figures {
        if !bins.contains(bin) && values.iter().any(Option::is_some) {
            bins.push(bin);
        }
    }
    for bin in bins {
        let mut cells = vec![interval(bin)];
        for figure in FIGURES {
            let found = method.figures.iter().find(|(of, name, _)| *of == bin && *name == figure);
            let values = found.map_or_else(|| vec![None; columns.len()], |(.., values)| values.clone());
            cells.extend(values.into_iter().map(measured));
        }
        lines.push(cells);
    }
    let groups = vec![columns.len(); FIGURES.len()];
    Table { headings, fixed: 1, groups, coloured: None, rows: lines }
}

/// `0-256` as mathematicians write it.
fn interval(bin: &str) -> String {
    match bin.split_once('-') {
        Some((above, up_to)) if !up_to.is_empty() => format!("({above}, {up_to}]"),
        _ => bin.to_owned(),
    }
}
