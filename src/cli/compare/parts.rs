//! What a comparison says, as tables and sentences.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use jiff::Timestamp;
use pipe_stages::contract::{Better, PortType};
use serde_json::json;

use super::{
    bins,
    chosen::Chosen,
    sheet::{Part, Sheet, Table, name, word},
    sweeps,
    words::{finding, subject, thousands, verdict},
};
use crate::{
    cli::{
        Globals, expected,
        metrics::arrow,
        runs::pipeline_words,
        units::{ago, difference, mean_and_sd, measured, p_value, shortened},
    },
    contrast,
    names::{Instance, base},
    runs::{
        LoadedRun, LoadedStage,
        compare::{Comparison, Difference, MetricRow, What},
        expected::Expected,
        seeds::{GroupRow, Spread},
    },
};

/// Columns of the name of a metric with its stage.
const NAME: usize = 44;
/// Columns of what differed.
const SUBJECT: usize = 40;

/// What to say of a comparison.
pub(super) struct Wanted<'a> {
    /// Where commands that it names find the runs.
    pub globals: &'a Globals,
    /// Every metric, values in full.
    pub all: bool,
    /// When it is said.
    pub now: Timestamp,
    /// How many predictions are not kept.
    pub lost: usize,
}

pub(super) fn sheet(runs: &[LoadedRun], comparison: &Comparison, wanted: &Wanted<'_>) -> Sheet {
    let mut sheet = vec![Part::Table(heads(runs, wanted.now))];
    sheet.extend(sweeps::parts(&comparison.sweeps, wanted.all));
    if !comparison.groups.is_empty() {
        sheet.push(Part::Table(groups(comparison)));
    }
    if comparison.differences.is_empty() && runs.len() > 1 {
        sheet.push(Part::Findings(vec!["nothing differed".into()]));
    } else if runs.len() > 1 {
        sheet.push(Part::Table(differences(comparison, wanted.all)));
    }
    let chosen = Chosen::of(comparison, wanted.all);
    let by_group = !comparison.groups.is_empty();
    if by_group {
        let shown =
            |row: &&GroupRow| chosen.rows.iter().any(|it| it.stage == row.stage && it.name == row.name);
        let rows: Vec<&GroupRow> = comparison.group_metrics.iter().filter(shown).collect();
        if !rows.is_empty() {
            sheet.push(Part::Table(group_table(comparison, &rows)));
        }
    }
    if !chosen.rows.is_empty() && (!by_group || comparison.groups.len() == 1 || wanted.all) {
        sheet.push(Part::Table(metric_table(comparison, &chosen.rows)));
    }
    sheet.extend(bins::tables(comparison, wanted.all));
    if !comparison.evidence.is_empty() {
        sheet.push(Part::Table(evidence(comparison)));
        let of_several = comparison.evidence.len() > 1;
        let findings = comparison.evidence.iter().map(|pair| finding(pair, of_several));
        sheet.push(Part::Findings(findings.collect()));
    }
    sheet.extend(published(comparison).map(Part::Table));
    let remarks = remarks(runs, comparison, &chosen, wanted);
    if !remarks.is_empty() {
        sheet.push(Part::Remarks(remarks));
    }
    sheet
}

fn heads(runs: &[LoadedRun], now: Timestamp) -> Table {
    let row = |LoadedRun { info, .. }: &LoadedRun| {
        vec![
            info.run.to_string(),
            info.state.word().into(),
            ago(info.started, now),
            shortened(&pipeline_words(info), 32),
            shortened(&info.tags.join(" "), 16),
        ]
    };
    Table {
        headings: ["run", "status", "when", "pipeline", "tags"].map(word).into(),
        fixed: 1,
        groups: vec![4],
        coloured: Some(1),
        rows: runs.iter().map(row).collect(),
    }
}

fn groups(comparison: &Comparison) -> Table {
    let list = |words: Vec<String>| shortened(&words.join(" "), 28);
    let rows = comparison.groups.iter().map(|group| {
        let runs = group.runs.iter().map(ToString::to_string).collect();
        vec![group.name.clone(), list(runs), list(group.seeds.iter().map(u64::to_string).collect())]
    });
    Table {
        headings: ["configuration", "runs", "seeds"].map(word).into(),
        fixed: 1,
        groups: vec![2],
        coloured: None,
        rows: rows.collect(),
    }
}

