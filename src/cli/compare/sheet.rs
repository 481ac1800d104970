//! A comparison as tables and sentences, before it is known what they will be written in.

use std::fmt::Write;

use crate::cli::table::{BOLD, Columns, DIM, styled};

/// Tables and sentences, in their order.
pub(super) type Sheet = Vec<Part>;

pub(super) enum Part {
    /// What the table below it is of.
    Title(String),
    Table(Table),
    /// Sentences that say what came out.
    Findings(Vec<String>),
    /// Small print.
    Remarks(Vec<String>),
}

/// Rows under headings.
pub(super) struct Table {
    pub headings: Vec<Heading>,
    /// Columns that name the row; they are repeated where a table is cut to the width of a terminal.
    pub fixed: usize,
    /// How many columns belong together, after the fixed ones.
    pub groups: Vec<usize>,
    /// The column of words like `better`.
    pub coloured: Option<usize>,
    pub rows: Vec<Vec<String>>,
}

pub(super) struct Heading {
    pub text: String,
    /// Whether it is a word of ours rather than a name: such are capitals on a terminal.
    pub is_word: bool,
    pub right: bool,
}

/// A column of text under a word of ours.
pub(super) fn word(text: &str) -> Heading {
    Heading { text: text.into(), is_word: true, right: false }
}

/// A column of text under a name.
pub(super) fn name(text: &str) -> Heading {
    Heading { text: text.into(), is_word: false, right: false }
}

impl Heading {
    /// The same, of numbers.
    pub fn right(self) -> Self {
        Self { right: true, ..self }
    }
}

/// The sheet for a terminal of `width` columns.
pub(super) fn plain(sheet: &Sheet, width: usize) -> String {
    let mut parts = Parts::default();
    for part in sheet {
        parts.push(
            part,
            match part {
                Part::Title(title) => folded(std::slice::from_ref(title), width, |line| styled(BOLD, line)),
                Part::Table(table) => table.columns().text_within(width, table.fixed, &table.groups),
                Part::Findings(lines) => folded(lines, width, str::to_owned),
                Part::Remarks(lines) => folded(lines, width, |line| styled(DIM, line)),
            },
        );
    }
    parts.text
}

/// Texts a line apart, but none below a title.
#[derive(Default)]
struct Parts {
    text: String,
    is_below_title: bool,
}

impl Parts {
    fn push(&mut self, part: &Part, text: String) {
        if !self.text.is_empty() && !self.is_below_title {
            self.text.push('\n');
        }
        self.text.push_str(&text);
        self.is_below_title = matches!(part, Part::Title(_));
    }
}

impl Table {
    fn columns(&self) -> Columns {
        let shown = |heading: &Heading| {
            if heading.is_word { heading.text.to_uppercase() } else { heading.text.clone() }
        };
        let headings: Vec<String> = self.headings.iter().map(shown).collect();
        let right = self.headings.iter().enumerate().filter(|(_, heading)| heading.right);
        let mut columns = Columns::new(&headings.iter().map(String::as_str).collect::<Vec<_>>())
            .right(right.map(|(at, _)| at));
        if let Some(column) = self.coloured {
            columns = columns.coloured(column);
        }
        self.rows.iter().for_each(|row| columns.row(row.clone()));
        columns
    }
}

/// Lines broken at blanks where they are longer than `width`; what goes on is indented.
fn folded(lines: &[String], width: usize, style: impl Fn(&str) -> String) -> String {
    let mut text = String::new();
    for line in lines {
        let mut current = String::new();
        for part in line.split(' ') {
            if !current.trim().is_empty() && current.chars().count() + 1 + part.chars().count() > width {
                text.push_str(&style(&current));
                text.push('\n');
                current = format!(" {part}");
            } else {
                if !current.is_empty() {
                    current.push(' ');
                }
                current.push_str(part);
            }
        }
        text.push_str(&style(&current));
        text.push('\n');
    }
    text
}

/// The sheet as markdown.
pub(super) fn markdown(sheet: &Sheet) -> String {
    let row = |cells: Vec<String>| {
        let cells = cells.into_iter().map(|cell| cell.trim().replace('|', "\\|").replace('\n', " "));
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let mut parts = Vec::new();
    for part in sheet {
        parts.push(match part {
            Part::Title(title) => format!("**{title}**\n"),
            Part::Table(table) => {
                let mut text = row(table.headings.iter().map(|heading| heading.text.clone()).collect());
                let rule = |heading: &Heading| if heading.right { "--:" } else { "---" }.to_owned();
                text.push_str(&row(table.headings.iter().map(rule).collect()));
                table.rows.iter().for_each(|cells| text.push_str(&row(cells.clone())));
                text
            }
            Part::Findings(lines) | Part::Remarks(lines) => {
                lines.iter().map(|line| format!("- {line}\n")).collect()
            }
        });
    }
    parts.join("\n")
}

/// What a page of its own looks like: light and dark, on paper and on narrow screens.
const STYLE: &str = "\
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
div { overflow-x: auto; margin: 1.5rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem .2rem 0; text-align: left; white-space: nowrap; }
th { border-bottom: 1px solid; } .n { text-align: right; } .remarks { opacity: .75; }
.better { color: #16803c; } .worse { color: #c02626; }
@media (prefers-color-scheme: dark) { .better { color: #4ade80; } .worse { color: #f87171; } }
";

/// The sheet as one file that needs nothing else.
pub(super) fn html(sheet: &Sheet, title: &str) -> String {
    let title = escaped(title);
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n<h1>{title}</h1>\n"
    );
    for part in sheet {
        match part {
            Part::Title(title) => writeln!(text, "<h2>{}</h2>", escaped(title)).expect("a text grows"),
            Part::Table(table) => {
                text.push_str("<div><table>\n<thead><tr>");
                for heading in &table.headings {
                    let class = if heading.right { " class=\"n\"" } else { "" };
                    let heading = escaped(&heading.text);
                    write!(text, "<th scope=\"col\"{class}>{heading}</th>").expect("a text grows");
                }
                text.push_str("</tr></thead>\n<tbody>\n");
                for row in &table.rows {
                    text.push_str("<tr>");
                    for (at, cell) in row.iter().enumerate() {
                        text.push_str(&cell_of(table, at, cell));
                    }
                    text.push_str("</tr>\n");
                }
                text.push_str("</tbody></table></div>\n");
            }
            Part::Findings(lines) | Part::Remarks(lines) => {
                let class = if matches!(part, Part::Remarks(_)) { " class=\"remarks\"" } else { "" };
                writeln!(text, "<ul{class}>").expect("a text grows");
                for line in lines {
                    writeln!(text, "<li>{}</li>", escaped(line)).expect("a text grows");
                }
                text.push_str("</ul>\n");
            }
        }
    }
    text.push_str("</html>\n");
    text
}

fn cell_of(table: &Table, at: usize, cell: &str) -> String {
    let mut classes = Vec::new();
    if table.headings[at].right {
        classes.push("n");
    }
    if table.coloured == Some(at) && matches!(cell, "better" | "worse") {
        classes.push(cell);
    }
    let class = match classes.as_slice() {
        [] => String::new(),
        names => format!(" class=\"{}\"", names.join(" ")),
    };
    match at {
        0 => format!("<th scope=\"row\"{class}>{}</th>", escaped(cell)),
        _ => format!("<td{class}>{}</td>", escaped(cell)),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
