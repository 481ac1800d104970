//! Where everything in a YAML text was written.
//!
//! This reads the text a second time, with a parser that keeps positions; it is called only
//! when a problem must be drawn or someone asks for a place.

use std::{collections::HashMap, ops::Range};

use saphyr_parser::{Event, Marker, Parser, Span};

/// Positions of all keys and values of one text, in bytes.
#[derive(Debug, Default)]
pub(super) struct Marks {
    nodes: Vec<Node>,
    root: Option<usize>,
    /// Keys written twice in one map: the key, the first place, the second place.
    pub duplicates: Vec<(String, Range<usize>, Range<usize>)>,
    /// The first place at which a tag such as `!include` stands.
    pub tag: Option<Range<usize>>,
    /// The first place at which an alias such as `*base` stands.
    pub alias: Option<Range<usize>>,
    /// The first alias inside of what its own anchor marks.
    pub recursion: Option<Range<usize>>,
    /// The first thing after `<<` that is no map, or the first such item of a list.
    pub no_merge: Option<Range<usize>>,
}

#[derive(Debug)]
enum Node {
    Scalar,
    List(Vec<(Range<usize>, usize)>),
    Map(HashMap<String, Entry>, Vec<usize>),
}

#[derive(Debug, Clone)]
struct Entry {
    key: Range<usize>,
    value: Range<usize>,
    node: usize,
}

/// A map or list that is still being read.
struct Open {
    node: usize,
    start: usize,
    /// The key whose value comes next, in a map.
    key: Option<(String, Range<usize>)>,
    is_map: bool,
}

/// Whether a text nests lists and maps deeper than `limit`; if so, where it passes it.
///
/// Stops at the first such place, so that a megabyte of `[` costs no more than a few.
pub(super) fn nests_deeper_than(text: &str, limit: usize) -> Option<usize> {
    let byte = |mark: &Marker| text.char_indices().nth(mark.index()).map_or(text.len(), |(at, _)| at);
    let mut depth = 0;
    for event in Parser::new_from_str(text) {
        match event {
            Ok((Event::SequenceStart(..) | Event::MappingStart(..), span)) => {
                depth += 1;
                if depth > limit {
                    return Some(byte(&span.start));
                }
            }
            Ok((Event::SequenceEnd | Event::MappingEnd, _)) => depth -= 1,
            // The scanner is ahead of the events, and has a limit of its own of 255 brackets.
            Err(err) if err.info() == "recursion limit exceeded" => return Some(byte(err.marker())),
            Err(_) => return None,
            Ok(_) => {}
        }
    }
    None
}

