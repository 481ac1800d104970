//! Figures as markdown tables, with the columns and digits of the published ones.

use super::{BinSummary, Counts};

/// What stands where a figure is undefined.
const UNDEFINED: &str = "–";

/// Returns the table of methods: each its title, counts and area under the curve.
///
/// Accuracy, precision and recall have five decimals, as published; the table fits 80 columns when
/// titles have at most ten letters.
pub fn overall_table(methods: &[(&str, Counts, Option<f64>)]) -> String {
    let decimals =
        |value: Option<f64>, count: usize| value.map_or(UNDEFINED.into(), |value| format!("{value:.count$}"));
    let header = ["Method", "accuracy", "precision", "recall", "F1", "AUC", "95 % CI"];
    let rows = methods.iter().map(|(title, counts, auc)| {
        let interval = counts.accuracy_interval();
        vec![
            (*title).to_owned(),
            decimals(counts.accuracy(), 5),
            decimals(counts.precision(), 5),
            decimals(counts.recall(), 5),
            decimals(counts.f1(), 4),
            decimals(*auc, 4),
            interval.map_or(UNDEFINED.into(), |(low, high)| format!("{low:.3}–{high:.3}")),
        ]
    });
    table(&header, rows)
}

/// Returns the table of one method by review length. Ratios have six significant digits
/// without closing zeros.
pub fn bins_table(bins: &[BinSummary]) -> String {
    let digits = |value: Option<f64>| value.map_or(UNDEFINED.into(), six_digits);
    let header = ["bin", "TP", "FP", "FN", "TN", "accuracy", "precision", "recall"];
    let rows = bins.iter().map(|bin| {
        let counts = bin.counts;
        vec![
            bin.interval(),
            counts.tp.to_string(),
            counts.fp.to_string(),
            counts.fn_.to_string(),
            counts.tn.to_string(),
            digits(counts.accuracy()),
            digits(counts.precision()),
            digits(counts.recall()),
        ]
    });
    table(&header, rows)
}

/// A share with six significant digits, such as `0.66967` or `1`.
fn six_digits(share: f64) -> String {
    let zeros = if share > 0.0 { (-share.log10()).floor().clamp(0.0, 9.0) as usize } else { 0 };
    let text = format!("{share:.*}", 6 + zeros);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A markdown table whose columns also line up as plain text; the first is flush left.
fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut lines = vec![header.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows.map(|row| row.iter().map(|cell| cell.replace('|', "\\|")).collect()));
    let widths: Vec<usize> = (0..header.len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default())
        .collect();
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let cell = if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
            text.push_str("| ");
            text.push_str(&cell);
            text.push(' ');
        }
        text.push_str("|\n");
        if index == 0 {
            for (column, width) in widths.iter().enumerate() {
                text.push_str(if column == 0 { "|:" } else { "|" });
                text.push_str(&"-".repeat(width + 1));
                text.push_str(if column == 0 { "" } else { ":" });
            }
            text.push_str("|\n");
        }
    }
    text
}
