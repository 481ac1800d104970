//! The instances of a stage's `matrix` as tables, and which is best in sentences.

use pipe_stages::{
    contract::{Better, Stage},
    kinds::shell::Shell,
};

use super::sheet::{Heading, Part, Sheet, Table, name, plain, word};
use crate::{
    cli::{
        metrics::{arrow, is_detail},
        units::{counted, difference, list, mean_and_sd, measured, p_value, shortened},
    },
    contrast,
    record::Outcome,
    runs::{
        seeds::Spread,
        sweep::{Lead, Row, Sweep, SweepMetric},
    },
};

/// Columns that the values of all axes may take.
const AXES: usize = 40;
/// Columns of the name of a metric.
const METRIC: usize = 26;
/// So few rows of more than so many metrics are columns of a table.
const FEW_ROWS: usize = 3;
const MANY_METRICS: usize = 4;
/// So many metrics of which nothing is shown are told together.
const SEVERAL: usize = 3;
/// How many rows a sentence names.
const NAMED: usize = 3;

/// The tables of `sweeps`, what came out, and small print.
pub(super) fn parts(sweeps: &[Sweep], all: bool) -> Sheet {
    let mut sheet = Vec::new();
    for sweep in sweeps {
        let shown = shown(sweep, all);
        sheet.extend(tables(sweep, &shown));
        let findings = findings(sweep, &shown);
        if !findings.is_empty() {
            sheet.push(Part::Findings(findings));
        }
    }
    let remarks = remarks(sweeps, all);
    if !remarks.is_empty() {
        sheet.push(Part::Remarks(remarks));
    }
    sheet
}

/// The table of `sweep` for a terminal of `width` columns; nothing if all of its metrics are hidden.
pub(in crate::cli) fn table_text(sweep: &Sweep, all: bool, width: usize) -> Option<String> {
    let shown = shown(sweep, all);
    (!shown.is_empty()).then(|| plain(&tables(sweep, &shown), width))
}

fn shown(sweep: &Sweep, all: bool) -> Vec<&SweepMetric> {
    sweep.metrics.iter().filter(|metric| all || metric.is_result()).collect()
}

/// How many metrics are not shown unless all are asked for.
#[derive(Default)]
pub(in crate::cli) struct Hidden {
    /// Of bins and tensors.
    pub details: usize,
    /// Without a direction, and equal throughout a sweep.
    constants: usize,
}

impl Hidden {
    pub(in crate::cli) fn add(&mut self, sweep: &Sweep) {
        let (details, others): (Vec<_>, Vec<_>) =
            sweep.metrics.iter().partition(|metric| is_detail(&metric.name));
        self.details += details.len();
        self.constants += others.into_iter().filter(|metric| metric.is_constant()).count();
    }

    /// That they are hidden.
    pub(in crate::cli) fn remarks(&self) -> impl Iterator<Item = String> {
        let words = [(self.details, "of bins and tensors"), (self.constants, "equal throughout")];
        words.into_iter().filter(|(count, _)| *count > 0).map(|(count, which)| {
            format!("{} {which} hidden; `--all` shows every one", counted(count, "metric"))
        })
    }
}

fn tables(sweep: &Sweep, shown: &[&SweepMetric]) -> Sheet {
    if shown.is_empty() {
        return Vec::new();
    }
    let is_turned = sweep.rows.len() == 1 || (sweep.rows.len() <= FEW_ROWS && shown.len() > MANY_METRICS);
    let table = if is_turned { turned(sweep, shown) } else { table(sweep, shown) };
    vec![Part::Title(title(sweep)), Part::Table(table)]
}

/// `train: 6 combinations`, and over what seeds their means are: of how many, where it is the same number.
fn title(sweep: &Sweep) -> String {
    let combinations = counted(sweep.rows.len(), "combination");
    let seeds: Vec<String> = sweep.seed_axes().map(|axis| format!("`{}`", axis.name)).collect();
    match seeds.as_slice() {
        [] => format!("{}: {combinations}", sweep.stage),
        seeds => {
            let n = common_count(sweep).map(|n| format!(" (n = {n})")).unwrap_or_default();
            format!("{}: {combinations}, mean ± sd over {}{n}", sweep.stage, list(seeds))
        }
    }
}

/// Of how many executions every combination has values, if all have as many.
fn common_count(sweep: &Sweep) -> Option<usize> {
    let mut counts = sweep.rows.iter().map(Row::executions);
    let first = counts.next()?;
    counts.all(|count| count == first).then_some(first)
}

