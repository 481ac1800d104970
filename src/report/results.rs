//! What methods are worth: accuracy by length, confusion, scores, the surest mistakes.

use std::collections::BTreeMap;

use maud::{Markup, html};
use pipe_stages::evaluation::{Counts, decide};

use super::{
    Subject, colour,
    judged::{Judged, Method, confidence, surest_mistakes},
    plot::{Figure, Frame, Legend, data_table, px},
};
use crate::units::{counted, measured, shortened};

/// Bars of a histogram of scores.
const BARS: usize = 20;
/// Mistakes that are shown of each method.
const MISTAKES: usize = 10;
/// Characters of a review that are shown: its end, which says most of what its author thinks.
const TEXT: usize = 400;
/// Methods that are shown one by one.
const METHODS: usize = 24;

/// Accuracy by length: for one run its methods in one chart, for several a chart for each method.
pub(super) fn by_length(methods: &[Method], several: bool) -> Markup {
    let mut charts: BTreeMap<(&str, Option<&str>), Vec<&Method>> = BTreeMap::new();
    for method in methods.iter().filter(|method| !method.bins.is_empty()) {
        charts.entry((&method.stage, several.then_some(&method.name))).or_default().push(method);
    }
    html! {
        div.charts {
            @for (at, ((stage, name), methods)) in charts.iter().take(METHODS).enumerate() {
                @let of = name.map_or_else(|| (*stage).to_owned(), |name| format!("{stage}.{name}"));
                (length_chart(&format!("lengths-{}", at + 1), &of, methods, several))
            }
        }
    }
}

fn label(method: &Method, several: bool) -> String {
    if several { format!("{}, {}", method.title, method.runs.join(", ")) } else { method.title.clone() }
}

fn length_chart(id: &str, of: &str, methods: &[&Method], several: bool) -> Markup {
    let mut bins: Vec<&str> = Vec::new();
    for (bin, ..) in methods.iter().flat_map(|method| &method.bins) {
        if !bins.contains(&bin.as_str()) {
            bins.push(bin);
        }
    }
    let found = |method: &Method, bin: &str| {
        let (_, counts, published) = method.bins.iter().find(|(name, ..)| name == bin)?;
        Some((counts.accuracy()?, counts.accuracy_interval()?, *counts, *published))
    };
    let cells = || methods.iter().flat_map(|method| bins.iter().filter_map(|bin| found(method, bin)));
    let lowest =
        cells().map(|(_, (low, _), _, published)| published.unwrap_or(1.0).min(low)).fold(1.0, f64::min);
    let frame = Frame::new((-0.5, bins.len() as f64 - 0.5), ((lowest * 10.0).floor() / 10.0, 1.0));
    let places = bins.iter().enumerate().map(|(at, bin)| (frame.x.at(at as f64), (*bin).to_owned()));
    let count = methods.len() as f64;
    let offset = |at: usize| (at as f64 - (count - 1.0) / 2.0) * (0.6 / count.max(3.0));
    let drawing = html! {
        (frame.axes_with("tokens of the whole review", "accuracy", places.collect()))
        @for (at, method) in methods.iter().enumerate() {
            @for (place, bin) in bins.iter().enumerate() {
                @if let Some((accuracy, (low, high), counts, published)) = found(method, bin) {
                    @let x = px(frame.x.at(place as f64 + offset(at)));
                    g.{ "interval " (colour(at)) } {
                        title {
                            (label(method, several)) ", " (bin) " tokens: " (measured(Some(accuracy)))
                            " (" (measured(Some(low))) " to " (measured(Some(high))) ") on " (counts.total())
                            @if let Some(published) = published { ", published " (measured(Some(published))) }
                        }
                        line x1=(x) x2=(x) y1=(px(frame.y.at(low))) y2=(px(frame.y.at(high))) {}
                        circle cx=(x) cy=(px(frame.y.at(accuracy))) r="3.5" {}
                        @if let Some(published) = published {
                            path.published d={ "M" (x) " " (px(frame.y.at(published) - 5.0)) "l5 5l-5 5l-5 -5z" } {}
                        }
                    }
                }
            }
        }
    };
    let labels: Vec<String> = methods.iter().map(|method| label(method, several)).collect();
    let legend =
        labels.iter().enumerate().map(|(at, label)| Legend { class: colour(at), label: label.clone() });
    let is_published = cells().any(|(.., published)| published.is_some());
    let diamonds = if is_published { " Diamonds: published." } else { "" };
    Figure {
        id: id.into(),
        caption: format!("{of}: accuracy by review length"),
        description: format!(
            "Dots: accuracy. Lines: 95 % interval (Wilson).{diamonds} The numbers are in the table below."
        ),
        legend: legend.collect(),
        drawing,
        data: length_table(methods, several),
    }
    .markup()
}

