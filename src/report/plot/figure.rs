//! A drawing with its words: caption, legend, description, and the numbers behind it.

use maud::{Markup, html};

use super::{HEIGHT, WIDTH};

/// A chart with all that explains it.
pub(in crate::report) struct Figure<'a> {
    /// Unique in the page.
    pub id: String,
    /// What the chart shows.
    pub caption: String,
    /// What a person who does not see it should know.
    pub description: String,
    /// What each colour stands for.
    pub legend: Vec<Legend<'a>>,
    /// The marks and axes.
    pub drawing: Markup,
    /// The numbers behind it.
    pub data: Markup,
}

/// One entry of a legend.
pub(in crate::report) struct Legend<'a> {
    /// The class that gives its marks their colour.
    pub class: String,
    /// What it stands for.
    pub label: &'a str,
}

impl Figure<'_> {
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