/// What differed: between runs, or between configurations where seeds are not what matters.
fn differences(comparison: &Comparison, all: bool) -> Table {
    let by_group = comparison.groups.len() > 1;
    let columns: Vec<(String, Vec<usize>)> = if by_group {
        comparison.groups.iter().map(|group| (group.name.clone(), group.places.clone())).collect()
    } else {
        let runs = comparison.columns.iter().enumerate();
        runs.map(|(at, run)| (run.clone(), vec![at])).collect()
    };
    let limit = if all { usize::MAX } else { (56 / columns.len().max(2)).max(12) };
    let cell = |written: &[String], places: &[usize]| {
        let mut values: Vec<&str> = Vec::new();
        for at in places {
            if !values.contains(&written[*at].as_str()) {
                values.push(&written[*at]);
            }
        }
        values.join(", ")
    };
    let is_seed = |difference: &Difference| matches!(difference.what, What::Seed | What::StageSeed);
    let listed = comparison.differences.iter().filter(|difference| !(by_group && is_seed(difference)));
    let alike = if all { listed.map(|one| vec![one]).collect() } else { by_stage(listed) };
    let (subjects, mut rows): (Vec<String>, Vec<Vec<String>>) = alike
        .iter()
        .map(|alike| {
            let written = if is_presence(alike[0]) { presence(alike[0]) } else { alike[0].texts() };
            let cells: Vec<String> = columns.iter().map(|(_, places)| cell(&written, places)).collect();
            let cells = contrast::shortened(&cells, limit);
            (subject_of(alike), [String::new()].into_iter().chain(cells).collect())
        })
        .unzip();
    let limit = if all { usize::MAX } else { SUBJECT };
    rows.iter_mut().zip(told_apart(&subjects, limit)).for_each(|(cells, subject)| cells[0] = subject);
    Table {
        headings: [word("what differed")].into_iter().chain(columns.iter().map(|(it, _)| name(it))).collect(),
        fixed: 1,
        groups: vec![1; columns.len()],
        coloured: None,
        rows,
    }
}

/// Differences, those together that instances of one stage have alike.
fn by_stage<'a>(differences: impl Iterator<Item = &'a Difference>) -> Vec<Vec<&'a Difference>> {
    let mut groups: IndexMap<(What, &str, &str, Vec<String>), Vec<&Difference>> = IndexMap::new();
    for one in differences {
        let stage = one.stage.as_deref().unwrap_or_default();
        let values: Vec<String> = if is_presence(one) {
            presence(one)
        } else {
            one.values.iter().map(|value| json!(value).to_string()).collect()
        };
        groups.entry((one.what, base(stage), &one.name, values)).or_default().push(one);
    }
    groups.into_values().collect()
}

/// Whether it is an instance that some runs lack, and others call as they do.
fn is_presence(difference: &Difference) -> bool {
    let Some(name) = difference.stage.as_deref().filter(|name| name.contains('[')) else { return false };
    difference.what == What::Stage && difference.values.iter().flatten().all(|value| *value == name)
}

fn presence(difference: &Difference) -> Vec<String> {
    difference.values.iter().map(|value| if value.is_some() { "yes" } else { "–" }.into()).collect()
}

/// What differs, of several instances with the values that all of them have: `stage lora[rank=8] ×3`.
fn subject_of(alike: &[&Difference]) -> String {
    let names = alike.iter().filter_map(|one| one.stage.as_deref());
    let mut instances = names.filter_map(Instance::parse).collect::<Vec<_>>().into_iter();
    let common = instances.next().map(|mut common| {
        instances.for_each(|other| common.at.retain(|at| other.at.contains(at)));
        common.to_string()
    });
    match alike {
        [one] => subject(one),
        _ => format!("{} ×{}", subject(&Difference { stage: common, ..alike[0].clone() }), alike.len()),
    }
}

