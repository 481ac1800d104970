//! What is wrong with a pipeline, where it was written, and what to write instead.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use miette::{
    Diagnostic, LabeledSpan, MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents,
};
use thiserror::Error;

use super::{
    Source,
    places::{Places, Spot, Text, line_and_column},
};
use crate::names::Place;

/// Longest line that is drawn whole, in bytes.
const WHOLE_LINE: usize = 240;
/// Longest message, in characters.
const LONGEST_MESSAGE: usize = 800;
/// Most problems that are told of one file.
const MOST_PROBLEMS: usize = 100;

/// Everything that is wrong with one pipeline; never empty.
#[derive(Debug, Clone, Error)]
#[error("{}: {}", file.display(), count(*total, problems.len()))]
pub struct PipelineErrors {
    /// The file as the person named it.
    pub file: PathBuf,
    /// The problems, in the order of their places; of very many, the first hundred.
    pub problems: Vec<Problem>,
    /// How many problems there are.
    pub total: usize,
    /// The project root, and what its stages would take from outside, as far as that could be read.
    pub outside: Option<(PathBuf, BTreeSet<Source>)>,
    /// The profiles that the file declares, as far as it could be read.
    pub profiles: Box<[String]>,
}

fn count(total: usize, shown: usize) -> String {
    match total {
        1 => "1 problem".into(),
        _ if total > shown => format!("{total} problems, of which the first {shown} are shown"),
        _ => format!("{total} problems"),
    }
}

/// One thing that is wrong with a pipeline, or worth knowing about it.
#[derive(Debug, Clone)]
pub struct Problem {
    /// A stable name such as `unknown_stage`.
    pub code: &'static str,
    /// What is wrong: lowercase, no full stop.
    pub message: String,
    /// What to write instead, if known.
    pub help: Option<String>,
    /// Where it was written, the main place first, each with what is to be seen there.
    pub places: Vec<(Place, Option<String>)>,
    snippet: Option<Snippet>,
    spans: Vec<LabeledSpan>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.snippet.as_ref().map(|snippet| snippet as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.spans.iter().cloned()))
    }
}

/// A problem whose places are not looked up yet.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    pub code: &'static str,
    pub message: String,
    pub help: Option<String>,
    pub at: Vec<(At, Option<String>)>,
}

#[derive(Debug, Clone)]
pub(super) enum At {
    /// A key or value of the merged document.
    Spot(Spot),
    /// A part of a text of the merged document.
    Part(Spot, String),
    /// Bytes of a text.
    Bytes(Arc<Text>, Range<usize>),
}

impl Finding {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: None, at: Vec::new() }
    }

    pub fn at(mut self, spot: Spot) -> Self {
        self.at.push((At::Spot(spot), None));
        self
    }

    /// The finding is about `part` of the text at `spot`.
    pub fn at_part(mut self, spot: Spot, part: &str) -> Self {
        self.at.push((At::Part(spot, part.to_owned()), None));
        self
    }

    pub fn label(mut self, spot: Spot, label: impl Into<String>) -> Self {
        self.at.push((At::Spot(spot), Some(label.into())));
        self
    }

    pub fn bytes(mut self, text: &Arc<Text>, range: Range<usize>, label: Option<&str>) -> Self {
        self.at.push((At::Bytes(text.clone(), range), label.map(str::to_owned)));
        self
    }

    pub fn help(mut self, help: impl Into<Option<String>>) -> Self {
        self.help = help.into();
        self
    }

    /// Looks up where the finding was written.
    fn locate(self, places: &Places) -> Located {
        let find = |(at, label): (At, Option<String>)| {
            let (text, range) = match at {
                At::Bytes(text, range) => (text, range),
                At::Spot(spot) => places.find(&spot)?,
                At::Part(spot, part) => places.find_part(&spot, &part).or_else(|| places.find(&spot))?,
            };
            Some((text, range, label))
        };
        let at = self.at.into_iter().filter_map(find).collect();
        Located { code: self.code, message: self.message, help: self.help, at }
    }
}

/// A finding with its places, in bytes.
struct Located {
    code: &'static str,
    message: String,
    help: Option<String>,
    at: Vec<(Arc<Text>, Range<usize>, Option<String>)>,
}

impl Located {
    /// Files before options, and then as they are written.
    fn order(&self) -> (bool, usize) {
        self.at.first().map_or((false, 0), |(text, range, _)| (text.is_option, range.start))
    }

