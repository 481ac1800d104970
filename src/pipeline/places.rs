//! Where a value of the merged document was written: in the overlay that wrote it last.

use std::{
    fmt,
    ops::Range,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use super::{
    marks::Marks,
    variables::{Filled, Used},
};
use crate::names::Place;

/// A text that people wrote: the pipeline file, or one option of the command line.
pub(super) struct Text {
    /// The file as the person named it, or the option.
    pub name: PathBuf,
    pub content: String,
    /// Whether it is an option, which has no lines.
    pub is_option: bool,
    marks: OnceLock<Marks>,
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({})", self.name.display())
    }
}

impl Text {
    pub fn file(name: PathBuf, text: String) -> Arc<Self> {
        Arc::new(Self { name, content: text, is_option: false, marks: OnceLock::new() })
    }

    /// The option `--set lora.rank=16`, for example, whose value is `lora.rank=16`.
    pub fn option(option: &str, value: &str) -> Arc<Self> {
        let shown = super::document::shorten(value);
        let name = PathBuf::from(format!("{option} {shown}"));
        Arc::new(Self { name, content: value.to_owned(), is_option: true, marks: OnceLock::new() })
    }

    pub fn marks(&self) -> &Marks {
        self.marks.get_or_init(|| Marks::read(&self.content))
    }

    /// The line and column of the byte `at`.
    pub fn place(&self, at: usize) -> Place {
        let (line, column) = if self.is_option { (0, 0) } else { line_and_column(&self.content, at) };
        Place { source: self.name.clone(), line, column, variables: Vec::new() }
    }
}

/// Line and column, from 1, in characters, of the byte `at` of `text`.
pub(super) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..at.min(text.len())];
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let line = before.split(|byte| *byte == b'\n').count();
    (line, String::from_utf8_lossy(&before[line_start..]).chars().count() + 1)
}

/// A key or a value of the merged document.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Spot {
    pub path: Vec<String>,
    pub part: Part,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Part {
    Key,
    Value,
}

impl Spot {
    pub fn key(path: &[&str]) -> Self {
        Self { path: path.iter().map(|segment| (*segment).to_owned()).collect(), part: Part::Key }
    }

    pub fn value(path: &[&str]) -> Self {
        Self { part: Part::Value, ..Self::key(path) }
    }

    /// The value at `path`.
    pub fn of_value(path: &[String]) -> Self {
        Self { path: path.to_vec(), part: Part::Value }
    }

    /// The spot below this one at a dotted `path`, or this one if that is empty.
    pub fn below(mut self, path: &str) -> Self {
        self.path.extend(path.split('.').filter(|segment| !segment.is_empty()).map(str::to_owned));
        self
    }
}

/// One text laid over those before it.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub text: Arc<Text>,
    pub written: Written,
}

/// Which part of its text a layer is.
#[derive(Debug, Clone)]
pub(super) enum Written {
    /// The whole document.
    Document,
    /// `profiles.NAME` of the document.
    Profile(String),
    /// One value, at `path` of the merged document and at `value` of the text.
    Setting { path: Vec<String>, value: Range<usize> },
}

impl Layer {
    /// The setting, if it sets something below `spot`.
    fn below(&self, spot: &Spot) -> Option<(Arc<Text>, Range<usize>)> {
        match &self.written {
            Written::Setting { path, value } if path.starts_with(&spot.path) => {
                Some((self.text.clone(), 0..value.start.saturating_sub(1)))
            }
            _ => None,
        }
    }

    /// The key and the value of `spot`.
    fn entry(&self, spot: &Spot) -> Option<(Range<usize>, Range<usize>)> {
        let path = spot.path.iter().map(String::as_str);
        match &self.written {
            Written::Document => self.text.marks().find(path),
            Written::Profile(name) => self.text.marks().find(["profiles", name].into_iter().chain(path)),
            Written::Setting { path, value } => {
                let at_or_below = spot.path.len() >= path.len() && spot.path[..path.len()] == path[..];
                at_or_below.then(|| (value.clone(), value.clone()))
            }
        }
    }

    fn find(&self, spot: &Spot) -> Option<Range<usize>> {
        let (key, value) = self.entry(spot)?;
        let text = &self.text.content;
        let one_line = text.get(value.clone()).is_some_and(|text| !text.trim_end().contains('\n'));
        let range = if spot.part == Part::Value && one_line { value } else { key };
        let trimmed = text.get(range.clone()).map_or(0, |text| text.trim_end().len());
        Some(range.start..range.start + trimmed)
    }
}

/// All layers of a loaded pipeline, first to last.
#[derive(Debug, Clone, Default)]
pub struct Places {
    pub(super) layers: Vec<Layer>,
    pub(super) used: Used,
    /// Whether stages and inputs may be instances of what the layers have: `lora[rank=8]` of `lora`.
    pub(super) has_instances: bool,
}

impl Places {
    /// Where a stage was written: its name in the layer that gave it its kind.
    pub fn stage(&self, stage: &str) -> Option<Place> {
        self.place(&Spot::key(&["stages", stage]))
    }