/// Whether stages of `run` made or measured predictions, so that it can be asked review by review.
fn has_predictions(run: &LoadedRun) -> bool {
    let made = |stage: &LoadedStage| {
        let outputs = stage.execution.iter().flat_map(|made| &made.outputs);
        outputs.into_iter().any(|output| output.port_type == PortType::Predictions)
    };
    run.stages.iter().any(|stage| stage.kind == "evaluate" || made(stage))
}

fn remarks(
    runs: &[LoadedRun],
    comparison: &Comparison,
    chosen: &Chosen<'_>,
    wanted: &Wanted<'_>,
) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(first) = comparison.evidence.first() {
        remarks.push(format!(
            "p: exact McNemar test; 95 %: paired bootstrap, {} resamples, seed {}",
            thousands(first.resamples as u64),
            first.seed,
        ));
        if comparison.evidence.len() > 1 {
            remarks.push(format!("corrected: Holm, for {} pairs", comparison.evidence.len()));
        }
    }
    if comparison.groups.len() > 1 {
        remarks.push("± is the standard deviation over seeds; 95 % and p: Welch's t-test".into());
        if runs.iter().any(has_predictions) {
            let pair: Vec<String> =
                comparison.groups.iter().take(2).map(|group| group.runs[0].to_string()).collect();
            let command = wanted.globals.rooted(&format!("`pipe compare {}`", pair.join(" ")));
            remarks.push(format!("review by review: {command}"));
        }
    }
    let all: Vec<Expected> = comparison.expected.iter().flatten().cloned().collect();
    remarks.extend(expected::sources(&all).into_iter().map(|source| format!("values: {source}")));
    if wanted.lost > 0 {
        remarks.push(format!("{} not kept in runs.db, so nothing is said of them", predictions(wanted.lost)));
    }
    remarks.extend(chosen.remarks(comparison));
    remarks
}

fn predictions(lost: usize) -> String {
    if lost == 1 {
        "the predictions of 1 method are".into()
    } else {
        format!("the predictions of {lost} methods are")
    }
}

fn metric_table(comparison: &Comparison, rows: &[&MetricRow]) -> Table {
    let two = comparison.columns.len() == 2;
    let mut headings = vec![word("metric"), word("")];
    let mut groups = Vec::new();
    for (at, run) in comparison.columns.iter().enumerate() {
        headings.push(name(run).right());
        groups.push(1);
        if at > 0 {
            headings.push(word(if two { "difference" } else { "Δ" }).right());
            groups[at] += 1;
        }
    }
    headings.push(word(if two { "" } else { "best" }));
    groups.push(1);
    let last = headings.len() - 1;
    let cells = |row: &MetricRow| {
        let mut cells = vec![String::new(), arrow(row.better).to_string()];
        for (at, value) in row.values.iter().enumerate() {
            cells.push(measured(*value));
            if at > 0 {
                cells.push(difference(row.differences[at]));
            }
        }
        cells.push(if two { verdict(row.verdicts[1]).into() } else { best(comparison, row) });
        cells
    };
    let rows = named(rows.iter().map(|row| (row.stage.as_str(), row.name.as_str(), cells(row))));
    Table { headings, fixed: 2, groups, coloured: Some(last), rows }
}

/// Rows of a stage's metrics, their names put into the first cells: in few columns, but told apart.
fn named<'a>(rows: impl Iterator<Item = (&'a str, &'a str, Vec<String>)>) -> Vec<Vec<String>> {
    let (names, mut rows): (Vec<String>, Vec<Vec<String>>) =
        rows.map(|(stage, metric, cells)| (format!("{stage}.{metric}"), cells)).unzip();
    let short = told_apart(&names, NAME);
    rows.iter_mut().zip(short).for_each(|(cells, name)| cells[0] = name);
    rows
}

