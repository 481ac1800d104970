//! Tables without borders, and words in colour.
//!
//! Colours are always written; standard output takes them away where they do not belong
//! (`anstream`: no terminal, `NO_COLOR`).

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, ContentArrangement, Table};

use super::units::shortened;

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

    /// Shortens what stands in `column` as far as the table is wider than `width`, to `least` characters at most.
    pub fn shrink(&mut self, column: usize, width: usize, least: usize) {
        let widths: Vec<usize> = (0..self.headings.len()).map(|column| self.width(column)).collect();
        let whole = widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
        let limit = widths[column].saturating_sub(whole.saturating_sub(width)).max(least);
        for row in &mut self.rows {
            row[column] = shortened(&row[column], limit);
        }
    }

    /// Characters of the longest cell of `column`.
    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| &row[column]).chain([&self.headings[column]]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    }

    /// The table, cut into several below each other where it is wider than `width`.
    ///
    /// The first `fixed` columns name the rows and begin each of them; `groups` says how many of
    /// the others stay together.
    pub fn text_within(self, width: usize, fixed: usize, groups: &[usize]) -> String {
        let wide = |column: usize| self.width(column) + 2;
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

#[cfg(test)]
mod tests {
    use super::Columns;

    fn table(text: &str) -> Columns {
        let mut table = Columns::new(&["RUN", "TAGS"]);
        table.row(vec!["run_1".into(), text.into()]);
        table
    }

    #[test]
    fn a_column_gives_what_the_table_is_too_wide_by() {
        let mut wide = table("a tag and a note of it");
        wide.shrink(1, 20, 5);
        let text = anstream::adapter::strip_str(&wide.text()).to_string();
        assert_eq!(text, "RUN    TAGS\nrun_1  a tag … of it\n");
        assert!(text.lines().all(|line| line.chars().count() <= 20));
        let mut fits = table("baseline");
        fits.shrink(1, 20, 5);
        assert!(fits.text().ends_with("baseline\n"));
    }

    #[test]
    fn a_column_keeps_the_least_that_it_may_have() {
        let mut narrow = table("a tag and a note of it");
        narrow.shrink(1, 3, 7);
        assert!(narrow.text().ends_with("run_1  a t… it\n"));
    }
}