/// The numbers behind a chart by length.
fn length_table(methods: &[&Method], several: bool) -> Markup {
    let mut rows = Vec::new();
    for method in methods {
        for (bin, counts, published) in &method.bins {
            let (low, high) = counts.accuracy_interval().unzip();
            rows.push(vec![
                label(method, several),
                bin.clone(),
                counts.total().to_string(),
                measured(counts.accuracy()),
                measured(low),
                measured(high),
                measured(*published),
            ]);
        }
    }
    data_table(&["method", "tokens", "reviews", "accuracy", "low", "high", "published"], &rows)
}

/// What was called what, a table for each method.
pub(super) fn confusion(methods: &[Method], several: bool) -> Markup {
    html! {
        div.charts {
            @for method in methods.iter().take(METHODS) {
                table.confusion {
                    caption { (method.stage) ": " (label(method, several)) }
                    thead {
                        tr { td {} th scope="col" { "called negative" } th scope="col" { "called positive" } }
                    }
                    tbody {
                        @let Counts { tp, fp, fn_, tn } = method.counts;
                        tr { th scope="row" { "is negative" } (cell(tn, tn + fp, true)) (cell(fp, tn + fp, false)) }
                        tr { th scope="row" { "is positive" } (cell(fn_, tp + fn_, false)) (cell(tp, tp + fn_, true)) }
                    }
                    tfoot {
                        tr { td colspan="3" { "accuracy " (measured(method.counts.accuracy())) ", precision "
                            (measured(method.counts.precision())) ", recall " (measured(method.counts.recall())) } }
                    }
                }
            }
        }
        @if methods.len() > METHODS { p.remark { (counted(methods.len() - METHODS, "method")) " more are not shown." } }
    }
}

fn cell(count: u64, of: u64, is_right: bool) -> Markup {
    let share = if of == 0 { 0.0 } else { count as f64 / of as f64 };
    html! {
        td.{ @if is_right { "right" } @else { "wrong" } } style={ "--share:" (format!("{share:.2}")) } {
            strong { (count) } " " span { (format!("{:.1} %", 100.0 * share)) }
        }
    }
}

fn title(judged: &Judged<'_>, several: bool) -> String {
    if several { format!("{}, {}", judged.title, judged.runs.join(", ")) } else { judged.title.clone() }
}

