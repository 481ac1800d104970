//! Tables without borders, and words in colour.
//!
//! Colours are always written; standard output takes them away where they do not belong
//! (`anstream`: no terminal, `NO_COLOR`).

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, ContentArrangement, Table};

pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();

/// `text` in `style`.
pub(crate) fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// The style of a word that says how something stands.
pub(crate) fn style_of(word: &str) -> Style {
    match word {
        "done" | "ran" | "better" => GOOD,
        "failed" | "killed" | "worse" => BAD,
        "interrupted" | "running" | "skipped" => WARN,
        _ => Style::new(),
    }
}

/// Rows under headings, columns two blanks apart.
pub(crate) struct Columns {
    table: Table,
    /// The column of words that [`style_of`] gives a colour.
    coloured: Option<usize>,
    rows: Vec<Vec<String>>,
    headings: usize,
}

impl Columns {
    pub fn new(headings: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(headings);
        Self { table, coloured: None, rows: Vec::new(), headings: headings.len() }
    }

    /// Aligns these columns to the right.
    pub fn right(mut self, columns: impl IntoIterator<Item = usize>) -> Self {
        for column in columns {
            if let Some(column) = self.table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        self
    }

    /// Colours the words of this column by what they say.
    pub fn coloured(mut self, column: usize) -> Self {
        self.coloured = Some(column);
        self
    }

    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.headings);
        self.rows.push(cells);
    }

    /// The table, each line ended and free of blanks at its end.
    pub fn text(mut self) -> String {
        for row in &self.rows {
            self.table.add_row(row);
        }
        for (at, column) in self.table.column_iter_mut().enumerate() {
            column.set_padding((0, if at + 1 == self.headings { 0 } else { 2 }));
        }
        let mut text = String::new();
        for (at, line) in self.table.lines().enumerate() {
            let line = line.trim_end();
            match (at, self.coloured) {
                (0, _) => text.push_str(&styled(BOLD, line)),
                (_, Some(column)) => text.push_str(&colour(line, &self.rows[at - 1][column])),
                _ => text.push_str(line),
            }
            text.push('\n');
        }
        text
    }
}

/// `line` with the first `word` that stands alone in its colour.
fn colour(line: &str, word: &str) -> String {
    let style = style_of(word);
    let alone = |at: &usize| {
        let ends = |c: Option<char>| c.is_none_or(char::is_whitespace);
        ends(line[..*at].chars().next_back()) && ends(line[at + word.len()..].chars().next())
    };
    let found = line.match_indices(word).map(|(at, _)| at).find(alone);
    match found {
        Some(at) if style != Style::new() && !word.is_empty() => {
            format!("{}{}{}", &line[..at], styled(style, word), &line[at + word.len()..])
        }
        _ => line.to_owned(),
    }
}