/// `names` without their middles where they take more than `limit` columns; others of their letters where that
/// makes two the same.
fn told_apart(names: &[String], limit: usize) -> Vec<String> {
    let different = |names: &[String]| names.iter().collect::<BTreeSet<_>>().len();
    let short: Vec<String> = names.iter().map(|name| shortened(name, limit)).collect();
    if different(&short) == different(names) {
        return short;
    }
    let visible: Vec<String> = names.iter().map(|name| shortened(name, usize::MAX)).collect();
    contrast::shortened(&visible, limit)
}

/// The column whose value is best, where one direction is better and one is alone in it.
fn best(comparison: &Comparison, row: &MetricRow) -> String {
    let sign = match row.better {
        Better::Higher => 1.0,
        Better::Lower => -1.0,
        Better::Neither => return String::new(),
    };
    let best = row.values.iter().flatten().map(|value| sign * value).fold(f64::NEG_INFINITY, f64::max);
    let mut winners = row
        .values
        .iter()
        .zip(&comparison.columns)
        .filter(|(value, _)| value.is_some_and(|value| sign * value >= best));
    match (winners.next(), winners.next()) {
        (Some((_, column)), None) => column.clone(),
        _ => String::new(),
    }
}

fn group_table(comparison: &Comparison, rows: &[&GroupRow]) -> Table {
    let mut headings = vec![word("metric"), word("")];
    let mut widths: Vec<usize> = Vec::new();
    for (at, group) in comparison.groups.iter().enumerate() {
        headings.push(name(&format!("{} ± sd (n)", group.name)).right());
        widths.push(if at > 0 { 2 } else { 1 });
        if at > 0 {
            headings.extend([word("difference").right(), word("95 %").right(), word("p").right(), word("")]);
            widths.push(3);
        }
    }
    let spread = |spread: &Option<Spread>| match spread {
        None => "–".into(),
        Some(Spread { n, mean, sd }) => format!("{} ({n})", mean_and_sd(*mean, *sd)),
    };
    let cells = |row: &GroupRow| {
        let mut cells = vec![String::new(), arrow(row.better).to_string()];
        for (at, one) in row.spreads.iter().enumerate() {
            cells.push(spread(one));
            if at > 0 {
                let contrast = row.contrasts[at];
                let bounds = contrast.and_then(|contrast| contrast.interval);
                let signed = |value| difference(Some(value));
                cells.push(difference(contrast.map(|contrast| contrast.difference)));
                cells.push(
                    bounds.map_or("–".into(), |(low, high)| format!("{} … {}", signed(low), signed(high))),
                );
                cells.push(contrast.and_then(|contrast| contrast.p).map_or("–".into(), p_value));
                cells.push(contrast.map_or("", |contrast| verdict(contrast.verdict)).into());
            }
        }
        cells
    };
    let coloured = (headings.len() > 3).then(|| headings.len() - 1);
    let rows = named(rows.iter().map(|row| (row.stage.as_str(), row.name.as_str(), cells(row))));
    Table { headings, fixed: 2, groups: widths, coloured, rows }
}

/// Values that pipelines expected, and whether each run came near.
fn published(comparison: &Comparison) -> Option<Table> {
    let mut stated: Vec<&Expected> = Vec::new();
    let is_same = |a: &Expected, b: &Expected| {
        a.metric == b.metric
            && a.value.to_bits() == b.value.to_bits()
            && a.tolerance.to_bits() == b.tolerance.to_bits()
    };
    for one in comparison.expected.iter().flatten() {
        if !stated.iter().any(|other| is_same(one, other)) {
            stated.push(one);
        }
    }
    let rows = stated.iter().map(|one| {
        let mut cells = vec![one.metric.clone(), measured(Some(one.value))];
        cells.extend(comparison.expected.iter().map(|of_run| {
            of_run.iter().find(|other| is_same(one, other)).map_or_else(String::new, expected::verdict)
        }));
        cells
    });
    let runs = comparison.runs.iter().map(|run| name(&run.to_string()));
    (!stated.is_empty()).then(|| Table {
        headings: [word("expected"), word("value").right()].into_iter().chain(runs).collect(),
        fixed: 2,
        groups: vec![1; comparison.runs.len()],
        coloured: None,
        rows: rows.collect(),
    })
}