    /// Where a parameter, a dotted path below `with`, was written; `None` for a default.
    pub fn param(&self, stage: &str, path: &str) -> Option<Place> {
        self.value(&Spot::key(&["stages", stage, "with"]).below(path))
    }

    /// Where an input was written.
    pub fn input(&self, stage: &str, port: &str) -> Option<Place> {
        self.exact(&Spot::key(&["stages", stage, "in", port]))
    }

    /// Where the seed was written that a stage draws with; `None` for the default of 0.
    pub fn seed(&self, stage: &str) -> Option<Place> {
        let own = self.value(&Spot::key(&["stages", stage, "seed"]));
        own.or_else(|| self.value(&Spot::key(&["seed"])))
    }

    /// Where the time limit of a stage was written.
    pub fn timeout(&self, stage: &str) -> Option<Place> {
        self.exact(&Spot::key(&["stages", stage, "timeout"]))
    }

    fn place(&self, spot: &Spot) -> Option<Place> {
        self.find(spot).map(|(text, range)| text.place(range.start))
    }

    /// Where the value of `spot` was written: that of a variable if it is one, else its own place. Either
    /// has the variables that it came by.
    fn value(&self, spot: &Spot) -> Option<Place> {
        let own = self.exact(spot)?;
        let place = match self.used.get(&spot.path) {
            Some(Filled { values, is_whole: true }) => {
                let key = |path: &[String]| Spot { path: path.to_vec(), part: Part::Key };
                values.first().and_then(|given| self.exact(&key(&given.path))).unwrap_or(own)
            }
            _ => own,
        };
        // A list or map holds what is put into it.
        let from = self.used.range(spot.path.clone()..);
        let inside = from.take_while(|(path, _)| path.starts_with(&spot.path));
        let mut variables: Vec<String> =
            inside.flat_map(|(_, filled)| filled.variables().map(str::to_owned)).collect();
        variables.sort_unstable();
        variables.dedup();
        Some(Place { variables, ..place })
    }

    /// The spot of the layers that `spot` comes from.
    fn written(&self, spot: &Spot) -> Spot {
        let mut spot = spot.clone();
        if self.has_instances
            && let [stages, stage, rest @ ..] = spot.path.as_mut_slice()
            && stages == "stages"
        {
            let base = |name: &mut String| name.truncate(name.find('[').unwrap_or(name.len()));
            base(stage);
            if let [field, port, ..] = rest
                && field == "in"
            {
                base(port);
            }
        }
        spot
    }

    fn exact(&self, spot: &Spot) -> Option<Place> {
        let spot = &self.written(spot);
        let found = self.layers.iter().rev().find_map(|layer| Some((layer, layer.find(spot)?)));
        found.map(|(layer, range)| layer.text.place(range.start))
    }

    /// Where `part` of the text at `spot`, or of a variable in it, was written, if it stands there letter by
    /// letter: behind an alias or an escape it does not.
    pub(super) fn find_part(&self, spot: &Spot, part: &str) -> Option<(Arc<Text>, Range<usize>)> {
        let values = self.used.get(&spot.path).into_iter().flat_map(|filled| &filled.values);
        let spots = values.map(|given| Spot::of_value(&given.path));
        std::iter::once(spot.clone()).chain(spots).find_map(|spot| self.part_of(&spot, part))
    }

    fn part_of(&self, spot: &Spot, part: &str) -> Option<(Arc<Text>, Range<usize>)> {
        let spot = self.written(spot);
        let found = self.layers.iter().rev().find_map(|layer| Some((layer, layer.entry(&spot)?.1)));
        let (layer, value) = found?;
        let text = layer.text.content.get(value.clone())?;
        // `{{name}}` stands for a text, and `${name}` is the shell's.
        let is_meant = |at: &usize| !text[..*at].ends_with(['{', '$']);
        let at = value.start + text.match_indices(part).map(|(at, _)| at).find(is_meant)?;
        Some((layer.text.clone(), at..at + part.len()))
    }

    /// The text and the bytes in it at which `spot`, or the nearest thing above it, was written.
    pub(super) fn find(&self, spot: &Spot) -> Option<(Arc<Text>, Range<usize>)> {
        let spot = &self.written(spot);
        if let [stages, stage] = spot.path.as_slice()
            && stages == "stages"
        {
            let kind = Spot::key(&["stages", stage, "kind"]);
            let own = self.layers.iter().rev().find(|layer| layer.find(&kind).is_some());
            if let Some((layer, range)) = own.and_then(|layer| Some((layer, layer.find(spot)?))) {
                return Some((layer.text.clone(), range));
            }
        }
        let mut spot = spot.clone();
        while !spot.path.is_empty() {
            if let Some(found) = self.layers.iter().rev().find_map(|layer| Some((layer, layer.find(&spot)?)))
            {
                return Some((found.0.text.clone(), found.1));
            }
            if let Some(setting) = self.layers.iter().rev().find_map(|layer| layer.below(&spot)) {
                return Some(setting);
            }
            spot.path.pop();
            spot.part = Part::Key;
        }
        None
    }
}
