//! A comparison as comma-separated values: one table for all.

use serde_json::Value;

use crate::{cli::history::csv_line, runs::compare::Comparison};

/// A figure of the group at a place.
type Figure<'a> = &'a dyn Fn(usize) -> Option<f64>;

/// `what,stage,name,run_1,run_2,…,difference_run_2,…,verdict_run_2,…`; after a sweep the last column is of its run.
pub(super) fn comma_separated(comparison: &Comparison) -> String {
    let columns = &comparison.columns;
    let others = || columns.iter().skip(1);
    let mut cells: Vec<String> = vec!["what".into(), "stage".into(), "name".into()];
    cells.extend(columns.iter().cloned());
    cells.extend(others().map(|run| format!("difference_{run}")));
    cells.extend(others().map(|run| format!("verdict_{run}")));
    let sweep_at = cells.len();
    if !comparison.sweeps.is_empty() {
        cells.extend(comparison.runs.iter().map(ToString::to_string));
    }
    let width = cells.len();
    let mut text = csv_line(&cells);
    let mut line = |mut cells: Vec<String>| {
        cells.resize(width, String::new());
        text.push_str(&csv_line(&cells));
    };
    let blanks = |count| std::iter::repeat_n(String::new(), count);
    for difference in &comparison.differences {
        let word = word_of(difference.what);
        let mut cells = vec![word, difference.stage.clone().unwrap_or_default(), difference.name.clone()];
        cells.extend(difference.values.iter().map(|value| match value {
            None => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        }));
        line(cells);
    }
    let number = |value: &Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
    for row in &comparison.metrics {
        let mut cells = vec!["metric".into(), row.stage.clone(), row.name.clone()];
        cells.extend(row.values.iter().map(number));
        cells.extend(row.differences.iter().skip(1).map(number));
        cells.extend(row.verdicts.iter().skip(1).map(word_of));
        line(cells);
    }
    // Figures of a group stand in the column of its first run.
    for row in &comparison.group_metrics {
        let figures: [(&str, Figure<'_>); 6] = [
            ("n", &|at| row.spreads[at].map(|spread| spread.n as f64)),
            ("mean", &|at| row.spreads[at].map(|spread| spread.mean)),
            ("sd", &|at| row.spreads[at].and_then(|spread| spread.sd)),
            ("difference_low", &|at| Some(row.contrasts[at]?.interval?.0).filter(|_| at > 0)),
            ("difference_high", &|at| Some(row.contrasts[at]?.interval?.1).filter(|_| at > 0)),
            ("welch_p", &|at| row.contrasts[at]?.p.filter(|_| at > 0)),
        ];
        for (figure, value) in figures {
            let mut cells = vec!["group".into(), row.stage.clone(), format!("{} {figure}", row.name)];
            cells.extend(blanks(3 * columns.len() - 2));
            for (at, group) in comparison.groups.iter().enumerate() {
                cells[3 + group.places[0]] = number(&value(at));
            }
            line(cells);
        }
    }
    // Figures of a pair stand in the column of the second; the name says what it was set against.
    for pair in &comparison.evidence {
        let Some(column) = columns.iter().position(|column| *column == pair.b) else { continue };
        let method = if pair.method.is_empty() { String::new() } else { format!("{} ", pair.method) };
        for (figure, value) in [
            ("items", pair.items as f64),
            ("both_right", pair.both_right as f64),
            ("only_a", pair.only_a as f64),
            ("only_b", pair.only_b as f64),
            ("both_wrong", pair.both_wrong as f64),
            ("difference", pair.difference),
            ("low", pair.low),
            ("high", pair.high),
            ("resamples", pair.resamples as f64),
            ("seed", pair.seed as f64),
            ("mcnemar_exact_p", pair.mcnemar_exact_p),
            ("holm_p", pair.holm_p),
        ] {
            let name = format!("{method}{figure} against {}", pair.a);
            let mut cells = vec!["evidence".into(), pair.stage.clone(), name];
            cells.extend(blanks(3 * columns.len() - 2));
            cells[3 + column] = value.to_string();
            line(cells);
        }
    }
    for sweep in &comparison.sweeps {
        for (row, of) in sweep.rows.iter().enumerate() {
            for metric in &sweep.metrics {
                let lead = metric.lead[row];
                let spread = metric.spreads[row];
                let interval = lead.and_then(|lead| lead.contrast.interval);
                for (figure, value) in [
                    ("n", spread.map(|spread| spread.n as f64)),
                    ("mean", spread.map(|spread| spread.mean)),
                    ("sd", spread.and_then(|spread| spread.sd)),
                    ("best", metric.best.contains(&row).then_some(1.0)),
                    ("best_less_this", lead.map(|lead| lead.contrast.difference)),
                    ("best_less_this_low", interval.map(|it| it.0)),
                    ("best_less_this_high", interval.map(|it| it.1)),
                    ("welch_p", lead.and_then(|lead| lead.contrast.p)),
                    ("holm_p", lead.and_then(|lead| lead.holm_p)),
                ] {
                    if value.is_none() && figure != "mean" {
                        continue;
                    }
                    let stage = of.stage(&sweep.stage);
                    let mut cells = vec!["sweep".into(), stage, format!("{} {figure}", metric.name)];
                    cells.resize(sweep_at, String::new());
                    cells.push(number(&value));
                    line(cells);
                }
            }
        }
    }
    text
}

/// The word that stands for `value` in JSON.
fn word_of(value: impl serde::Serialize) -> String {
    let word = serde_json::to_value(value).expect("a plain enum is a word");
    word.as_str().unwrap_or_default().into()
}
