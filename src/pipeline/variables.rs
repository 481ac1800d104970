//! Puts the values of `vars` where `${vars.x}` stands, and those of a stage's axes where `${matrix.x}` does.

use std::collections::{BTreeMap, HashMap};

use indexmap::IndexMap;

use super::{
    document::Node,
    matrix::UNKNOWN_AXIS,
    places::{Part, Spot},
    problem::Finding,
    suggest::Suggestions,
};

/// The paths at which variables were put in, and which.
pub(super) type Used = BTreeMap<Vec<String>, Filled>;

/// What was put into one value.
#[derive(Debug, Clone, Default)]
pub(super) struct Filled {
    /// The values, in order; one at least.
    pub values: Vec<Given>,
    /// Whether it is what was put in as a whole, and no longer text.
    pub is_whole: bool,
}

impl Filled {
    /// The names of variables among the values.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.values.iter().filter(|given| given.path[0] == "vars").map(|given| given.name.as_str())
    }
}

/// A value that can be put in.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Given {
    /// What people call it: the name of a variable, or `matrix.AXIS`.
    pub name: String,
    /// Where it stands in the document.
    pub path: Vec<String>,
    pub value: Node,
}

/// What `${matrix.AXIS}` means in each stage that has axes.
pub(super) type Scopes = HashMap<String, IndexMap<String, Given>>;

/// Replaces every `${vars.x}` outside of `vars` in the merged document, and every `${matrix.x}` by what it
/// means in its stage; without `scopes` those stay.
///
/// As a whole value it keeps its type; inside a longer text it becomes text. `$${` stands for
/// `${`, and `${HOME}` and the like stay as they are.
pub(super) fn substitute(
    document: &mut Node,
    scopes: Option<&Scopes>,
    suggestions: &Suggestions,
) -> (Used, Vec<Finding>) {
    let mut work =
        Work { vars: IndexMap::new(), scopes, suggestions, used: Used::new(), findings: Vec::new() };
    let Node::Map(map) = document else { return (work.used, work.findings) };
    match map.get("vars") {
        None | Some(Node::Null) => {}
        Some(Node::Map(vars)) => {
            work.vars.clone_from(vars);
            for (name, value) in vars {
                work.check_variable(name, value);
            }
        }
        Some(other) => {
            let message = format!("`vars` must be a map of names and values, not {}", other.describe());
            work.findings.push(Finding::new("wrong_type", message).at(Spot::value(&["vars"])));
        }
    }
    let mut path = Vec::new();
    for (key, value) in map.iter_mut().filter(|(key, _)| *key != "vars" && *key != "profiles") {
        path.push(key.clone());
        work.walk(value, &mut path);
        path.pop();
    }
    (work.used, work.findings)
}

/// What stands between `${` and `}`.
enum Reference {
    Value(Node),
    /// Something that is not ours, such as `HOME`.
    Other,
}

/// Something is wrong and was reported.
struct Reported;

struct Work<'a> {
    vars: IndexMap<String, Node>,
    scopes: Option<&'a Scopes>,
    suggestions: &'a Suggestions,
    used: Used,
    findings: Vec<Finding>,
}

