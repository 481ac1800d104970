//! A diagnostic whose line is too long for the terminal: drawn with the part around what it is about.

use std::{error::Error, fmt, ops::Range};

use miette::{
    Diagnostic, LabeledSpan, MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents,
};
use unicode_width::UnicodeWidthChar;

/// Columns that a drawing puts before a line, beside the digits of its number.
const MARGIN: usize = 4;
/// Columns that a drawing gives a tab.
const TAB: usize = 4;

/// A diagnostic with a part of its line.
#[derive(Debug)]
pub(super) struct Excerpt<'a> {
    about: &'a dyn Diagnostic,
    part: Part,
    labels: Vec<LabeledSpan>,
}

/// What is drawn of a line.
#[derive(Debug)]
struct Part {
    text: String,
    /// What the place is called, and its line, counted from 0.
    name: Option<String>,
    line: usize,
}

impl<'a> Excerpt<'a> {
    /// What fits `width` columns with `mark` where text is left out; `None` where all of it does, or where
    /// several lines are drawn or places too far from each other.
    pub fn of(about: &'a dyn Diagnostic, width: usize, mark: &str) -> Option<Self> {
        let labels: Vec<LabeledSpan> = about.labels()?.collect();
        let main = labels.iter().find(|label| label.primary()).or(labels.first())?;
        let contents = about.source_code()?.read_span(main.inner(), 0, 0).ok()?;
        let text = std::str::from_utf8(contents.data()).ok()?;
        let room = width.checked_sub(MARGIN + (contents.line() + 1).to_string().len())?;
        if columns(text) <= room || text.contains('\n') {
            return None;
        }
        let start = contents.span().offset();
        let place = main.offset().checked_sub(start)?;
        let shown = around(text, place..place + main.len(), room.checked_sub(2 * columns(mark))?);
        let before = if shown.start > 0 { mark } else { "" };
        let after = if shown.end < text.len() { mark } else { "" };
        let moved = |label: &LabeledSpan| {
            let from = label.offset().checked_sub(start + shown.start)?;
            let length = label.len().min(shown.len().checked_sub(from)?);
            let (text, span) = (label.label().map(ToOwned::to_owned), (before.len() + from, length));
            Some(if label.primary() {
                LabeledSpan::new_primary_with_span(text, span)
            } else {
                LabeledSpan::new_with_span(text, span)
            })
        };
        let labels = labels.iter().map(moved).collect::<Option<_>>()?;
        let part = Part {
            text: format!("{before}{}{after}", &text[shown]),
            name: contents.name().map(ToOwned::to_owned),
            line: contents.line(),
        };
        Some(Self { about, part, labels })
    }
}

/// The bytes of `text` that `room` columns show of it: `place` at a third, or nearer to where the text ends.
fn around(text: &str, place: Range<usize>, room: usize) -> Range<usize> {
    let before = &text[..place.start.min(text.len())];
    let wanted = if columns(&text[..place.end.min(text.len())]) <= room {
        0
    } else {
        let at_most_a_third = columns(before).saturating_sub(room / 3);
        at_most_a_third.min(columns(text) - room)
    };
    let start = byte_at(text, wanted);
    start..start + byte_at(&text[start..], room)
}

fn columns(text: &str) -> usize {
    text.chars().map(width).sum()
}

fn width(letter: char) -> usize {
    if letter == '\t' { TAB } else { letter.width().unwrap_or(0) }
}

/// Where the letter begins that goes beyond so many columns.
fn byte_at(text: &str, limit: usize) -> usize {
    let mut taken = 0;
    let is_beyond = |(_, letter): &(usize, char)| {
        taken += width(*letter);
        taken > limit
    };
    text.char_indices().find(is_beyond).map_or(text.len(), |(at, _)| at)
}

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.about, f)
    }
}

impl Error for Excerpt<'_> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.about.source()
    }
}

impl Diagnostic for Excerpt<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.about.help()
    }
    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.part)
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }
}

impl SourceCode for Part {
    fn read_span<'a>(
        &'a self,
        _: &SourceSpan,
        _: usize,
        _: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let (text, all) = (self.text.as_bytes(), SourceSpan::from((0, self.text.len())));
        Ok(Box::new(match &self.name {
            Some(name) => MietteSpanContents::new_named(name.clone(), text, all, self.line, 0, 1),
            None => MietteSpanContents::new(text, all, self.line, 0, 1),
        }))
    }
}
