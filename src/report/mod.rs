//! One page that shows runs: self-contained HTML, drawn from what `runs.db` knows.
//!
//! Pure: takes loaded runs and returns the text of the page. It needs no script, no font and no
//! network, and forbids itself all of them; every text that people wrote is escaped by `maud`.
//! Light, dark and print are style alone.

mod curves;
mod dag;
mod facts;
mod graph;
mod judged;
mod plot;
mod results;
mod subject;
mod sweeps;
mod timeline;

use std::collections::BTreeSet;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::runs::sweep::Sweep;

pub use curves::{LOOKS, curve_svg};
pub use subject::Subject;

/// The page's style.
const STYLE: &str = include_str!("style.css");
/// Nothing is fetched, whatever a text in the page says.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The page about `subjects`, at least one; the first is what others are compared with.
pub fn report(subjects: &[Subject]) -> String {
    let runs: Vec<String> = subjects.iter().map(|subject| subject.run.info.run.to_string()).collect();
    let pipelines: BTreeSet<&str> =
        subjects.iter().map(|subject| subject.run.info.pipeline.as_str()).collect();
    let pipelines = pipelines.into_iter().collect::<Vec<_>>().join(", ");
    page(&runs.join(", "), &pipelines, &sections(subjects))
}

/// A part of the page: its id, its heading and what it shows.
type Section = (&'static str, &'static str, Markup);

/// What there is to show of `subjects`, in order.
fn sections(subjects: &[Subject]) -> Vec<Section> {
    let several = subjects.len() > 1;
    let (methods, judged) = (judged::methods(subjects), judged::judged(subjects));
    let comparison = facts::comparison(subjects);
    let has_bins = methods.iter().any(|method| !method.bins.is_empty());
    let runs = |draw: &dyn Fn(usize, &Subject) -> Markup| {
        html! {
            @for (at, subject) in subjects.iter().enumerate() {
                // The first is what people look at; the others are a click away.
                @if at == 0 { (draw(at, subject)) } @else {
                    details { summary { (subject.run.info.run) } (draw(at, subject)) }
                }
            }
        }
    };
    let graphs = runs(
        &|at, subject| html! { (dag::dag(&format!("dag-{}", at + 1), &subject.run)) (facts::stages(&subject.run)) },
    );
    let times = runs(&|at, subject| timeline::timeline(&format!("timeline-{}", at + 1), &subject.run));
    let swept: Vec<Vec<Sweep>> = subjects.iter().map(|subject| sweeps::of(&subject.run)).collect();
    let has_sweeps = swept.iter().any(|sweeps| !sweeps.is_empty());
    let combinations = runs(&|at, _| sweeps::tables(&swept[at]));
    let sections: [(bool, &str, &str, Markup); 14] = [
        (true, "overview", "Overview", facts::overview(subjects)),
        (several, "differences", "What differed", facts::differences(&comparison, subjects)),
        (has_sweeps, "sweeps", "Combinations", combinations),
        (true, "metrics", "Results", facts::metrics(&comparison, subjects, &swept[0])),
        (has_bins, "lengths", "Accuracy by review length", results::by_length(&methods, several)),
        (!methods.is_empty(), "confusion", "What was called what", results::confusion(&methods, several)),
        (!judged.is_empty(), "scores", "Scores", results::scores(&judged, several)),
        (!judged.is_empty(), "mistakes", "Surest mistakes", results::mistakes(&judged, subjects, several)),
        (true, "curves", "Curves", curves::curves(subjects)),
        (true, "stages", "Stages", graphs),
        (true, "timeline", "Timeline", times),
        (true, "parameters", "Parameters", facts::parameters(subjects)),
        (true, "environment", "Environment", facts::environment(subjects)),
        (
            true,
            "reproduce",
            "How to reproduce",
            html! { @for subject in subjects { (facts::reproduce(&subject.run.info)) } },
        ),
    ];
    let shown = sections.into_iter().filter(|(is_shown, ..)| *is_shown);
    shown.map(|(_, id, title, content)| (id, title, content)).collect()
}

/// The whole page about `runs` of `pipelines`.
fn page(runs: &str, pipelines: &str, sections: &[Section]) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="color-scheme" content="light dark";
                title { (runs) " – " (pipelines) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#overview" { "Skip to the report" }
                header {
                    h1 { (runs) " " small { (pipelines) } }
                    fieldset.theme {
                        legend { "Colours" }
                        @for (id, name) in [("auto", "as the system"), ("light", "light"), ("dark", "dark")] {
                            label { input type="radio" name="theme" id={ "theme-" (id) } checked[id == "auto"]; (name) }
                        }
                    }
                }
                nav aria-label="Sections" {
                    ul { @for (id, title, _) in sections { li { a href={ "#" (id) } { (title) } } } }
                }
                main {
                    @for (id, title, content) in sections {
                        section aria-labelledby={ (id) } { h2 id=(id) { (title) } (content) }
                    }
                }
                footer { p { "Written by pipe " (env!("CARGO_PKG_VERSION")) " from runs.db." } }
            }
        }
    };
    page.into_string()
}

/// The reviews whose texts [`report`] would show, by id.
pub fn wanted_texts(subjects: &[Subject]) -> BTreeSet<String> {
    let judged = judged::judged(subjects);
    results::shown_ids(&judged).map(ToOwned::to_owned).collect()
}

/// How many colours there are.
const COLOURS: usize = 8;

/// The class of the colour with this number; they come round again.
fn colour(number: usize) -> String {
    format!("c{}", number % COLOURS)
}
