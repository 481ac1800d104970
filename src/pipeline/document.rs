//! YAML text as a tree of plain values, in the order of the file.

use std::{cell::Cell, fmt, sync::Arc};

use indexmap::IndexMap;
use serde::de::{self, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{
    marks,
    places::{Part, Spot, Text},
    problem::Finding,
    syntax,
};

/// Deepest nesting of lists and maps.
const DEPTH: usize = 100;
/// What a document may grow to by its aliases, in bytes of text with [`NODE_COST`] for each value.
const EXPANDED: usize = 256 << 20;
const NODE_COST: usize = 256;

/// A value of a YAML document.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(IndexMap<String, Node>),
    /// A number that nothing can be done with; [`read`] takes it out.
    Unfit(Unfit),
}

/// Why nothing can be done with a number.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Unfit {
    code: &'static str,
    message: String,
    help: Option<String>,
}

impl Node {
    /// What the value is, in words for a message.
    pub fn describe(&self) -> String {
        match self {
            Node::Null => "nothing".into(),
            Node::Bool(value) => format!("`{value}`"),
            Node::Number(number) => format!("the number {number}"),
            Node::Text(text) => format!("the text `{}`", shorten(text)),
            Node::List(_) => "a list".into(),
            Node::Map(_) => "a map".into(),
            Node::Unfit(_) => "no such number".into(),
        }
    }

    /// The value that [`Self::to_json`] returned.
    pub fn from_json(value: &Value) -> Self {
        match value {
            Value::Null => Node::Null,
            Value::Bool(value) => Node::Bool(*value),
            Value::Number(number) => Node::Number(number.clone()),
            Value::String(text) => Node::Text(text.clone()),
            Value::Array(items) => Node::List(items.iter().map(Node::from_json).collect()),
            Value::Object(map) => {
                Node::Map(map.iter().map(|(key, value)| (key.clone(), Node::from_json(value))).collect())
            }
        }
    }

    pub fn to_json(&self) -> Value {
        match self {
            Node::Null | Node::Unfit(_) => Value::Null,
            Node::Bool(value) => Value::Bool(*value),
            Node::Number(number) => Value::Number(number.clone()),
            Node::Text(text) => Value::String(text.clone()),
            Node::List(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Node::Map(map) => {
                let entries = map.iter().map(|(key, value)| (key.clone(), value.to_json()));
                Value::Object(entries.collect::<Map<_, _>>())
            }
        }
    }

    pub fn as_map(&self) -> Option<&IndexMap<String, Node>> {
        if let Node::Map(map) = self { Some(map) } else { None }
    }

    pub fn as_text(&self) -> Option<&str> {
        if let Node::Text(text) = self { Some(text) } else { None }
    }

    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_map().and_then(|map| map.get(key))
    }
}

/// At most forty characters of `text`.
pub(super) fn shorten(text: &str) -> String {
    if text.chars().count() <= 40 {
        text.to_owned()
    } else {
        text.chars().take(37).chain("...".chars()).collect()
    }
}

/// Reads a text.
///
/// Keys written twice are reported with the document, which keeps the first of each; so are numbers that
/// nothing can be done with, which it does not have.
pub(super) fn read(text: &Arc<Text>) -> Result<(Node, Vec<Finding>), Finding> {
    if let Some(at) = too_deep(&text.content) {
        return Err(too_deep_at(text, at));
    }
    let reading =
        Reading { budget: Cell::new(EXPANDED), duplicate: Cell::new(false), refused: Cell::new(None) };
    let mut node = reading
        .deserialize(serde_yaml::Deserializer::from_str(&text.content))
        .map_err(|err| refused(text, &err, &reading))?;
    let mut findings = Vec::new();
    take_unfit(&mut node, &mut Vec::new(), &mut findings);
    if reading.duplicate.get() {
        for (key, first, second) in &text.marks().duplicates {
            findings.push(
                Finding::new("duplicate_key", format!("`{key}` is written twice"))
                    .bytes(text, second.clone(), Some("here again"))
                    .bytes(text, first.clone(), Some("first here")),
            );
        }
        if findings.is_empty() {
            findings.push(Finding::new("duplicate_key", "a key is written twice in one map").bytes(
                text,
                0..0,
                None,
            ));
        }
    }
    Ok((node, findings))
}

