//! The lower end of a terminal, drawn again and again.
//!
//! Between two drawings the cursor stands on the first of the lines that change, so everything from
//! the cursor on is ours: however a terminal folds or cuts lines when its size changes, clearing
//! from there clears all of them and nothing else. Where the terminal can, a drawing is shown whole.

use std::io::{self, Write};

use crate::cli::line::Line;

/// Shows everything up to [`END`] at once, where the terminal knows how.
const BEGIN: &str = "\x1b[?2026h";
const END: &str = "\x1b[?2026l";
/// Lines that became too wide a moment ago are cut by the terminal, not folded.
const CUT: &str = "\x1b[?7l";
const FOLD: &str = "\x1b[?7h";
/// Clears the rest of a line and goes to the next.
const NEXT_LINE: &str = "\x1b[K\r\n";
const CLEAR_BELOW: &str = "\x1b[J";

/// Columns and rows.
pub type Size = (usize, usize);

/// Columns and rows where the terminal does not say.
const USUAL: Size = (80, 24);

/// The lower end of the terminal behind standard error.
#[derive(Debug, Default)]
pub struct Screen {
    is_colored: bool,
    drawn: Vec<String>,
    size: Size,
}

impl Screen {
    /// A screen that nothing is drawn on yet.
    pub fn new() -> Self {
        let choice = anstream::AutoStream::choice(&io::stderr());
        Self { is_colored: choice != anstream::ColorChoice::Never, ..Self::default() }
    }

    /// The size of the terminal now.
    pub fn size() -> Size {
        let size = rustix::termios::tcgetwinsize(io::stderr()).ok();
        let size = size.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)));
        size.filter(|(columns, rows)| *columns > 0 && *rows > 0).unwrap_or(USUAL)
    }

    /// Writes `above` where it stays, and `lines`, fewer than the rows, below it.
    pub fn draw(&mut self, above: &[Line], lines: &[Line], size: Size) {
        let lines: Vec<String> = lines.iter().map(|line| self.painted(line)).collect();
        if above.is_empty() && lines == self.drawn && size == self.size {
            return;
        }
        let above: Vec<String> = above.iter().map(|line| self.painted(line)).collect();
        let frame = frame(&above, &lines, size != self.size);
        (self.drawn, self.size) = (lines, size);
        // A terminal that has gone is no problem of the run.
        let mut terminal = io::stderr().lock();
        let _ = terminal.write_all(frame.as_bytes()).and_then(|()| terminal.flush());
    }

    fn painted(&self, line: &Line) -> String {
        if self.is_colored { line.to_string() } else { line.plain() }
    }
}

fn frame(above: &[String], lines: &[String], is_new: bool) -> String {
    let mut frame = format!("{BEGIN}\r");
    if is_new || lines.is_empty() {
        frame += CLEAR_BELOW;
    }
    for line in above {
        frame += line;
        frame += NEXT_LINE;
    }
    frame += CUT;
    frame += &lines.join(NEXT_LINE);
    frame += CLEAR_BELOW;
    let up = if lines.len() > 1 { format!("\x1b[{}A", lines.len() - 1) } else { String::new() };
    frame + &up + "\r" + FOLD + END
}