fn evidence(comparison: &Comparison) -> Table {
    let rows = comparison.evidence.iter().map(|pair| {
        let about = if pair.method.is_empty() {
            pair.stage.clone()
        } else {
            format!("{}.{}", pair.stage, pair.method)
        };
        let counts = [pair.both_right, pair.only_a, pair.only_b, pair.both_wrong];
        let names = [shortened(&about, 24), pair.a.clone(), pair.b.clone()];
        names.into_iter().chain(counts.map(thousands)).collect()
    });
    let counts = ["both right", "only A", "only B", "neither"].map(|text| word(text).right());
    let names = [word("same reviews"), word("A"), word("B")];
    Table {
        headings: names.into_iter().chain(counts).collect(),
        fixed: 3,
        groups: vec![4],
        coloured: None,
        rows: rows.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::compare::sheet::plain, names::RunId};

    fn comparison(runs: usize, rows: &[(&str, Better, &[Option<f64>])]) -> Comparison {
        let row = |(name, better, values): &(&str, Better, &[Option<f64>])| {
            MetricRow::new("eval", name, *better, values.to_vec(), false)
        };
        let runs: Vec<RunId> = (1..=runs as i64).map(RunId).collect();
        Comparison {
            columns: runs.iter().map(RunId::to_string).collect(),
            runs,
            differences: vec![],
            metrics: rows.iter().map(row).collect(),
            groups: vec![],
            group_metrics: vec![],
            evidence: vec![],
            sweeps: vec![],
            expected: vec![],
        }
    }

    fn table(comparison: &Comparison) -> String {
        anstream::adapter::strip_str(&coloured(comparison, 80)).to_string()
    }

    fn coloured(comparison: &Comparison, width: usize) -> String {
        let table = metric_table(comparison, &comparison.metrics.iter().collect::<Vec<_>>());
        plain(&vec![Part::Table(table)], width)
    }

    #[test]
    fn the_better_direction_decides_what_a_difference_means() {
        let rows: [(&str, Better, &[Option<f64>]); 5] = [
            ("accuracy", Better::Higher, &[Some(0.5), Some(0.75)]),
            ("loss", Better::Lower, &[Some(0.5), Some(0.75)]),
            ("count", Better::Neither, &[Some(10.0), Some(12.0)]),
            ("auc", Better::Higher, &[Some(0.5), Some(0.5)]),
            ("f1", Better::Higher, &[None, Some(0.5)]),
        ];
        insta::assert_snapshot!(table(&comparison(2, &rows)), @"
        METRIC              run_1    run_2  DIFFERENCE
        eval.accuracy  ↑  0.50000  0.75000    +0.25000  better
        eval.loss      ↓  0.50000  0.75000    +0.25000  worse
        eval.count             10       12          +2
        eval.auc       ↑  0.50000  0.50000           0  =
        eval.f1        ↑        –  0.50000           –
        ");
        let colour = coloured(&comparison(2, &rows), 80);
        assert!(colour.contains("\u{1b}[32mbetter\u{1b}[0m") && colour.contains("\u{1b}[31mworse\u{1b}[0m"));
    }

    #[test]
    fn among_many_runs_the_best_is_named() {
        let rows: [(&str, Better, &[Option<f64>]); 4] = [
            ("accuracy", Better::Higher, &[Some(0.5), Some(0.75), None]),
            ("loss", Better::Lower, &[Some(0.5), Some(0.75), Some(0.25)]),
            ("count", Better::Neither, &[Some(10.0), Some(12.0), Some(10.0)]),
            ("auc", Better::Higher, &[Some(0.5), Some(0.75), Some(0.75)]),
        ];
        insta::assert_snapshot!(table(&comparison(3, &rows)), @"
        METRIC              run_1    run_2         Δ    run_3         Δ  BEST
        eval.accuracy  ↑  0.50000  0.75000  +0.25000        –         –  run_2
        eval.loss      ↓  0.50000  0.75000  +0.25000  0.25000  -0.25000  run_3
        eval.count             10       12        +2       10         0
        eval.auc       ↑  0.50000  0.75000  +0.25000  0.75000  +0.25000
        ");
    }
}
