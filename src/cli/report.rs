//! Draws diagnostics: the place, the line, a caret, a suggestion.

use std::io::{self, IsTerminal};

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, ThemeCharacters, ThemeStyles};

use super::{Globals, excerpt::Excerpt};

/// Narrowest and widest drawing, in columns.
const WIDTHS: (usize, usize) = (60, 120);
/// Columns where there is no terminal to ask.
const WIDTH: usize = 100;

/// How diagnostics are drawn on one output.
#[derive(Debug)]
pub(super) struct Drawing {
    handler: GraphicalReportHandler,
    /// The columns of the terminal, and what stands there for text that is left out.
    terminal: Option<(usize, &'static str)>,
}

impl Drawing {
    /// For standard error: lines and colours as the terminal has them, else plain ASCII.
    pub fn for_talk(globals: &Globals) -> Self {
        let terminal = io::stderr().is_terminal();
        let (characters, mark) = if terminal && speaks_unicode() {
            (ThemeCharacters::unicode(), "…")
        } else {
            (ThemeCharacters::ascii(), "...")
        };
        let styles = if globals.colors_talk() { ThemeStyles::ansi() } else { ThemeStyles::none() };
        let width = if terminal { terminal_width().clamp(WIDTHS.0, WIDTHS.1) } else { WIDTH };
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme { characters, styles })
            .with_width(width)
            .with_links(false)
            .with_context_lines(0)
            .with_cause_chain()
            .without_primary_span_start()
            .without_syntax_highlighting();
        Self { handler, terminal: terminal.then(|| (terminal_width(), mark)) }
    }

    /// The drawing, ending with a line break.
    pub fn draw(&self, diagnostic: &dyn Diagnostic) -> String {
        let excerpt = self.terminal.and_then(|(width, mark)| Excerpt::of(diagnostic, width, mark));
        let drawn = excerpt.as_ref().map_or(diagnostic, |excerpt| excerpt);
        let mut out = String::new();
        if self.handler.render_report(&mut out, drawn).is_err() {
            out = format!("{diagnostic}\n");
        }
        let lines: Vec<&str> = out.trim_start_matches('\n').lines().map(str::trim_end).collect();
        lines.join("\n") + "\n"
    }
}

fn speaks_unicode() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    locale.is_some_and(|locale| {
        let locale = locale.to_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// Columns that tables may take: those of the terminal behind standard output, else 80.
pub(super) fn table_width() -> usize {
    let size = io::stdout().is_terminal().then(|| rustix::termios::tcgetwinsize(io::stdout()));
    size.and_then(Result::ok).map_or(80, |size| usize::from(size.ws_col).max(40))
}

/// `text` as the terminal behind standard output has room for: lines are broken at blanks and go on after
/// `indent`. Where there is no terminal it stays as it is.
pub(super) fn fitted(text: &str, indent: &str) -> String {
    if io::stdout().is_terminal() { broken(text, table_width(), indent) } else { text.to_owned() }
}

/// As [`fitted`], for standard error.
pub(super) fn fitted_talk(text: &str, indent: &str) -> String {
    if io::stderr().is_terminal() { broken(text, terminal_width(), indent) } else { text.to_owned() }
}

fn broken(text: &str, width: usize, indent: &str) -> String {
    let options = textwrap::Options::new(width).subsequent_indent(indent).break_words(false);
    textwrap::wrap(text, options).join("\n")
}

/// Columns of the terminal behind standard error.
pub(super) fn terminal_width() -> usize {
    rustix::termios::tcgetwinsize(io::stderr()).map_or(WIDTH, |size| usize::from(size.ws_col).max(1))
}