fn table(sweep: &Sweep, shown: &[&SweepMetric]) -> Table {
    let axes: Vec<&str> =
        sweep.axes.iter().filter(|axis| !axis.is_seed).map(|axis| axis.name.as_str()).collect();
    let limit = AXES / axes.len().max(1);
    let mut columns: Vec<(Heading, Vec<String>)> = Vec::new();
    for axis in axes {
        let value = |row: &Row| row.at.get(axis).cloned().unwrap_or_default();
        let values: Vec<String> = sweep.rows.iter().map(value).collect();
        columns.push((name(axis), contrast::shortened(&values, limit.max(6))));
    }
    if has_seeds(sweep) && common_count(sweep).is_none() {
        let counts = sweep.rows.iter().map(|row| row.executions().to_string()).collect();
        columns.push((word("n").right(), counts));
    }
    let fixed = columns.len();
    for (metric, short) in shown.iter().zip(short_names(shown)) {
        let heading = format!("{short} {}", arrow(metric.better)).trim_end().to_owned();
        let cells = (0..sweep.rows.len()).map(|at| cell(sweep, metric, at, false)).collect();
        columns.push((name(&heading).right(), cells));
    }
    let rows = (0..sweep.rows.len()).map(|at| columns.iter().map(|(_, cells)| cells[at].clone()).collect());
    let rows = rows.collect();
    let headings = columns.into_iter().map(|(heading, _)| heading).collect();
    Table { headings, fixed, groups: vec![1; shown.len()], coloured: None, rows }
}

/// The same with a row for each metric.
fn turned(sweep: &Sweep, shown: &[&SweepMetric]) -> Table {
    let mut headings = vec![word("metric"), word("")];
    headings.extend(sweep.rows.iter().map(|row| match row.name.as_str() {
        "" => word("all").right(),
        row => name(row).right(),
    }));
    let with_count = common_count(sweep).is_none();
    let row = |(metric, short): (&&SweepMetric, String)| {
        let cells = (0..sweep.rows.len()).map(|at| cell(sweep, metric, at, with_count));
        [short, arrow(metric.better).to_string()].into_iter().chain(cells).collect()
    };
    let rows = shown.iter().zip(short_names(shown)).map(row).collect();
    Table { headings, fixed: 2, groups: vec![1; sweep.rows.len()], coloured: None, rows }
}

fn has_seeds(sweep: &Sweep) -> bool {
    sweep.seed_axes().next().is_some()
}

/// The names of metrics in few columns.
fn short_names(shown: &[&SweepMetric]) -> Vec<String> {
    let names: Vec<String> = shown.iter().map(|metric| shortened(&metric.name, usize::MAX)).collect();
    contrast::shortened(&names, METRIC)
}

/// What `metric` is in a row; with the number of values where it is not that of the row's executions.
fn cell(sweep: &Sweep, metric: &SweepMetric, at: usize, with_count: bool) -> String {
    let Some(found) = metric.spreads[at] else { return String::new() };
    let with_count = has_seeds(sweep) && (with_count || found.n != sweep.rows[at].executions());
    let mark = if metric.best.contains(&at) { "* " } else { "" };
    format!("{mark}{}", spread(found, with_count))
}

fn spread(spread: Spread, with_count: bool) -> String {
    let text = mean_and_sd(spread.mean, spread.sd);
    if with_count { format!("{text} ({})", spread.n) } else { text }
}

/// What came out of each metric; those of which the best is not shown to be better than any other together.
fn findings(sweep: &Sweep, shown: &[&SweepMetric]) -> Vec<String> {
    let is_open = |metric: &&&SweepMetric| {
        metric.best.len() == 1
            && metric.lead.iter().flatten().all(|lead| lead.holm_p.is_some() && !lead.is_better())
    };
    let open: Vec<&SweepMetric> = shown.iter().filter(is_open).copied().collect();
    if open.len() < SEVERAL {
        return shown.iter().filter_map(|metric| finding(sweep, metric)).collect();
    }
    let told = shown.iter().filter(|metric| !is_open(metric));
    let mut said: Vec<String> = told.filter_map(|metric| finding(sweep, metric)).collect();
    let p = open.iter().flat_map(|metric| metric.lead.iter().flatten()).filter_map(|lead| lead.holm_p);
    let names: Vec<&str> = open.iter().map(|metric| metric.name.as_str()).collect();
    said.push(format!(
        "{}: no difference shown between the best and any other (p ≥ {}): {}",
        sweep.stage,
        p_value(p.fold(1.0, f64::min)),
        names.join(", ")
    ));
    said
}