/// Puts nothing where a number stands that nothing can be done with, and reports it.
fn take_unfit(node: &mut Node, path: &mut Vec<String>, findings: &mut Vec<Finding>) {
    match node {
        Node::Unfit(Unfit { code, message, help }) => {
            let spot = Spot { path: path.clone(), part: Part::Value };
            findings.push(Finding::new(code, std::mem::take(message)).at(spot).help(help.take()));
            *node = Node::Null;
        }
        Node::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                path.push(index.to_string());
                take_unfit(item, path, findings);
                path.pop();
            }
        }
        Node::Map(map) => {
            for (key, value) in map.iter_mut() {
                path.push(key.clone());
                take_unfit(value, path, findings);
                path.pop();
            }
        }
        Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) => {}
    }
}

/// Where brackets nest too deep, if they do; brackets within texts and comments do not count.
///
/// Block lists and maps are bounded by the parser's own limit, which it reaches in linear time;
/// of brackets its scanner takes quadratic time.
fn too_deep(text: &str) -> Option<usize> {
    let (mut depth, mut deepest) = (0usize, 0);
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    if deepest > DEPTH { marks::nests_deeper_than(text, DEPTH) } else { None }
}

fn refused(text: &Arc<Text>, err: &serde_yaml::Error, reading: &Reading) -> Finding {
    let at = err.location().map_or(0, |location| location.index()).min(text.content.trim_end().len());
    let at = text.content.floor_char_boundary(at);
    let rest = &text.content[at..];
    let word = rest.find(|c: char| c.is_whitespace() || ",]}".contains(c)).unwrap_or(rest.len());
    let one = at..at + rest.chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8);
    if let Some(refusal) = reading.refused.take() {
        let range = match refusal.code {
            "tag" => text.marks().tag.clone(),
            "too_large" => text.marks().alias.clone(),
            "not_a_map" => text.marks().no_merge.clone(),
            _ => None,
        };
        return refusal.bytes(text, range.unwrap_or(at..at + word), None);
    }
    let message = err.to_string();
    if message.contains("more than one document") {
        let found = Finding::new("several_documents", "the file holds more than one YAML document")
            .help("keep one; profiles are written under `profiles`".to_owned());
        return match text.content.rfind("\n---") {
            Some(at) => found.bytes(text, at + 1..at + 4, Some("another document begins here")),
            None => Finding::new("not_yaml", "not valid YAML").bytes(text, one, Some("noticed here")),
        };
    }
    if message.starts_with("repetition limit exceeded") {
        return too_large().bytes(text, text.marks().alias.clone().unwrap_or(one), None);
    }
    if message.contains("recursion limit exceeded") {
        let Some(alias) = text.marks().recursion.clone() else { return too_deep_at(text, at) };
        let message = format!("`{}` stands inside of what it is the alias of", &text.content[alias.clone()]);
        return Finding::new("recursion", message)
            .bytes(text, alias, Some("this would go on without end"))
            .help("write what is meant here, or mark a smaller part with the anchor".to_owned());
    }
    syntax::not_yaml(text, &message, at)
}

fn too_deep_at(text: &Arc<Text>, at: usize) -> Finding {
    let at = text.content.floor_char_boundary(at);
    let width = text.content[at..].chars().next().map_or(0, char::len_utf8);
    let message = format!("lists and maps are nested more than {DEPTH} deep");
    Finding::new("too_deep", message).bytes(text, at..at + width, Some("this is too deep"))
}