impl Marks {
    /// Reads `text`; after a syntax error, what stands before it is known.
    pub fn read(text: &str) -> Self {
        let mut marks = Marks::default();
        let bytes = ByteOffsets::new(text);
        let mut anchors: HashMap<usize, usize> = HashMap::new();
        let mut open: Vec<Open> = Vec::new();
        for event in Parser::new_from_str(text) {
            let Ok((event, span)) = event else { break };
            let range = bytes.range(span);
            match event {
                Event::Scalar(value, _, anchor, tag) => {
                    if tag.is_some() {
                        marks.tag.get_or_insert(range.clone());
                    }
                    let is_key = open.last().is_some_and(|open| open.is_map && open.key.is_none());
                    if is_key {
                        open.last_mut().expect("just seen").key = Some((value.into_owned(), range));
                        continue;
                    }
                    let node = marks.add(Node::Scalar);
                    anchors.insert(anchor, node);
                    marks.attach(&mut open, node, range);
                }
                Event::Alias(anchor) => {
                    marks.alias.get_or_insert(range.clone());
                    let node = anchors.get(&anchor).copied();
                    if open.iter().any(|open| Some(open.node) == node) {
                        marks.recursion.get_or_insert(range.clone());
                    }
                    let node = node.unwrap_or_else(|| marks.add(Node::Scalar));
                    marks.attach(&mut open, node, range);
                }
                Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) if tag.is_some() => {
                    marks.tag.get_or_insert(range.clone());
                    let node = marks.add(Node::Scalar);
                    anchors.insert(anchor, node);
                    open.push(Open { node, start: range.start, key: None, is_map: false });
                }
                Event::SequenceStart(anchor, _) => {
                    let node = marks.add(Node::List(Vec::new()));
                    anchors.insert(anchor, node);
                    open.push(Open { node, start: range.start, key: None, is_map: false });
                }
                Event::MappingStart(anchor, _) => {
                    let node = marks.add(Node::Map(HashMap::new(), Vec::new()));
                    anchors.insert(anchor, node);
                    open.push(Open { node, start: range.start, key: None, is_map: true });
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    let Some(closed) = open.pop() else { break };
                    let range = closed.start..range.end.max(closed.start);
                    marks.attach(&mut open, closed.node, range);
                }
                _ => {}
            }
        }
        marks
    }

    fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Puts a complete node into the map or list that is being read, or makes it the root.
    fn attach(&mut self, open: &mut [Open], node: usize, value: Range<usize>) {
        let Some(parent) = open.last_mut() else {
            self.root.get_or_insert(node);
            return;
        };
        let no_merge = match &self.nodes[node] {
            Node::Scalar => Some(value.clone()),
            Node::List(items) => {
                let is_map = |node: usize| matches!(self.nodes[node], Node::Map(..));
                items.iter().find(|(_, item)| !is_map(*item)).map(|(item, _)| item.clone())
            }
            Node::Map(..) => None,
        };
        match &mut self.nodes[parent.node] {
            Node::Scalar => {}
            Node::List(items) => items.push((value, node)),
            Node::Map(entries, merged) => match parent.key.take() {
                // A map or an alias as a key: refused when the values are read.
                None => parent.key = Some((String::new(), value)),
                Some((name, _)) if name == "<<" => {
                    merged.push(node);
                    if self.no_merge.is_none() {
                        self.no_merge = no_merge;
                    }
                }
                Some((name, key)) => match entries.get(&name) {
                    Some(first) => self.duplicates.push((name, first.key.clone(), key)),
                    None => {
                        entries.insert(name, Entry { key, value, node });
                    }
                },
            },
        }
    }

    /// The positions of the key and of the value at `path`.
    ///
    /// An item of a list has no key; the position of its value stands for both.
    pub fn find<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<(Range<usize>, Range<usize>)> {
        let mut node = self.root?;
        let mut found = None;
        for segment in path {
            let (key, value, next) = self.step(node, segment)?;
            found = Some((key, value));
            node = next;
        }
        found
    }

    fn step(&self, node: usize, segment: &str) -> Option<(Range<usize>, Range<usize>, usize)> {
        // A merged map may itself merge; each level is a node of the file, so this ends.
        let mut open = vec![node];
        let mut budget = 1_000;
        while let Some(node) = open.pop() {
            match &self.nodes[node] {
                Node::Scalar => {}
                Node::List(items) => {
                    let item = segment.parse::<usize>().ok().and_then(|index| items.get(index));
                    if let Some((value, next)) = item {
                        return Some((value.clone(), value.clone(), *next));
                    }
                    open.extend(
                        items.iter().map(|(_, next)| *next).filter(|_| segment.parse::<usize>().is_err()),
                    );
                }
                Node::Map(entries, merged) => {
                    if let Some(entry) = entries.get(segment) {
                        return Some((entry.key.clone(), entry.value.clone(), entry.node));
                    }
                    open.extend(merged);
                }
            }
            budget -= 1;
            if budget == 0 {
                return None;
            }
        }
        None
    }
}

/// Character positions, as the parser counts, to byte positions.
struct ByteOffsets {
    /// The byte of every character and of the end; empty when the text is ASCII.
    offsets: Vec<usize>,
    len: usize,
}

impl ByteOffsets {
    fn new(text: &str) -> Self {
        let offsets = if text.is_ascii() {
            Vec::new()
        } else {
            text.char_indices().map(|(at, _)| at).chain([text.len()]).collect()
        };
        Self { offsets, len: text.len() }
    }

    fn byte(&self, index: usize) -> usize {
        if self.offsets.is_empty() {
            index.min(self.len)
        } else {
            self.offsets.get(index).copied().unwrap_or(self.len)
        }
    }

    fn range(&self, span: Span) -> Range<usize> {
        let start = self.byte(span.start.index());
        start..self.byte(span.end.index()).max(start)
    }
}
