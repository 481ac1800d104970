//! Tables without borders, and words in colour.
//!
//! Colours are always written; standard output takes them away where they do not belong
//! (`anstream`: no terminal, `NO_COLOR`).

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthStr;

use super::units::begin;

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
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
    /// The columns that are aligned to the right.
    right: Vec<usize>,
    /// The column of words that [`style_of`] gives a colour.
    coloured: Option<usize>,
}

impl Columns {
    pub fn new(headings: &[&str]) -> Self {
        let headings = headings.iter().map(|heading| (*heading).to_owned()).collect();
        Self { headings, rows: Vec::new(), right: Vec::new(), coloured: None }
    }

    /// Aligns these columns to the right.
    pub fn right(mut self, columns: impl IntoIterator<Item = usize>) -> Self {
        self.right.extend(columns);
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

    /// Cuts the cells of `column` by what the table is wider than `width`, but leaves `least` cells of each.
    pub fn shrink(&mut self, column: usize, width: usize, least: usize) {
        let widths: Vec<usize> = (0..self.headings.len()).map(|column| self.width(column)).collect();
        let whole = widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
        let limit = widths[column].saturating_sub(whole.saturating_sub(width)).max(least);
        for cell in self.rows.iter_mut().map(|row| &mut row[column]) {
            if cell.width() > limit {
                *cell = format!("{}…", begin(cell, limit - 1));
            }
        }
    }

    /// Columns of the terminal that the longest cell of `column` takes.
    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| &row[column]).chain([&self.headings[column]]);
        cells.map(|cell| cell.width()).max().unwrap_or(0)
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
    pub fn text(self) -> String {
        let widths: Vec<usize> = (0..self.headings.len()).map(|column| self.width(column)).collect();
        let mut headings = String::new();
        self.line(&mut headings, &self.headings, &widths, None);
        let mut text = format!("{}\n", styled(BOLD, &headings));
        for row in &self.rows {
            self.line(&mut text, row, &widths, self.coloured);
            text.push('\n');
        }
        text
    }

    /// Appends a line of `cells`, without its end.
    fn line(&self, text: &mut String, cells: &[String], widths: &[usize], coloured: Option<usize>) {
        let mut blanks = 0;
        for (at, cell) in cells.iter().enumerate() {
            let rest = widths[at] - cell.width();
            let (before, after) = if self.right.contains(&at) { (rest, 0) } else { (0, rest) };
            blanks += before;
            if !cell.is_empty() {
                let style = if coloured == Some(at) { style_of(cell) } else { Style::new() };
                write!(text, "{:blanks$}{style}{cell}{style:#}", "").expect("a text grows");
                blanks = 0;
            }
            blanks += after + 2;
        }
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
        assert_eq!(text, "RUN    TAGS\nrun_1  a tag and a …\n");
        assert!(text.lines().all(|line| line.chars().count() <= 20));
        let mut wide = table("数据集数据集数据集");
        wide.shrink(1, 20, 5);
        let text = anstream::adapter::strip_str(&wide.text()).to_string();
        assert_eq!(text, "RUN    TAGS\nrun_1  数据集数据集…\n");
        let mut fits = table("baseline");
        fits.shrink(1, 20, 5);
        assert!(fits.text().ends_with("baseline\n"));
    }

    #[test]
    fn a_column_keeps_the_least_that_it_may_have() {
        let mut narrow = table("a tag and a note of it");
        narrow.shrink(1, 3, 7);
        assert!(narrow.text().ends_with("run_1  a tag …\n"));
    }
}
