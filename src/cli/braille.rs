//! Lines drawn with braille characters, two dots wide and four high each.

/// A grid of dots.
pub(super) struct Canvas {
    columns: usize,
    rows: usize,
    /// One braille pattern a character, row by row from the top.
    cells: Vec<u8>,
}

/// Dots across and up a character.
const ACROSS: usize = 2;
const UP: usize = 4;
/// The pattern of each dot: they are numbered down the left, down the right, and then the lowest two.
const BITS: [[u8; ACROSS]; UP] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];

impl Canvas {
    /// An empty grid of so many characters.
    pub fn new(columns: usize, rows: usize) -> Self {
        Self { columns, rows, cells: vec![0; columns * rows] }
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
    }

    fn dot(&mut self, x: f64, y: f64) {
        let (x, y) = (x.round() as usize, self.rows * UP - 1 - y.round() as usize);
        self.cells[y / UP * self.columns + x / ACROSS] |= BITS[y % UP][x % ACROSS];
    }

    /// The characters, row by row from the top.
    pub fn text(&self) -> impl Iterator<Item = String> {
        let character = |cell: &u8| char::from_u32(0x2800 + u32::from(*cell)).expect("all 256 are patterns");
        self.cells.chunks(self.columns).map(move |row| row.iter().map(character).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_from_corner_to_corner() {
        let mut canvas = Canvas::new(2, 1);
        canvas.line([(0.0, 0.0), (1.0, 1.0)]);
        assert_eq!(canvas.text().collect::<Vec<_>>(), ["⡠⠊"]);
        let mut canvas = Canvas::new(1, 2);
        canvas.line([(0.0, 1.0)]);
        canvas.line([(1.0, 0.0), (1.0, 0.2)]);
        assert_eq!(canvas.text().collect::<Vec<_>>(), ["⠁", "⢠"]);
    }
}