/// `train.accuracy: rank=16 is best, 0.84012 ± 0.00312 (3); better than rank=4 (+0.012, p 0.003)`.
fn finding(sweep: &Sweep, metric: &SweepMetric) -> Option<String> {
    let name_of = |at: usize| sweep.rows[at].name.as_str();
    let about = format!("{}.{}", sweep.stage, metric.name);
    let best = match metric.best.as_slice() {
        [] => return None,
        [best] => *best,
        several => {
            let value = metric.spreads[several[0]].map(|spread| measured(Some(spread.mean)))?;
            return Some(format!(
                "{about}: {} are best, each {value}",
                named(several, |at| name_of(at).into())
            ));
        }
    };
    let value = spread(metric.spreads[best]?, has_seeds(sweep));
    let mut said = vec![format!("{about}: {} is best, {value}", name_of(best))];
    let leads = |of: &dyn Fn(&Lead) -> bool| -> Vec<usize> {
        (0..sweep.rows.len()).filter(|at| metric.lead[*at].as_ref().is_some_and(of)).collect()
    };
    let p = |at: usize| metric.lead[at].and_then(|lead| lead.holm_p).unwrap_or(1.0);
    let about = |at: usize| {
        let lead = metric.lead[at].map(|lead| lead.contrast.difference);
        format!("{} ({}, p {})", name_of(at), difference(lead), p_value(p(at)))
    };
    let beaten = leads(&Lead::is_better);
    let open = leads(&|lead| lead.holm_p.is_some() && !lead.is_better());
    let untested = leads(&|lead| lead.holm_p.is_none());
    match beaten.as_slice() {
        [] => {}
        [one] => said.push(format!("better than {}", about(*one))),
        several => {
            let largest = p_value(several.iter().map(|at| p(*at)).fold(0.0, f64::max));
            let whom = if open.is_empty() && untested.is_empty() { "each of the " } else { "" };
            said.push(format!("better than {whom}{} others (p ≤ {largest})", several.len()));
        }
    }
    if !open.is_empty() {
        said.push(format!("no difference shown to {}", nearest(&open, metric, about)));
    }
    if !untested.is_empty() {
        let whom = nearest(&untested, metric, |at| name_of(at).to_owned());
        said.push(format!("not tested against {whom}: too few values, or all the same"));
    }
    Some(said.join("; "))
}

/// The first of `rows` by their names.
fn named(rows: &[usize], name: impl Fn(usize) -> String) -> String {
    let mut names: Vec<String> = rows.iter().take(NAMED).map(|at| name(*at)).collect();
    if rows.len() > NAMED {
        names.push(format!("{} more", rows.len() - NAMED));
    }
    list(&names)
}

/// Those of `rows` that come nearest to the best.
fn nearest(rows: &[usize], metric: &SweepMetric, name: impl Fn(usize) -> String) -> String {
    let distance = |at: &usize| metric.lead[*at].map_or(0.0, |lead| lead.contrast.difference.abs());
    let mut rows = rows.to_vec();
    rows.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
    named(&rows, name)
}

/// Whether the file could say which direction of the metrics is better, and does of none.
fn could_have_directions(sweep: &Sweep) -> bool {
    let is_open = sweep.metrics.iter().all(|metric| metric.better == Better::Neither);
    sweep.kind == Shell::KIND && sweep.rows.len() > 1 && is_open
}

fn remarks(sweeps: &[Sweep], all: bool) -> Vec<String> {
    let mut remarks = Vec::new();
    let metrics = || sweeps.iter().flat_map(|sweep| sweep.metrics.iter());
    if metrics().any(|metric| !metric.best.is_empty()) {
        remarks.push("* best of its column".into());
    }
    let mut lengths: Vec<usize> = Vec::new();
    for sweep in sweeps {
        let is_tested = |metric: &SweepMetric| metric.lead.iter().flatten().any(|lead| lead.holm_p.is_some());
        if sweep.metrics.iter().any(is_tested) {
            lengths.push(sweep.rows.len());
        }
    }
    match lengths.iter().max() {
        None => {}
        Some(2) => remarks.push("p: Welch's t-test over seeds".into()),
        Some(_) => remarks
            .push("p: Welch's t-test over seeds, corrected by Holm for all pairs of combinations".into()),
    }
    for sweep in sweeps.iter().filter(|sweep| could_have_directions(sweep)) {
        remarks.push(format!(
            "{}: `better: {{ accuracy: higher }}` in the file would let one be called best",
            sweep.stage
        ));
    }
    for sweep in sweeps.iter().filter(|sweep| sweep.metrics.iter().any(|it| !it.best.is_empty())) {
        let stage = &sweep.stage;
        match sweep.seed_axes().count() {
            0 => {
                let text = format!("{stage}: one seed a combination, so nothing says what chance may give");
                remarks.push(text);
            }
            1 => {}
            _ => remarks.push(format!(
                "{stage}: over several axes of seeds executions share seeds, so nothing is tested"
            )),
        }
    }
    for sweep in sweeps {
        let outcomes = || sweep.rows.iter().flat_map(|row| &row.outcomes);
        let of = |outcome: Outcome| outcomes().filter(|it| **it == outcome).count();
        let missing = [Outcome::Failed, Outcome::Skipped, Outcome::Interrupted];
        let missing = missing.into_iter().filter(|outcome| of(*outcome) > 0);
        let words: Vec<String> =
            missing.map(|outcome| format!("{} {}", of(outcome), outcome.word())).collect();
        if !words.is_empty() {
            let all = outcomes().count();
            remarks.push(format!("{}: of {} {}", sweep.stage, counted(all, "instance"), list(&words)));
        }
    }
    let mut hidden = Hidden::default();
    if !all {
        sweeps.iter().for_each(|sweep| hidden.add(sweep));
    }
    remarks.extend(hidden.remarks());
    remarks
}
