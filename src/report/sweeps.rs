//! The stages of each `matrix` as one table: which combination of values is best.

use maud::{Markup, html};

use super::facts::{ROWS, arrow_of};
use crate::{
    metrics::better,
    runs::{
        LoadedRun,
        sweep::{Sweep, SweepMetric, sweeps},
    },
    units::{counted, list, mean_and_sd, p_value},
};

/// The sweeps of `run` that compare something.
pub(super) fn of(run: &LoadedRun) -> Vec<Sweep> {
    sweeps(run, better).into_iter().filter(|sweep| !shown(sweep).is_empty() && sweep.compares()).collect()
}

fn shown(sweep: &Sweep) -> Vec<&SweepMetric> {
    sweep.metrics.iter().filter(|metric| metric.is_result()).collect()
}

/// A table for each of `sweeps`, and what its marks mean.
pub(super) fn tables(sweeps: &[Sweep]) -> Markup {
    let leads = || sweeps.iter().flat_map(shown).flat_map(|metric| metric.lead.iter().flatten());
    let is_tested = leads().any(|lead| lead.holm_p.is_some());
    html! {
        @for sweep in sweeps { (table(sweep)) }
        p.remark {
            "Bold: the best of its column."
            @if is_tested {
                " Red and *: worse than the best by more than seeds give (Welch's t-test, corrected by Holm for all pairs, \
                  p < 0.05)."
            }
        }
    }
}

fn table(sweep: &Sweep) -> Markup {
    let axes: Vec<&str> =
        sweep.axes.iter().filter(|axis| !axis.is_seed).map(|axis| axis.name.as_str()).collect();
    let seeds: Vec<String> = sweep.seed_axes().map(|axis| axis.name.clone()).collect();
    let metrics = shown(sweep);
    let hidden = sweep.rows.len().saturating_sub(ROWS);
    html! {
        div.scroll tabindex="0" role="region" aria-label={ "Combinations of " (sweep.stage) } {
            table {
                caption {
                    (sweep.stage) ": " (counted(sweep.rows.len(), "combination"))
                    @if !seeds.is_empty() { ", mean ± standard deviation over " (list(&seeds)) }
                }
                thead { tr {
                    @for axis in &axes { th scope="col" { (axis) } }
                    @if !seeds.is_empty() { th.number scope="col" { "n" } }
                    @for metric in &metrics { th.number scope="col" { (metric.name) " " (arrow_of(metric.better)) } }
                } }
                tbody {
                    @for (at, row) in sweep.rows.iter().enumerate().take(ROWS) {
                        tr {
                            @for axis in &axes { th scope="row" { (row.at.get(*axis).map_or("", String::as_str)) } }
                            @if !seeds.is_empty() { td.number { (row.executions()) } }
                            @for metric in &metrics { (cell(metric, at)) }
                        }
                    }
                }
            }
        }
        @if hidden > 0 { p.remark { (counted(hidden, "combination")) " more are not shown." } }
    }
}

fn cell(metric: &SweepMetric, at: usize) -> Markup {
    let Some(spread) = metric.spreads[at] else { return html! { td {} } };
    let lead = metric.lead[at];
    let is_worse = lead.is_some_and(|lead| lead.is_better());
    let text = html! {
        (mean_and_sd(spread.mean, spread.sd)) @if is_worse { " *" }
    };
    let p = lead.and_then(|lead| lead.holm_p).map(|p| format!("p {} against the best", p_value(p)));
    html! {
        td.number.worse[is_worse] title=[p] { @if metric.best.contains(&at) { strong { (text) } } @else { (text) } }
    }
}
