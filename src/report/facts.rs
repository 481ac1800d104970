//! What is known of runs in words and numbers: who made them, from what, and what came out.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use maud::{Markup, html};
use pipe_stages::contract::Better;
use serde_json::Value;

use super::{Subject, dag::state};
use crate::{
    contrast,
    meant::join,
    metrics::{arrow, better, is_detail},
    names::{base, split_stage},
    reasons,
    runs::{
        LoadedRun, RunInfo,
        compare::{Comparison, MetricRow, Verdict, What, compare},
        sweep::Sweep,
    },
    units::{counted, date_and_time, difference, duration, measured, shortened, size},
};

/// Rows of a table, so that a page stays one that can be mailed.
pub(super) const ROWS: usize = 400;
/// Characters of a parameter's value.
const VALUE: usize = 80;

/// A table of facts, a column for each run.
fn by_run(caption: &str, subjects: &[Subject], rows: Vec<(String, Vec<String>)>) -> Markup {
    let hidden = rows.len().saturating_sub(ROWS);
    html! {
        div.scroll tabindex="0" role="region" aria-label=(caption) {
            table {
                thead { tr { td {} @for subject in subjects { th scope="col" { (subject.run.info.run) } } } }
                tbody {
                    @for (name, values) in rows.iter().take(ROWS) {
                        tr.{ @if values.iter().any(|value| *value != values[0]) { "differs" } } {
                            th scope="row" { (name) }
                            @for value in values { td { (value) } }
                        }
                    }
                }
            }
        }
        @if hidden > 0 { p.remark { (counted(hidden, "row")) " more are not shown." } }
    }
}

/// How the runs went.
pub(super) fn overview(subjects: &[Subject]) -> Markup {
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let mut row = |name: &str, value: &dyn Fn(&RunInfo) -> String| {
        let values: Vec<String> = subjects.iter().map(|subject| value(&subject.run.info)).collect();
        if values.iter().any(|value| !value.is_empty()) {
            rows.push((name.into(), values));
        }
    };
    row("state", &|run| run.state.word().into());
    row("started", &|run| date_and_time(run.started));
    row("took", &|run| run.seconds.map(duration).unwrap_or_default());
    row("pipeline", &|run| format!("{} ({})", run.pipeline, run.file.display()));
    row("profiles", &|run| run.profiles.join(", "));
    row("set", &|run| run.sets.join(", "));
    row("seed", &|run| run.seed.to_string());
    row("stages", &|run| {
        let counts = run.outcomes;
        let words = [
            (counts.ran, "ran"),
            (counts.cached, "cached"),
            (counts.failed, "failed"),
            (counts.skipped, "skipped"),
            (counts.interrupted, "interrupted"),
        ];
        let words =
            words.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}"));
        words.collect::<Vec<_>>().join(", ")
    });
    row("tags", &|run| run.tags.join(", "));
    row("notes", &|run| run.notes.iter().map(|note| note.text.as_str()).collect::<Vec<_>>().join(" · "));
    by_run("Overview", subjects, rows)
}

/// What was not the same, and what came out.
pub(super) fn comparison(subjects: &[Subject]) -> Comparison {
    let runs: Vec<LoadedRun> = subjects.iter().map(|subject| subject.run.clone()).collect();
    compare(&runs, better)
}

/// What was not the same in the runs.
pub(super) fn differences(comparison: &Comparison, subjects: &[Subject]) -> Markup {
    let rows = comparison.differences.iter().map(|difference| {
        let parts = [difference.stage.as_deref().unwrap_or_default(), &difference.name];
        let about = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".");
        let what = difference.what.words();
        let name = if difference.what == What::Parameter { about } else { format!("{what} {about}") };
        (name, contrast::shortened(&difference.texts(), VALUE))
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return html! { p { "Nothing differed." } };
    }
    by_run("What differed", subjects, rows)
}