/// How scores are spread, for positive and for negative items.
pub(super) fn scores(judged: &[Judged<'_>], several: bool) -> Markup {
    html! {
        div.charts {
            @for (at, one) in judged.iter().take(METHODS).enumerate() {
                (score_chart(&format!("scores-{}", at + 1), one, several))
            }
        }
    }
}

fn score_chart(id: &str, judged: &Judged<'_>, several: bool) -> Markup {
    let mut counts = [[0u64; BARS]; 2];
    for row in judged.rows {
        let bar = ((row.score * BARS as f64) as usize).min(BARS - 1);
        counts[usize::from(row.label.min(1))][bar] += 1;
    }
    let most = counts.iter().flatten().copied().max().unwrap_or(1).max(1);
    let frame = Frame::new((0.0, 1.0), (0.0, most as f64));
    let names = ["negative", "positive"];
    let (width, from) = (1.0 / BARS as f64, |bar: usize| bar as f64 / BARS as f64);
    let bar = |label: usize, at: usize| {
        let x = frame.x.at(from(at) + width * (0.08 + 0.42 * label as f64));
        let y = frame.y.at(counts[label][at] as f64);
        let wide = frame.x.at(width * 0.42) - frame.x.at(0.0);
        html! {
            rect.{ "bar " (colour(1 - label)) } x=(px(x)) y=(px(y)) width=(px(wide)) height=(px(frame.y.at(0.0) - y)) {
                title { (names[label]) ", score " (format!("{:.2} to {:.2}", from(at), from(at) + width)) ": " (counts[label][at]) }
            }
        }
    };
    let drawing = html! {
        (frame.axes("score: probability of positive", "reviews"))
        @for label in 0..2 { @for at in 0..BARS { @if counts[label][at] > 0 { (bar(label, at)) } } }
        @if let Some(threshold) = judged.threshold {
            @let x = px(frame.x.at(threshold));
            line.threshold x1=(x) x2=(x) y1=(px(frame.y.at(0.0))) y2=(px(frame.y.at(most as f64))) {}
        }
    };
    let rows: Vec<Vec<String>> = (0..BARS)
        .map(|at| {
            vec![
                format!("{:.2}–{:.2}", from(at), from(at) + width),
                counts[0][at].to_string(),
                counts[1][at].to_string(),
            ]
        })
        .collect();
    let mean = |label: u8| {
        let rows: Vec<f64> =
            judged.rows.iter().filter(|row| row.label == label).map(|row| row.score).collect();
        measured((!rows.is_empty()).then(|| rows.iter().sum::<f64>() / rows.len() as f64))
    };
    Figure {
        id: id.into(),
        caption: format!("{}: scores", title(judged, several)),
        description: format!(
            "{}. Mean score of negative reviews {}, of positive ones {}.",
            counted(judged.rows.len(), "review"),
            mean(0),
            mean(1)
        ),
        legend: (0..2)
            .map(|label| Legend { class: colour(1 - label), label: names[label].to_owned() })
            .collect(),
        drawing,
        data: data_table(&["score", "negative", "positive"], &rows),
    }
    .markup()
}

/// The reviews that were wrong with the highest confidence.
pub(super) fn mistakes(judged: &[Judged<'_>], subjects: &[Subject], several: bool) -> Markup {
    let text = |id: &str| subjects.iter().find_map(|subject| subject.texts.get(id));
    html! {
        @for one in judged.iter().take(METHODS) {
            @let wrong = surest_mistakes(one, MISTAKES);
            @let all = one.rows.iter().filter(|row| decide(row, one.threshold) != row.label).count();
            h3 { (title(one, several)) }
            @if wrong.is_empty() { p { "No mistake in " (counted(one.rows.len(), "review")) "." } } @else {
                p { (counted(all, "mistake")) " in " (counted(one.rows.len(), "review")) "; the surest:" }
                div.scroll tabindex="0" role="region" aria-label={ "Surest mistakes of " (title(one, several)) } {
                    table.mistakes {
                        thead { tr { th scope="col" { "review" } th scope="col" { "is" } th scope="col" { "score" }
                            th scope="col" { "wrongly sure" } th scope="col" { "text" } } }
                        tbody {
                            @for row in wrong {
                                tr {
                                    th scope="row" { (shortened(&row.id, 60)) }
                                    td { @if row.label == 1 { "positive" } @else { "negative" } }
                                    td.number { (measured(Some(row.score))) }
                                    td.number { (format!("{:.1} %", 100.0 * confidence(row))) }
                                    td { @match text(&row.id) {
                                        Some(text) => (ending(text)),
                                        None => span.remark { "no longer in the cache" },
                                    } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The end of a text, on one line.
fn ending(text: &str) -> String {
    let line = text.replace("<br />", " ").split_whitespace().collect::<Vec<_>>().join(" ");
    let length = line.chars().count();
    if length <= TEXT {
        return line;
    }
    format!("… {}", line.chars().skip(length - TEXT).collect::<String>())
}

/// The ids of all items that [`mistakes`] shows, to look their texts up.
pub(super) fn shown_ids<'a>(judged: &'a [Judged<'a>]) -> impl Iterator<Item = &'a str> {
    judged.iter().take(METHODS).flat_map(|one| surest_mistakes(one, MISTAKES)).map(|row| row.id.as_str())
}
