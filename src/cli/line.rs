//! One line of what is said of a run: a verb, then words, each in its style.

use std::fmt;

use anstyle::{AnsiColor, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns of a verb.
const VERB_WIDTH: usize = 9;
/// Columns before what follows a verb.
pub const INDENT: usize = VERB_WIDTH + 1;

/// One line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    spans: Vec<(Style, String)>,
    is_whole: bool,
}

impl Line {
    /// A line that begins with a verb, such as `running`.
    pub fn new(verb: &str, style: Style) -> Self {
        Self::default().then(style, format!("{verb:>VERB_WIDTH$}")).then(Style::new(), " ")
    }

    /// A line without a verb.
    pub fn indented() -> Self {
        Self::default().then(Style::new(), " ".repeat(INDENT))
    }

    /// Adds words.
    #[must_use]
    pub fn then(mut self, style: Style, words: impl Into<String>) -> Self {
        self.spans.push((style, words.into()));
        self
    }

    /// Adds words without a style.
    #[must_use]
    pub fn say(self, words: impl Into<String>) -> Self {
        self.then(Style::new(), words)
    }

    /// Is never cut, since it is there to be copied.
    #[must_use]
    pub fn whole(self) -> Self {
        Self { is_whole: true, ..self }
    }

    /// Columns that it takes.
    pub fn width(&self) -> usize {
        self.spans.iter().map(|(_, words)| words.width()).sum()
    }

    /// The line in at most `width` columns, with `…` where something is left out.
    #[must_use]
    pub fn cut(mut self, width: usize) -> Self {
        if self.is_whole || self.width() <= width {
            return self;
        }
        let mut left = width.saturating_sub(1);
        for at in 0..self.spans.len() {
            let words = &mut self.spans[at].1;
            let mut end = 0;
            for (start, c) in words.char_indices() {
                let columns = c.width().unwrap_or(0);
                if columns > left {
                    words.truncate(start);
                    words.extend((width > 0).then_some('…'));
                    self.spans.truncate(at + 1);
                    return self;
                }
                left -= columns;
                end = start + c.len_utf8();
            }
            debug_assert_eq!(end, words.len());
        }
        self
    }

    /// The line in as many as are needed for each to take at most `width` columns.
    pub fn wrapped(self, width: usize) -> Vec<Self> {
        if self.width() <= width {
            return vec![self];
        }
        let (head, words) = self.spans.split_at(2.min(self.spans.len()));
        let words: String = words.iter().map(|(_, words)| words.as_str()).collect();
        let parts = textwrap::wrap(&words, width.saturating_sub(INDENT).max(1));
        let first = Self { spans: head.to_vec(), is_whole: false };
        let heads = std::iter::once(first).chain(std::iter::repeat_with(Self::indented));
        heads.zip(parts).map(|(head, part)| head.say(part).cut(width)).collect()
    }

    /// The words alone.
    pub fn plain(&self) -> String {
        self.spans.iter().map(|(_, words)| words.as_str()).collect()
    }
}

impl fmt::Display for Line {
    /// Writes the line with its styles, for a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (style, words) in &self.spans {
            write!(f, "{style}{words}{style:#}")?;
        }
        Ok(())
    }
}

/// Bold and of this colour, for verbs.
pub fn bold(color: AnsiColor) -> Style {
    color.on_default().bold()
}

/// For what matters less.
pub fn dim() -> Style {
    Style::new().dimmed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_by_the_columns_that_it_takes() {
        let line = Line::new("done", bold(AnsiColor::Green)).say("数据 data").then(dim(), " more");
        let cut = |width| line.clone().cut(width).plain();
        assert_eq!(line.width(), 24);
        assert_eq!(cut(24), "     done 数据 data more");
        assert_eq!(cut(23), "     done 数据 data mo…");
        // A character of two columns does not fit into one.
        assert_eq!(cut(14), "     done 数…");
        assert_eq!(cut(13), "     done 数…");
        assert_eq!(cut(12), "     done …");
        assert_eq!((cut(1), cut(0)), ("…".into(), String::new()));
        for width in 0..30 {
            assert!(line.clone().cut(width).width() <= width);
        }
        assert_eq!(line.clone().whole().cut(5), line.clone().whole());
    }

    #[test]
    fn a_line_is_wrapped_between_words() {
        let line = Line::new("done", bold(AnsiColor::Green)).say("with all that was to be done");
        let wrapped = |width| line.clone().wrapped(width).iter().map(Line::plain).collect::<Vec<_>>();
        assert_eq!(wrapped(40), ["     done with all that was to be done"]);
        assert_eq!(wrapped(28), ["     done with all that was", "          to be done"]);
    }
}
