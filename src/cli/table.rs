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
        "done" | "ran" | "better" | "reproduced" => GOOD,
        "failed" | "killed" | "worse" => BAD,
        word if word.starts_with("not reproduced") => BAD,
        "interrupted" | "running" | "skipped" => WARN,
        _ => Style::new(),
    }
}

/// Rows under headings, columns two blanks apart.
pub(crate) struct Columns {
    table: Table,
    /// The columns that are aligned to the right.
    right: Vec<usize>,
    /// The column of words that [`style_of`] gives a colour.
    coloured: Option<usize>,
    rows: Vec<Vec<String>>,
    headings: Vec<String>,
}

impl Columns {
    pub fn new(headings: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(headings);
        let headings = headings.iter().map(|heading| (*heading).to_owned()).collect();
        Self { table, right: Vec::new(), coloured: None, rows: Vec::new(), headings }
    }

    /// Aligns these columns to the right.
    pub fn right(mut self, columns: impl IntoIterator<Item = usize>) -> Self {
        for column in columns {
            if let Some(found) = self.table.column_mut(column) {
                found.set_cell_alignment(CellAlignment::Right);
            }
            self.right.push(column);
        }
        self
    }

    /// Colours the words of this column by what they say.
    pub fn coloured(mut self, column: usize) -> Self {
        self.coloured = Some(column);
        self
    }

    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.headings.len());
        self.rows.push(cells);
    }

    /// The table, cut into several below each other where it is wider than `width`.
    ///
    /// The first `fixed` columns name the rows and begin each of them; `groups` says how many of
    /// the others stay together.
    pub fn text_within(self, width: usize, fixed: usize, groups: &[usize]) -> String {
        let wide = |column: usize| {
            let cells = self.rows.iter().map(|row| &row[column]).chain([&self.headings[column]]);
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0) + 2
        };
        let names: usize = (0..fixed).map(wide).sum();
        let mut blocks: Vec<Vec<usize>> = Vec::new();
        let (mut taken, mut next) = (0, fixed);
        for count in groups {
            let columns = next..next + count;
            let wanted: usize = columns.clone().map(wide).sum();
            next += count;
            // The blanks after a last column are none.
            if blocks.is_empty() || names + taken + wanted > width + 2 {
                blocks.push(Vec::new());
                taken = 0;
            }
            taken += wanted;
            blocks.last_mut().expect("one was just made").extend(columns);
        }
        if blocks.len() < 2 {
            return self.text();
        }
        let parts = blocks.into_iter().map(|block| self.part((0..fixed).chain(block).collect()).text());
        parts.collect::<Vec<_>>().join("\n")
    }

    /// The table of these columns alone.
    fn part(&self, columns: Vec<usize>) -> Self {
        let headings: Vec<&str> = columns.iter().map(|column| self.headings[*column].as_str()).collect();
        let place = |of: &usize| columns.iter().position(|column| column == of);
        let mut part = Self::new(&headings).right(self.right.iter().filter_map(place));
        part.coloured = self.coloured.as_ref().and_then(place);
        for row in &self.rows {
            part.row(columns.iter().map(|column| row[*column].clone()).collect());
        }
        part
    }

    /// The table, each line ended and free of blanks at its end.
    pub fn text(mut self) -> String {
        for row in &self.rows {
            self.table.add_row(row);
        }
        for (at, column) in self.table.column_iter_mut().enumerate() {
            column.set_padding((0, if at + 1 == self.headings.len() { 0 } else { 2 }));
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