impl Work<'_> {
    fn check_variable(&mut self, name: &str, value: &Node) {
        let spot = Spot::value(&["vars", name]);
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
            let message = format!("variable `{name}` must be named with letters, digits, `_` and `-`");
            self.findings
                .push(Finding::new("bad_name", message).at(Spot { part: Part::Key, ..spot.clone() }));
        }
        if refers(value) {
            let message = format!("variable `{name}` refers to a variable; variables are plain values");
            self.findings.push(Finding::new("variable_in_variable", message).at(spot));
        }
    }

    fn walk(&mut self, node: &mut Node, path: &mut Vec<String>) {
        match node {
            Node::Text(text) => {
                if text.contains("${")
                    && let Some(value) = self.fill(text, path)
                {
                    *node = value;
                }
            }
            Node::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    path.push(index.to_string());
                    self.walk(item, path);
                    path.pop();
                }
            }
            Node::Map(map) => {
                for (key, value) in map.iter_mut() {
                    path.push(key.clone());
                    self.walk(value, path);
                    path.pop();
                }
            }
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::Unfit(_) => {}
        }
    }

    /// The value that `text` stands for; `None` if something in it is wrong.
    fn fill(&mut self, text: &str, path: &[String]) -> Option<Node> {
        let whole = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
        if let Some(reference) = whole.filter(|reference| !reference.contains(['$', '}']))
            && let Reference::Value(value) = self.value(reference, true, path).ok()?
        {
            return Some(value);
        }
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, from) = rest.split_at(at);
            if let Some(before) = before.strip_suffix('$') {
                filled.push_str(before);
                filled.push_str("${");
                rest = &from[2..];
                continue;
            }
            filled.push_str(before);
            let Some(end) = from.find('}') else {
                let open = from[2..].trim_start();
                if open.starts_with("vars.") {
                    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
                    let name = &open[..open.find(|c| !is_of_name(c)).unwrap_or(open.len())];
                    let found = Finding::new("open_variable", format!("`${{{name}` has no `}}`"));
                    let help = format!("write `${{{name}}}`, or `$${{{name}` for the text itself");
                    let part = &from[..from.len() - open.len() + name.len()];
                    self.report(found.help(help), path, part);
                    return None;
                }
                rest = from;
                break;
            };
            match self.value(&from[2..end], false, path).ok()? {
                Reference::Other => filled.push_str(&from[..=end]),
                Reference::Value(value) => match value {
                    Node::Text(text) => filled.push_str(&text),
                    Node::Number(number) => filled.push_str(&number.to_string()),
                    Node::Bool(value) => filled.push_str(&value.to_string()),
                    other => {
                        let name = &from[2..end];
                        let message =
                            format!("`{name}` is {}, which cannot be part of a text", other.describe());
                        self.report(Finding::new("wrong_type", message), path, &from[..=end]);
                        return None;
                    }
                },
            }
            rest = &from[end + 1..];
        }
        filled.push_str(rest);
        Some(Node::Text(filled))
    }

    /// What `${reference}` means; what is wrong about it is reported.
    fn value(&mut self, reference: &str, whole: bool, path: &[String]) -> Result<Reference, Reported> {
        let name = reference.trim();
        if let Some(name) = name.strip_prefix("vars.") {
            return self.variable(name, reference, whole, path);
        }
        if let Some(name) = name.strip_prefix("matrix.") {
            return match self.scopes {
                Some(scopes) => self.of_matrix(name, scopes, reference, whole, path),
                None => Ok(Reference::Other),
            };
        }
        let last = name.rsplit('.').next().unwrap_or_default();
        let help = if self.vars.contains_key(last) && (whole || name.contains('.')) {
            format!("write `${{vars.{last}}}`")
        } else if whole && self.scope(path).is_some_and(|scope| scope.contains_key(last)) {
            format!("write `${{matrix.{last}}}`")
        } else if whole && last == "seed" {
            "a command is given the stage's seed where `{seed}` stands in it".to_owned()
        } else {
            return Ok(Reference::Other);
        };
        let found = Finding::new("unknown_variable", format!("`${{{reference}}}` is not a variable"));
        self.report(found.help(help), path, &format!("${{{reference}}}"));
        Err(Reported)
    }

    fn variable(
        &mut self,
        name: &str,
        reference: &str,
        whole: bool,
        path: &[String],
    ) -> Result<Reference, Reported> {
        if let Some(value) = self.vars.get(name) {
            let at = vec!["vars".to_owned(), name.to_owned()];
            let given = Given { name: name.to_owned(), path: at, value: value.clone() };
            return Ok(self.put_in(given, whole, path));
        }
        let names = self.vars.keys().map(String::as_str).collect::<Vec<_>>();
        let help = self.suggestions.help(name, "variables are", names);
        let help = help.or_else(|| Some("the pipeline declares no `vars`".to_owned()));
        let found = Finding::new("unknown_variable", format!("unknown variable `{name}`")).help(help);
        self.report(found, path, &format!("${{{reference}}}"));
        Err(Reported)
    }

    /// The value that a stage has on an axis, or what lies in it: `rank`, `size.layers`.
    fn of_matrix(
        &mut self,
        name: &str,
        scopes: &Scopes,
        reference: &str,
        whole: bool,
        path: &[String],
    ) -> Result<Reference, Reported> {
        let mut parts = name.split('.');
        let axis = parts.next().unwrap_or_default();
        let none = IndexMap::new();
        let stage = path.get(1).filter(|_| path[0] == "stages");
        let scope = stage.and_then(|stage| scopes.get(stage)).unwrap_or(&none);
        let found = match scope.get(axis) {
            Some(given) => {
                let mut given = Given { name: format!("matrix.{name}"), ..given.clone() };
                let missing = parts.find(|part| match given.value.get(part).cloned() {
                    Some(value) => {
                        given.value = value;
                        given.path.push((*part).to_owned());
                        false
                    }
                    None => true,
                });
                match missing {
                    None => return Ok(self.put_in(given, whole, path)),
                    Some(part) => {
                        let keys = given.value.as_map().into_iter().flat_map(IndexMap::keys);
                        let help = self.suggestions.help(part, "it has", keys.map(String::as_str));
                        Finding::new(UNKNOWN_AXIS, format!("a value of axis `{axis}` has no `{part}`"))
                            .help(help)
                    }
                }
            }
            None => match stage {
                None => Finding::new(UNKNOWN_AXIS, "`${matrix.…}` has a value in stages alone"),
                Some(stage) if scope.is_empty() => {
                    let message = format!("stage `{stage}` has no matrix, so no axis `{axis}`");
                    let help = format!("write `matrix: {{ {axis}: [VALUE, …] }}` beside `kind`");
                    Finding::new(UNKNOWN_AXIS, message).help(help)
                }
                Some(stage) => {
                    let help = self.suggestions.help(axis, "axes are", scope.keys().map(String::as_str));
                    Finding::new(UNKNOWN_AXIS, format!("stage `{stage}` has no axis `{axis}`")).help(help)
                }
            },
        };
        self.report(found, path, &format!("${{{reference}}}"));
        Err(Reported)
    }

    fn scope(&self, path: &[String]) -> Option<&IndexMap<String, Given>> {
        self.scopes?.get(path.get(1)?)
    }

    fn put_in(&mut self, given: Given, whole: bool, path: &[String]) -> Reference {
        let value = given.value.clone();
        let filled = self.used.entry(path.to_vec()).or_default();
        filled.is_whole = whole;
        if !filled.values.contains(&given) {
            filled.values.push(given);
        }
        Reference::Value(value)
    }

    /// Reports what is wrong with `part` of the text at `path`.
    fn report(&mut self, finding: Finding, path: &[String], part: &str) {
        self.findings.push(finding.at_part(Spot { path: path.to_vec(), part: Part::Value }, part));
    }
}

fn refers(node: &Node) -> bool {
    match node {
        Node::Text(text) => text.contains("${vars.") || text.contains("${matrix."),
        Node::List(items) => items.iter().any(refers),
        Node::Map(map) => map.values().any(refers),
        Node::Null | Node::Bool(_) | Node::Number(_) | Node::Unfit(_) => false,
    }
}