/// Final metrics; those of bins and tensors are in charts or left out.
///
/// First those that say how good a run is and, of several runs, differ; the others are a click away. So are
/// those of `swept` in the report of one run, which have a table of their own.
pub(super) fn metrics(comparison: &Comparison, subjects: &[Subject], swept: &[Sweep]) -> Markup {
    let rows = comparison.metrics.iter().filter(|row| !is_detail(&row.name));
    let differs = |row: &&MetricRow| row.verdicts.iter().any(|verdict| *verdict != Verdict::Equal);
    let several = subjects.len() > 1;
    let (first, rest): (Vec<&MetricRow>, Vec<&MetricRow>) = rows.partition(|row| {
        let is_told = several || !swept.iter().any(|sweep| sweep.stage == base(&row.stage));
        row.better != Better::Neither && is_told && (!several || differs(row))
    });
    let of_matrix = rest.iter().any(|row| row.better != Better::Neither && !several);
    html! {
        @if !first.is_empty() { (metric_table("Metrics", comparison, subjects, &first)) }
        @if !rest.is_empty() {
            details open[first.is_empty() && !of_matrix] {
                summary {
                    (counted(rest.len(), "metric"))
                    @if several { " equal or" } @else if of_matrix { " of single stages of a matrix, or" }
                    " with no better direction"
                }
                (metric_table("Other metrics", comparison, subjects, &rest))
            }
        }
    }
}

fn metric_table(name: &str, comparison: &Comparison, subjects: &[Subject], rows: &[&MetricRow]) -> Markup {
    let hidden = rows.len().saturating_sub(ROWS);
    let first = comparison.runs.first();
    let published = |name: &str| subjects.iter().find_map(|subject| subject.published(name));
    let is_published = rows.iter().any(|row| published(&format!("{}.{}", row.stage, row.name)).is_some());
    html! {
        div.scroll tabindex="0" role="region" aria-label=(name) {
            table {
                thead { tr {
                    th scope="col" { "metric" }
                    @for (at, run) in comparison.runs.iter().enumerate() {
                        th.number scope="col" { (run) }
                        @if at > 0 { @if let Some(first) = first { th.number scope="col" { "less " (first) } } }
                    }
                    @if is_published { th.number scope="col" { "published" } }
                } }
                tbody {
                    @for row in rows.iter().take(ROWS) {
                        @let name = format!("{}.{}", row.stage, row.name);
                        tr {
                            th scope="row" {
                                (name) " " (arrow_of(row.better))
                            }
                            @for at in 0..row.values.len() {
                                td.number { (measured(row.values[at])) }
                                @if at > 0 {
                                    td.number.(verdict(row.verdicts[at])) {
                                        (difference(row.differences[at])) " " (verdict(row.verdicts[at]))
                                    }
                                }
                            }
                            @if is_published { td.number { (measured(published(&name))) } }
                        }
                    }
                }
            }
        }
        @if hidden > 0 { p.remark { (counted(hidden, "metric")) " more are not shown." } }
    }
}

/// The direction that is better, as a mark.
pub(super) fn arrow_of(better: Better) -> Markup {
    let direction = if better == Better::Higher { "higher is better" } else { "lower is better" };
    html! { @if better != Better::Neither { abbr title=(direction) { (arrow(better)) } } }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::Equal | Verdict::Changed | Verdict::Unknown => "",
    }
}

/// The stages of one run: state, cost, and why they ran.
pub(super) fn stages(run: &LoadedRun) -> Markup {
    let hidden = run.stages.len().saturating_sub(ROWS);
    html! {
        div.scroll tabindex="0" role="region" aria-label={ "Stages of " (run.info.run) } {
            table {
                thead { tr { @for heading in ["stage", "kind", "state", "took", "CPU", "memory", "device", "why"] { th scope="col" { (heading) } } } }
                tbody {
                    @for stage in run.stages.iter().take(ROWS) {
                        @let made = stage.execution.as_ref();
                        tr {
                            th scope="row" { (stage.stage) }
                            td { (stage.kind) " v" (stage.kind_version) }
                            td.(stage.outcome.word()) { (state(stage)) }
                            td.number { (made.map(|made| made.duration).or(stage.duration).map(duration).unwrap_or_default()) }
                            td.number { (made.map(|made| duration(made.cpu)).unwrap_or_default()) }
                            td.number { (made.map(|made| size(made.peak_memory)).unwrap_or_default()) }
                            td { (made.and_then(|made| made.device.as_deref()).unwrap_or_default()) }
                            td {
                                (reasons::line(&stage.reasons))
                                @if let Some(error) = &stage.error { " " strong.failed { (shortened(error, 300)) } }
                            }
                        }
                    }
                }
            }
        }
        @if hidden > 0 { p.remark { (counted(hidden, "stage")) " more are not shown." } }
    }
}