    fn into_problem(self) -> Problem {
        let Located { code, message, help, at } = self;
        let located = at.iter().map(|(text, range, label)| (text.place(range.start), label.clone()));
        let places: Vec<_> = located.collect();
        let message = if message.chars().count() > LONGEST_MESSAGE {
            message.chars().take(LONGEST_MESSAGE).chain("…".chars()).collect()
        } else {
            message
        };
        let mut problem = Problem { code, message, help, places, snippet: None, spans: Vec::new() };
        let Some((main, first, _)) = at.first() else { return problem };
        let cut = Snippet::of(main, first);
        let mut elsewhere = Vec::new();
        for (index, (text, range, label)) in at.iter().enumerate() {
            if !(Arc::ptr_eq(text, main) && cut.shows(range)) {
                let place = &problem.places[index].0;
                elsewhere.push(format!("{}: {place}", label.as_deref().unwrap_or("see also")));
                continue;
            }
            let start = range.start - cut.start;
            let span = SourceSpan::from((start, range.len().min(cut.text().len() - start)));
            problem.spans.push(if index == 0 {
                LabeledSpan::new_primary_with_span(label.clone(), span)
            } else {
                LabeledSpan::new_with_span(label.clone(), span)
            });
        }
        if !elsewhere.is_empty() {
            let help = problem.help.take().into_iter().chain(elsewhere);
            problem.help = Some(help.collect::<Vec<_>>().join("\n"));
        }
        problem.snippet = Some(cut);
        problem
    }
}

/// Looks up all places and puts the problems into their order; of several that say the same of the same
/// place, be it of instances of one stage, the first stays. Returns the first [`MOST_PROBLEMS`] and how
/// many there are.
pub(super) fn locate(findings: Vec<Finding>, places: &Places) -> (Vec<Problem>, usize) {
    let mut seen = HashSet::new();
    let mut located: Vec<Located> = findings.into_iter().map(|finding| finding.locate(places)).collect();
    located.retain(|found| seen.insert((without_instances(&found.message), found.order())));
    located.sort_by_key(Located::order);
    let total = located.len();
    (located.into_iter().take(MOST_PROBLEMS).map(Located::into_problem).collect(), total)
}

/// `message` with the stages of a matrix called as the file calls them: what is wrong with all is told of one.
fn without_instances(message: &str) -> String {
    let mut short = String::with_capacity(message.len());
    let mut rest = message;
    while let Some((before, after)) = rest.split_once('[') {
        short.push_str(before);
        match after.split_once(']') {
            Some((at, after)) if at.contains('=') => rest = after,
            _ => {
                short.push('[');
                rest = after;
            }
        }
    }
    short + rest
}

/// The text that a problem is drawn with; of very long lines only the part around the problem.
#[derive(Debug, Clone)]
struct Snippet {
    source: Arc<Text>,
    /// The part of the source that is drawn, if not all of it.
    cut: Option<String>,
    /// The byte of the source at which that part begins.
    start: usize,
}

impl Snippet {
    fn of(source: &Arc<Text>, main: &Range<usize>) -> Self {
        let text = &source.content;
        let line_start = text[..main.start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[main.start..].find('\n').map_or(text.len(), |newline| main.start + newline);
        if line_end - line_start <= WHOLE_LINE {
            return Self { source: source.clone(), cut: None, start: 0 };
        }
        let start = text.floor_char_boundary(main.start.saturating_sub(40).max(line_start));
        let end = text.floor_char_boundary((main.start + 60).min(line_end)).max(main.start);
        Self { source: source.clone(), cut: Some(text[start..end].to_owned()), start }
    }

    fn text(&self) -> &str {
        self.cut.as_ref().unwrap_or(&self.source.content)
    }

    fn shows(&self, range: &Range<usize>) -> bool {
        range.start >= self.start && range.start - self.start <= self.text().len()
    }
}

impl SourceCode for Snippet {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let text = self.text();
        let (first, last) = (span.offset(), span.offset() + span.len());
        if last > text.len() {
            return Err(MietteError::OutOfBounds);
        }
        let mut start = text[..first].rfind('\n').map_or(0, |newline| newline + 1);
        for _ in 0..lines_before {
            start = text[..start.saturating_sub(1)].rfind('\n').map_or(0, |newline| newline + 1);
        }
        let line_end = |from: usize| text[from..].find('\n').map_or(text.len(), |newline| from + newline);
        let mut end = line_end(last);
        for _ in 0..lines_after {
            end = line_end((end + 1).min(text.len()));
        }
        if text[start..end].ends_with('\r') {
            end -= 1;
        }
        let (line, _) = line_and_column(&self.source.content, self.start + start);
        let name = if self.source.is_option {
            display(&self.source.name)
        } else {
            let (line, column) = line_and_column(&self.source.content, self.start + first);
            format!("{}:{line}:{column}", display(&self.source.name))
        };
        Ok(Box::new(MietteSpanContents::new_named(
            name,
            &text.as_bytes()[start..end],
            (start, end - start).into(),
            line - 1,
            0,
            text[start..end].lines().count(),
        )))
    }
}

fn display(path: &Path) -> String {
    path.display().to_string()
}
