//! Puts the values of `vars` where `${vars.x}` stands.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::{
    document::Node,
    places::{Part, Spot},
    problem::Finding,
    suggest::Suggestions,
};

/// The paths at which variables were put in, and which.
pub(super) type Used = BTreeMap<Vec<String>, Filled>;

/// The variables that were put into one value.
#[derive(Debug, Clone, Default)]
pub(super) struct Filled {
    /// Their names, in order; one at least.
    pub names: Vec<String>,
    /// Whether the value is that of the variable, and no longer text.
    pub is_whole: bool,
}

/// Replaces every `${vars.x}` outside of `vars` in the merged document.
///
/// As a whole value it keeps its type; inside a longer text it becomes text. `$${` stands for
/// `${`, and `${HOME}` and the like stay as they are.
pub(super) fn substitute(document: &mut Node, suggestions: &Suggestions) -> (Used, Vec<Finding>) {
    let mut work = Work { vars: IndexMap::new(), suggestions, used: Used::new(), findings: Vec::new() };
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
    Variable(String),
    /// Something that is not ours, such as `HOME`.
    Other,
}

/// Something is wrong and was reported.
struct Reported;

struct Work<'a> {
    vars: IndexMap<String, Node>,
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
            && let Reference::Variable(name) = self.variable(reference, true, path).ok()?
        {
            return Some(self.vars[&name].clone());
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
            match self.variable(&from[2..end], false, path).ok()? {
                Reference::Other => filled.push_str(&from[..=end]),
                Reference::Variable(name) => match &self.vars[&name] {
                    Node::Text(text) => filled.push_str(text),
                    Node::Number(number) => filled.push_str(&number.to_string()),
                    Node::Bool(value) => filled.push_str(&value.to_string()),
                    other => {
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
    fn variable(&mut self, reference: &str, whole: bool, path: &[String]) -> Result<Reference, Reported> {
        let Some(name) = reference.trim().strip_prefix("vars.") else {
            let last = reference.rsplit('.').next().unwrap_or_default().trim();
            if whole && last == "seed" && !self.vars.contains_key(last) {
                let found = Finding::new("unknown_variable", format!("`${{{reference}}}` is not a variable"));
                let help = "a command is given the stage's seed where `{seed}` stands in it".to_owned();
                self.report(found.help(help), path, &format!("${{{reference}}}"));
                return Err(Reported);
            }
            let meant = self.vars.contains_key(last) && (whole || reference.contains('.'));
            if meant {
                let found = Finding::new("unknown_variable", format!("`${{{reference}}}` is not a variable"));
                let help = format!("write `${{vars.{last}}}`");
                self.report(found.help(help), path, &format!("${{{reference}}}"));
                return Err(Reported);
            }
            return Ok(Reference::Other);
        };
        if self.vars.contains_key(name) {
            let filled = self.used.entry(path.to_vec()).or_default();
            filled.is_whole = whole;
            if !filled.names.iter().any(|known| known == name) {
                filled.names.push(name.to_owned());
            }
            return Ok(Reference::Variable(name.to_owned()));
        }
        let names = self.vars.keys().map(String::as_str).collect::<Vec<_>>();
        let help = self.suggestions.help(name, "variables are", names);
        let help = help.or_else(|| Some("the pipeline declares no `vars`".to_owned()));
        let found = Finding::new("unknown_variable", format!("unknown variable `{name}`")).help(help);
        self.report(found, path, &format!("${{{reference}}}"));
        Err(Reported)
    }

    /// Reports what is wrong with `part` of the text at `path`.
    fn report(&mut self, finding: Finding, path: &[String], part: &str) {
        self.findings.push(finding.at_part(Spot { path: path.to_vec(), part: Part::Value }, part));
    }
}

fn refers(node: &Node) -> bool {
    match node {
        Node::Text(text) => text.contains("${vars."),
        Node::List(items) => items.iter().any(refers),
        Node::Map(map) => map.values().any(refers),
        Node::Null | Node::Bool(_) | Node::Number(_) | Node::Unfit(_) => false,
    }
}