/// Every parameter of every stage.
pub(super) fn parameters(subjects: &[Subject]) -> Markup {
    let mut names: Vec<String> = Vec::new();
    let mut known = BTreeSet::new();
    let flat: Vec<BTreeMap<String, String>> = subjects
        .iter()
        .map(|subject| {
            let mut flat = BTreeMap::new();
            for stage in &subject.run.stages {
                let mut add = |path: &str, value: String| {
                    let name = format!("{}.{path}", stage.stage);
                    if known.insert(name.clone()) {
                        names.push(name.clone());
                    }
                    flat.insert(name, value);
                };
                crate::fingerprint::leaves(&stage.params)
                    .iter()
                    .for_each(|(path, value)| add(path, written(value)));
                if let Some(seed) = stage.seed.filter(|seed| *seed != subject.run.info.seed) {
                    add("(seed)", seed.to_string());
                }
            }
            flat
        })
        .collect();
    let value =
        |params: &BTreeMap<String, String>, name| params.get(name).cloned().unwrap_or_else(|| "–".into());
    let rows =
        names.iter().map(|name| (name.clone(), flat.iter().map(|params| value(params, name)).collect()));
    by_run("Parameters", subjects, of_matrices(rows.collect()))
}

/// `rows` by names of parameters; what all stages of a matrix have alike is one row of the file's stage.
fn of_matrices(rows: Vec<(String, Vec<String>)>) -> Vec<(String, Vec<String>)> {
    let of_file = |name: &str| {
        let (stage, path) = split_stage(name);
        join(base(stage), path).into_owned()
    };
    let mut alike: HashMap<String, bool> = HashMap::new();
    let mut first: HashMap<String, &Vec<String>> = HashMap::new();
    for (name, values) in &rows {
        let is_alike = *first.entry(of_file(name)).or_insert(values) == values;
        *alike.entry(of_file(name)).or_insert(true) &= is_alike;
    }
    let mut seen = BTreeSet::new();
    let row = |(name, values): &(String, Vec<String>)| {
        let whole = of_file(name);
        if alike[&whole] {
            seen.insert(whole.clone()).then(|| (whole, values.clone()))
        } else {
            Some((name.clone(), values.clone()))
        }
    };
    rows.iter().filter_map(row).collect()
}

fn written(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    shortened(&text.split_whitespace().collect::<Vec<_>>().join(" "), VALUE)
}

/// What the runs were made by and on.
pub(super) fn environment(subjects: &[Subject]) -> Markup {
    let values =
        |value: &dyn Fn(&LoadedRun) -> String| subjects.iter().map(|subject| value(&subject.run)).collect();
    let devices = |run: &LoadedRun| {
        let made = run.stages.iter().filter_map(|stage| stage.execution.as_ref()?.device.as_deref());
        made.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
    };
    let rows = vec![
        ("pipe".into(), values(&|run| run.info.version.clone())),
        ("host".into(), values(&|run| run.info.host.clone())),
        ("cores".into(), values(&|run| run.info.cpus.to_string())),
        ("devices".into(), values(&devices)),
        (
            "commit".into(),
            values(&|run| {
                run.info.git.as_ref().map_or_else(|| "no git checkout".into(), |git| git.commit.clone())
            }),
        ),
        (
            "uncommitted changes".into(),
            values(&|run| match &run.info.git {
                Some(git) if git.dirty => {
                    git.patch.map_or_else(|| "yes".into(), |patch| format!("yes, patch {}", patch.short()))
                }
                Some(_) => "none".into(),
                None => "–".into(),
            }),
        ),
    ];
    by_run("Environment", subjects, rows)
}

/// The commands that make a run again.
pub(super) fn reproduce(run: &RunInfo) -> Markup {
    let mut lines = Vec::new();
    if let Some(git) = &run.git {
        lines.push(format!("git checkout {}", git.commit));
    }
    let words: Vec<&str> = run.command.iter().map(String::as_str).collect();
    lines.push(format!("pipe {}", quoted(&words)));
    html! {
        h3 { (run.run) }
        pre tabindex="0" { code { (lines.join("\n")) } }
        @if run.git.as_ref().is_some_and(|git| git.dirty) {
            p.remark { "Tracked files had uncommitted changes, so the commit alone does not make this run again; "
                "runs.db keeps them as a patch." }
        }
    }
}

/// Words as a shell reads them.
fn quoted(words: &[&str]) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=,:@%+".contains(c);
    let quote = |word: &&str| {
        if !word.is_empty() && word.chars().all(plain) {
            (*word).to_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}
