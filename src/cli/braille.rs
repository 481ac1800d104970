//! Lines drawn with braille characters, two dots wide and four high each.

use anstyle::Style;

use super::table::styled;

/// A grid of dots.
pub(super) struct Canvas {
    columns: usize,
    rows: usize,
    /// One braille pattern a character, row by row from the top, and the number of the line that has it.
    cells: Vec<(u8, usize)>,
    /// Lines so far.
    lines: usize,
}

/// Dots across and up a character.
const ACROSS: usize = 2;
const UP: usize = 4;
/// The pattern of each dot: they are numbered down the left, down the right, and then the lowest two.
const BITS: [[u8; ACROSS]; UP] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];

impl Canvas {
    /// An empty grid of so many characters.
    pub fn new(columns: usize, rows: usize) -> Self {
        Self { columns, rows, cells: vec![(0, 0); columns * rows], lines: 0 }
    }

    /// Joins `points`, whose places are shares of the width and the height, from the lower left.
    pub fn line(&mut self, points: impl IntoIterator<Item = (f64, f64)>) {
        let (right, top) = ((self.columns * ACROSS - 1) as f64, (self.rows * UP - 1) as f64);
        let mut last: Option<(f64, f64)> = None;
        for (x, y) in points {
            let (x, y) = ((x * right).round(), (y * top).round());
            let (from_x, from_y) = last.unwrap_or((x, y));
            let steps = (x - from_x).abs().max((y - from_y).abs()).max(1.0);
            for step in 0..=steps as usize {
                let share = step as f64 / steps;
                self.dot(from_x + share * (x - from_x), from_y + share * (y - from_y));
            }
            last = Some((x, y));
        }
        self.lines += 1;
    }

    fn dot(&mut self, x: f64, y: f64) {
        let (x, y) = (x.round() as usize, self.rows * UP - 1 - y.round() as usize);
        let (pattern, line) = &mut self.cells[y / UP * self.columns + x / ACROSS];
        *pattern |= BITS[y % UP][x % ACROSS];
        *line = self.lines;
    }

    /// The characters up to the last that is not empty, row by row from the top; `style` is that of a line, by
    /// its number.
    pub fn text(&self, style: impl Fn(usize) -> Style) -> impl Iterator<Item = String> {
        let character =
            |cell: &(u8, usize)| char::from_u32(0x2800 + u32::from(cell.0)).expect("all 256 are patterns");
        self.cells.chunks(self.columns).map(move |row| {
            let end = row.iter().rposition(|(pattern, _)| *pattern != 0).map_or(0, |last| last + 1);
            let parts = row[..end].chunk_by(|a, b| a.1 == b.1);
            parts
                .map(|part| styled(style(part[0].1), &part.iter().map(character).collect::<String>()))
                .collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_from_corner_to_corner() {
        let mut canvas = Canvas::new(2, 1);
        canvas.line([(0.0, 0.0), (1.0, 1.0)]);
        let text = |canvas: &Canvas| canvas.text(|_| Style::new()).collect::<Vec<_>>();
        assert_eq!(text(&canvas), ["⡠⠊"]);
        let mut canvas = Canvas::new(1, 2);
        canvas.line([(0.0, 1.0)]);
        canvas.line([(1.0, 0.0), (1.0, 0.2)]);
        assert_eq!(text(&canvas), ["⠁", "⢠"]);
    }
}
