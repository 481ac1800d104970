//! A drawing with its words: caption, legend, description, and the numbers behind it.

use maud::{Markup, PreEscaped, html};

use super::{HEIGHT, WIDTH};

/// What a chart of its own looks like: plain colours, since not all who draw SVG know variables.
const SVG_STYLE: &str = include_str!("svg.css");
/// Room above such a chart for its caption.
const HEAD: f64 = 24.0;

/// A chart with all that explains it.
pub(in crate::report) struct Figure {
    /// Unique in the page.
    pub id: String,
    /// What the chart shows.
    pub caption: String,
    /// What a person who does not see it should know.
    pub description: String,
    /// What each colour stands for.
    pub legend: Vec<Legend>,
    /// The marks and axes.
    pub drawing: Markup,
    /// The numbers behind it.
    pub data: Markup,
}

/// One entry of a legend.
pub(in crate::report) struct Legend {
    /// The class that gives its marks their colour.
    pub class: String,
    /// What it stands for.
    pub label: String,
}

impl Figure {
    /// The chart as a file of its own, which nothing else gives its style.
    pub fn svg(self) -> Markup {
        let Figure { caption, description, legend, drawing, .. } = self;
        let (head, place) = (HEAD + 16.0 * legend.len() as f64, |at: usize| 34.0 + 16.0 * at as f64);
        html! {
            svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox={ "0 0 " (WIDTH) " " (HEIGHT + head) }
                width=(2.0 * WIDTH) height=(2.0 * (HEIGHT + head)) aria-labelledby="title desc" {
                title id="title" { (caption) }
                desc id="desc" { (description) }
                style { (PreEscaped(SVG_STYLE)) }
                rect.back width="100%" height="100%" {}
                text.caption x="10" y="18" { (caption) }
                @for (at, entry) in legend.iter().enumerate() {
                    line.{ "line " (entry.class) } x1="10" x2="30" y1=(place(at)) y2=(place(at)) {}
                    text x="36" y=(place(at)) dy=".32em" { (entry.label) }
                }
                g transform={ "translate(0 " (head) ")" } { (drawing) }
            }
        }
    }

    pub fn markup(self) -> Markup {
        let Figure { id, caption, description, legend, drawing, data } = self;
        html! {
            figure.chart id=(id) {
                figcaption { (caption) }
                svg role="img" viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } aria-labelledby={ (id) "-title " (id) "-desc" } {
                    title id={ (id) "-title" } { (caption) }
                    desc id={ (id) "-desc" } { (description) }
                    (drawing)
                }
                @if !legend.is_empty() {
                    ul.legend {
                        @for entry in legend { li { span.{ "swatch " (entry.class) } {} (entry.label) } }
                    }
                }
                details { summary { "Numbers" } (data) }
            }
        }
    }
}

/// A table of numbers below headings, the first cell of a row naming it.
pub(in crate::report) fn data_table(headings: &[&str], rows: &[Vec<String>]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label={ "Table of " (headings.join(", ")) } {
            table {
                thead { tr { @for heading in headings { th scope="col" { (heading) } } } }
                tbody {
                    @for row in rows {
                        tr {
                            @for (at, cell) in row.iter().enumerate() {
                                @if at == 0 { th scope="row" { (cell) } } @else { td.number { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}