fn too_large() -> Finding {
    Finding::new("too_large", "aliases make the document too large").help(
        "every `*alias` stands for a copy of what its `&anchor` marks; use fewer inside each other"
            .to_owned(),
    )
}

/// State of reading one document.
struct Reading {
    budget: Cell<usize>,
    duplicate: Cell<bool>,
    refused: Cell<Option<Finding>>,
}

impl Reading {
    fn spend<E: de::Error>(&self, text: usize) -> Result<(), E> {
        match self.budget.get().checked_sub(text + NODE_COST) {
            Some(left) => {
                self.budget.set(left);
                Ok(())
            }
            None => Err(self.refuse(too_large())),
        }
    }

    fn unfit<E: de::Error>(&self, unfit: Unfit) -> Result<Node, E> {
        self.spend(0)?;
        Ok(Node::Unfit(unfit))
    }

    fn refuse<E: de::Error>(&self, finding: Finding) -> E {
        let err = E::custom(&finding.message);
        self.refused.set(Some(finding));
        err
    }
}

impl<'de> DeserializeSeed<'de> for &Reading {
    type Value = Node;
    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &Reading {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        self.spend(0)?;
        Ok(Node::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        self.spend(0)?;
        Ok(Node::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        self.spend(0)?;
        Ok(Node::Number(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        self.spend(0)?;
        Ok(Node::Number(value.into()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Node, E> {
        self.unfit(too_long_number(&value.to_string()))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Node, E> {
        self.unfit(too_long_number(&value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        self.spend(0)?;
        match Number::from_f64(value) {
            Some(number) => Ok(Node::Number(number)),
            None => self.unfit(Unfit {
                code: "not_finite",
                message: format!("a number must be finite, not {value}"),
                help: None,
            }),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Node, E> {
        self.spend(text.len())?;
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        self.spend(0)?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        self.spend(0)?;
        let mut map = IndexMap::new();
        let mut merged = Vec::new();
        while let Some(key) = entries.next_key_seed(self)? {
            let key = match key {
                Node::Text(text) => text,
                Node::Number(number) => number.to_string(),
                Node::Bool(value) => value.to_string(),
                other => {
                    let message = format!("a key is a text, not {}", other.describe());
                    return Err(self.refuse(Finding::new("not_a_key", message)));
                }
            };
            let value = entries.next_value_seed(self)?;
            if key == "<<" {
                match value {
                    Node::Map(map) => merged.push(map),
                    Node::List(list) if list.iter().all(|item| item.as_map().is_some()) => {
                        merged.extend(list.into_iter().filter_map(|item| match item {
                            Node::Map(map) => Some(map),
                            _ => None,
                        }));
                    }
                    Node::List(list) => {
                        let no_map = list.iter().enumerate().find(|(_, item)| item.as_map().is_none());
                        let (at, item) = no_map.expect("lists of maps are merged");
                        let (at, item) = (at + 1, item.describe());
                        let message =
                            format!("`<<` takes maps to copy from, and item {at} of its list is {item}");
                        return Err(self.refuse(Finding::new("not_a_map", message)));
                    }
                    other => {
                        let message = format!("`<<` takes a map to copy from, not {}", other.describe());
                        return Err(self.refuse(Finding::new("not_a_map", message)));
                    }
                }
            } else if map.contains_key(&key) {
                self.duplicate.set(true);
            } else {
                map.insert(key, value);
            }
        }
        for (key, value) in merged.into_iter().flatten() {
            map.entry(key).or_insert(value);
        }
        Ok(Node::Map(map))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Node, A::Error> {
        let found = Finding::new("tag", "tags such as `!name` mean nothing here");
        Err(self.refuse(found.help("write the value without it, or in quotes".to_owned())))
    }
}

fn too_long_number(digits: &str) -> Unfit {
    Unfit {
        code: "number_too_large",
        message: format!("{digits} does not fit 64 bits"),
        help: Some(format!("write it in quotes if it is a name: \"{digits}\"")),
    }
}
