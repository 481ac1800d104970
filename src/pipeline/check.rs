//! Checks a merged document against the kinds: a pure function from values to a pipeline or to
//! everything that is wrong with it.

use std::collections::{BTreeMap, HashSet};

use indexmap::IndexMap;
use pipe_stages::contract::{ParamProblem, Ports, Resolved, StageKind};
use serde_json::Value;

use super::{
    Source, StageSpec,
    document::Node,
    expect,
    inputs::{self, Wanted},
    overlay::{RESERVED, parameters},
    places::{Part, Spot},
    problem::Finding,
    suggest::Suggestions,
    words,
};
use crate::{
    attempts::{Attempts, TimeLimit},
    names::{Instance, base},
    resources::{Bytes, NotBytes, Resources},
};

/// What a checked document says.
pub(super) struct Checked {
    pub name: Option<String>,
    pub seed: u64,
    pub stages: IndexMap<String, StageSpec>,
}

/// A stage as far as it could be read.
pub(super) struct Draft<'d> {
    pub kind: Option<&'static StageKind>,
    /// The parameters as written.
    with: Option<&'d Node>,
    pub resolved: Option<Resolved>,
    /// Its inputs and outputs where its parameters can be read, though something may be wrong with them.
    pub ports: Option<Ports>,
    pub wanted: BTreeMap<String, Wanted>,
    resources: Resources,
    attempts: Attempts,
    seed: Option<u64>,
}

/// Fields of a document, and words that people write instead.
const DOCUMENT_FIELDS: [&str; 6] = ["name", "seed", "vars", "stages", "expect", "profiles"];
const STAGE_FIELDS: [&str; 8] = ["kind", "matrix", "in", "with", "seed", "resources", "retry", "timeout"];
const RESOURCE_FIELDS: [&str; 3] = ["cpus", "memory", "gpus"];
/// Longest name of a stage or an input, in bytes: files are called by them.
const LONGEST_NAME: usize = 200;
/// The most that `retry` and the like can be.
const MOST: u64 = 1 << 20;
const OTHER_WORDS: [(&str, &str); 22] = [
    ("inputs", "in"),
    ("input", "in"),
    ("from", "in"),
    ("deps", "in"),
    ("needs", "in"),
    ("cmd", "command"),
    ("run", "command"),
    ("script", "command"),
    ("shell", "command"),
    ("out", "outputs"),
    ("outs", "outputs"),
    ("output", "outputs"),
    ("params", "with"),
    ("parameters", "with"),
    ("args", "with"),
    ("type", "kind"),
    ("uses", "kind"),
    ("variables", "vars"),
    ("steps", "stages"),
    ("foreach", "matrix"),
    ("sweep", "matrix"),
    ("grid", "matrix"),
];

impl Draft<'_> {
    /// The parameters as written.
    pub fn with(&self) -> Value {
        self.with.map_or(Value::Null, Node::to_json)
    }
}

fn complete(name: &str, draft: Draft<'_>, inputs: BTreeMap<String, Source>, seed: u64) -> Option<StageSpec> {
    let (kind, resolved) = (draft.kind?, draft.resolved?);
    Some(StageSpec {
        name: name.to_owned(),
        kind,
        seed: resolved.draws.then(|| draft.seed.unwrap_or(seed)),
        params: resolved.params,
        hashed: resolved.hashed,
        ports: resolved.ports,
        inputs,
        resources: draft.resources,
        attempts: draft.attempts,
    })
}

/// Whether `text` is lowercase letters, digits and `_`, a letter first.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// What may be meant by a word that other tools have.
fn other_words(field: &str) -> impl Iterator<Item = &'static str> {
    let lower = field.to_lowercase();
    OTHER_WORDS.into_iter().filter(move |(wrong, _)| *wrong == lower).map(|(_, right)| right)
}

/// The keys of maps and places in lists that the dotted `path` leads through below `node`; a key of a map may
/// have dots itself.
fn keys<'p>(mut node: Option<&Node>, path: &'p str) -> Vec<&'p str> {
    let mut keys = Vec::new();
    let mut rest = (!path.is_empty()).then_some(path);
    while let Some(left) = rest {
        let ends = left.match_indices('.').map(|(at, _)| at).chain([left.len()]);
        let mut found = ends.filter(|end| node.and_then(|node| node.get(&left[..*end])).is_some());
        let end = found.next().or_else(|| left.find('.')).unwrap_or(left.len());
        keys.push(&left[..end]);
        node = node.and_then(|node| node.get(&left[..end]));
        rest = left.get(end + 1..);
    }
    keys
}

/// Whether `kind` has a parameter called `name`. A schema takes longer than all the rest, so this is asked
/// only when something is wrong.
fn has_parameter(kind: &StageKind, name: &str) -> bool {
    parameters(kind).any(|known| known == name)
}

pub(super) struct Checker<'a> {
    pub kinds: &'static [StageKind],
    /// The stages of the file itself, before anything was laid over it.
    pub written: &'a HashSet<String>,
    pub suggestions: &'a Suggestions,
    pub findings: Vec<Finding>,
}

impl Checker<'_> {
    /// Checks the whole document; what it returns is complete only if there are no findings.
    pub fn document(&mut self, document: &Node) -> Checked {
        let nothing = IndexMap::new();
        let Some(map) = document.as_map() else {
            let message = format!("a pipeline must be a map with `stages`, not {}", document.describe());
            self.findings.push(Finding::new("not_a_map", message));
            return Checked { name: None, seed: 0, stages: IndexMap::new() };
        };
        self.known_fields(map.keys(), &DOCUMENT_FIELDS, "a pipeline", &[]);
        let name = map.get("name").and_then(|node| match node {
            Node::Text(text) if text.trim().contains(char::is_control) => {
                let found = Finding::new("bad_name", "`name` is one line without control characters");
                self.findings.push(found.at(Spot::value(&["name"])));
                None
            }
            Node::Text(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
            other => {
                self.wrong_type("name", other, "a text", &["name"]);
                None
            }
        });
        let seed = map.get("seed").and_then(|node| self.seed(node, &["seed"])).unwrap_or(0);
        let stages = match map.get("stages") {
            Some(Node::Map(stages)) => stages,
            None | Some(Node::Null) => {
                let found =
                    Finding::new("no_stages", "the pipeline has no `stages`").at(Spot::key(&["stages"]));
                self.findings.push(found.help("write `stages: { NAME: { kind: KIND } }`".to_owned()));
                &nothing
            }
            Some(other) => {
                self.wrong_type("stages", other, "a map of names and stages", &["stages"]);
                &nothing
            }
        };
        if stages.is_empty() && map.get("stages").is_some_and(|node| node.as_map().is_some()) {
            let found = Finding::new("no_stages", "the pipeline has no stages");
            self.findings.push(found.at(Spot::key(&["stages"])));
        }
        let drafts: IndexMap<String, Draft<'_>> =
            stages.iter().map(|(name, node)| (name.clone(), self.stage(name, node, stages))).collect();
        self.findings.extend(inputs::graph(&inputs::wires(&drafts)).err().into_iter().flatten());
        let sources: Vec<_> =
            drafts.iter().map(|(name, draft)| inputs::resolve(name, draft, &drafts, self)).collect();
        if let Some(node) = map.get("expect") {
            expect::check(node, &drafts, self);
        }
        let mut checked = IndexMap::with_capacity(drafts.len());
        for ((name, draft), inputs) in drafts.into_iter().zip(sources) {
            if let Some(spec) = complete(&name, draft, inputs, seed) {
                checked.insert(name, spec);
            }
        }
        Checked { name, seed, stages: checked }
    }

    fn stage<'d>(&mut self, name: &str, node: &'d Node, stages: &IndexMap<String, Node>) -> Draft<'d> {
        let mut draft = Draft {
            kind: None,
            with: None,
            resolved: None,
            ports: None,
            wanted: BTreeMap::new(),
            resources: Resources::default(),
            attempts: Attempts::default(),
            seed: None,
        };
        self.name(name, "stage", Spot::key(&["stages", name]));
        let Some(map) = node.as_map() else {
            self.wrong_type(&format!("stage `{name}`"), node, "a map with `kind`", &["stages", name]);
            return draft;
        };
        draft.kind = self.kind(name, map.get("kind"), stages);
        self.known_fields_of_stage(name, map.keys(), draft.kind);
        let path = ["stages", name];
        if let Some(node) = map.get("in").filter(|node| **node != Node::Null) {
            draft.wanted = inputs::read(name, node, self);
        }
        if let Some(node) = map.get("resources").filter(|node| **node != Node::Null) {
            draft.resources = self.resources(name, node);
        }
        if let Some(node) = map.get("retry").filter(|node| **node != Node::Null) {
            let retry = self.count(node, 0, &[path[0], path[1], "retry"]);
            draft.attempts.retry = retry.and_then(|count| count.try_into().ok()).unwrap_or(0);
        }
        if let Some(node) = map.get("timeout").filter(|node| **node != Node::Null) {
            draft.attempts.timeout = self.time_limit(node, &[path[0], path[1], "timeout"]);
        }
        if let Some(kind) = draft.kind {
            draft.with = map.get("with");
            match kind.resolve(draft.with()) {
                Ok(resolved) => draft.resolved = Some(resolved),
                Err(problems) => {
                    draft.ports = kind.ports(draft.with());
                    for problem in problems {
                        let found = self.parameter(name, kind, draft.with, &problem);
                        self.findings.push(found);
                    }
                }
            }
        }
        if let Some(node) = map.get("seed") {
            draft.seed = self.seed(node, &[path[0], path[1], "seed"]);
            self.draws(name, &draft);
        }
        draft
    }

    /// Checks the names of all stages' fields.
    pub fn fields_of_stages(&mut self, document: &Node) {
        for (name, stage) in document.get("stages").and_then(Node::as_map).into_iter().flatten() {
            let kind = stage.get("kind").and_then(Node::as_text);
            let kind = kind.and_then(|kind| self.kinds.iter().find(|known| known.name == kind));
            self.known_fields_of_stage(name, stage.as_map().into_iter().flat_map(IndexMap::keys), kind);
        }
    }

    /// Checks the names of a stage's fields; one of a parameter belongs elsewhere.
    fn known_fields_of_stage<'k>(
        &mut self,
        stage: &str,
        given: impl Iterator<Item = &'k String>,
        kind: Option<&StageKind>,
    ) {
        for field in given.filter(|field| !STAGE_FIELDS.contains(&field.as_str())) {
            let of_kind = |kind: &StageKind| {
                if has_parameter(kind, field) {
                    return Some(format!("it is a parameter of kind `{}`: write it under `with`", kind.name));
                }
                let meant = other_words(field).find(|meant| has_parameter(kind, meant))?;
                Some(format!("write `{meant}`, a parameter of kind `{}`, under `with`", kind.name))
            };
            let help = kind.and_then(of_kind).or_else(|| self.field_help(field, &STAGE_FIELDS));
            let found = Finding::new("unknown_field", format!("a stage has no field `{field}`"));
            self.findings.push(found.at(Spot::key(&["stages", stage, field])).help(help));
        }
    }

    /// Checks that a stage with a seed draws with it.
    fn draws(&mut self, stage: &str, draft: &Draft<'_>) {
        let Some(kind) = draft.kind else { return };
        let draws = draft.resolved.as_ref().map_or(kind.draws, |resolved| resolved.draws);
        if draws {
            return;
        }
        let (message, help) = if kind.draws {
            let message = format!("stage `{stage}` has a seed, but its command takes none");
            (message, Some("write `{seed}` in `command` where the program takes it".to_owned()))
        } else {
            let message =
                format!("stage `{stage}` has a seed, but kind `{}` draws no random numbers", kind.name);
            let help = "the kind's own parameter `seed` is written under `with`".to_owned();
            (message, has_parameter(kind, "seed").then_some(help))
        };
        let found = Finding::new("useless_seed", message).at(Spot::key(&["stages", stage, "seed"]));
        self.findings.push(found.help(help));
    }

    fn kind(
        &mut self,
        stage: &str,
        kind: Option<&Node>,
        stages: &IndexMap<String, Node>,
    ) -> Option<&'static StageKind> {
        let Some(kind) = kind else {
            let found = Finding::new("missing_kind", format!("stage `{stage}` has no `kind`"));
            // What only a profile or a setting speaks of may be meant for a stage that is there.
            let others = stages.keys().map(|name| base(name)).filter(|name| self.written.contains(*name));
            let is_laid_over = !self.written.contains(base(stage));
            let near = self.suggestions.nearest(stage, others.filter(|_| is_laid_over));
            let near = near.map(|name| format!("did you mean stage `{name}`?"));
            let help = near.or_else(|| Some("`pipe stages` lists the kinds".to_owned()));
            self.findings.push(found.at(Spot::key(&["stages", stage])).help(help));
            return None;
        };
        let Some(name) = kind.as_text() else {
            self.wrong_type("kind", kind, "the name of a kind", &["stages", stage, "kind"]);
            return None;
        };
        let found = self.kinds.iter().find(|kind| kind.name == name);
        if found.is_none() {
            let names = self.kinds.iter().map(|kind| kind.name);
            let help = self.suggestions.help(name, "kinds are", names);
            let spot = Spot::value(&["stages", stage, "kind"]);
            self.findings
                .push(Finding::new("unknown_kind", format!("unknown kind `{name}`")).at(spot).help(help));
        }
        found
    }

    fn parameter(
        &self,
        stage: &str,
        kind: &StageKind,
        with: Option<&Node>,
        problem: &ParamProblem,
    ) -> Finding {
        let mut words = words::parameter(stage, kind, problem, self.suggestions);
        if words.code == "unknown_parameter" {
            // Such as `lr` for `params.lr` of a command.
            let mut given = with.and_then(Node::as_map).into_iter().flatten();
            let has = |map: &Node| map.as_map().is_some_and(|map| map.contains_key(&problem.path));
            let holder = given.find(|(_, value)| has(value)).map(|(name, _)| name);
            words.help = holder.map(|name| format!("did you mean `{name}.{}`?", problem.path)).or(words.help);
        }
        let spot = Spot::key(&["stages", stage]);
        let at = |mut above: Spot| {
            above.path.extend(keys(with, &problem.path).into_iter().map(str::to_owned));
            above
        };
        let spot = match (problem.path.is_empty(), words.code) {
            (true, "missing_parameter") => spot,
            (_, "unknown_parameter") => at(Spot::key(&["stages", stage, "with"])),
            _ => at(Spot::value(&["stages", stage, "with"])),
        };
        let found = Finding::new(words.code, words.message).help(words.help);
        match &problem.part {
            Some(part) => found.at_part(spot, part),
            None => found.at(spot),
        }
    }

    fn resources(&mut self, stage: &str, node: &Node) -> Resources {
        let mut resources = Resources::default();
        let path = ["stages", stage, "resources"];
        let Some(map) = node.as_map() else {
            self.wrong_type("resources", node, "a map with `cpus`, `memory`, `gpus`", &path);
            return resources;
        };
        self.known_fields(map.keys(), &RESOURCE_FIELDS, "`resources`", &path);
        let at = |field| [path[0], path[1], path[2], field];
        if let Some(node) = map.get("cpus") {
            resources.cpus = self.count(node, 1, &at("cpus"));
        }
        if let Some(node) = map.get("gpus") {
            resources.gpus = self.count(node, 0, &at("gpus"));
        }
        resources.memory = match map.get("memory") {
            None => None,
            Some(Node::Number(number)) if number.is_u64() => number.as_u64().map(Bytes),
            Some(Node::Text(text)) => match text.parse() {
                Ok(bytes) => Some(bytes),
                Err(err) => {
                    let err: NotBytes = err;
                    let found = Finding::new("wrong_type", err.to_string());
                    self.findings.push(found.at(Spot::value(&at("memory"))));
                    None
                }
            },
            Some(other) => {
                self.wrong_type("memory", other, "an amount such as `4GiB`", &at("memory"));
                None
            }
        };
        resources
    }

    fn time_limit(&mut self, node: &Node, path: &[&str]) -> Option<TimeLimit> {
        let found = match node {
            Node::Text(text) => match text.parse::<TimeLimit>() {
                Ok(limit) => return Some(limit),
                Err(err) => Finding::new("wrong_value", err.to_string()),
            },
            Node::Number(number) => {
                let message = format!("`timeout` is a time with a unit, not the number {number}");
                let is_limit = number.as_f64().is_some_and(|number| number > 0.0);
                let help = if is_limit {
                    format!("write `{number}s` or `{number}m`")
                } else {
                    "it is more than none, such as `30m`; without `timeout` there is no limit".to_owned()
                };
                Finding::new("wrong_type", message).help(help)
            }
            other => {
                self.wrong_type("timeout", other, "a time such as `30m`", path);
                return None;
            }
        };
        self.findings.push(found.at(Spot::value(path)));
        None
    }

    fn count(&mut self, node: &Node, least: u64, path: &[&str]) -> Option<usize> {
        if let Node::Number(number) = node
            && let Some(count) = number.as_u64()
            && (least..=MOST).contains(&count)
        {
            return usize::try_from(count).ok();
        }
        let field = path.last().copied().unwrap_or_default();
        let is_more =
            matches!(node, Node::Number(number) if number.as_f64().is_some_and(|it| it > MOST as f64));
        let limit = if is_more { format!(" to {MOST}") } else { String::new() };
        self.wrong_type(field, node, &format!("a whole number from {least}{limit}"), path);
        None
    }

    fn seed(&mut self, node: &Node, path: &[&str]) -> Option<u64> {
        let seed = if let Node::Number(number) = node { number.as_u64() } else { None };
        if seed.is_none() {
            self.wrong_type("seed", node, "a whole number from 0", path);
        }
        seed
    }

    /// Refuses a name that is not lowercase letters, digits and `_`.
    pub fn name(&mut self, name: &str, what: &str, spot: Spot) {
        if name.len() > LONGEST_NAME {
            let start: String = name.chars().take(20).collect();
            let message = format!(
                "{what} `{start}…` has a name of {} bytes, and {LONGEST_NAME} is the most",
                name.len()
            );
            self.findings.push(Finding::new("bad_name", message).at(spot));
            return;
        }
        // A matrix has checked what stands in brackets.
        let given = Instance::parse(name).map_or(name, |instance| instance.stage);
        if !is_name(given) {
            let message =
                format!("{what} `{name}` must be named with letters a-z, digits and `_`, a letter first");
            let tidy: String = name
                .to_lowercase()
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
                .skip_while(|c| !c.is_ascii_lowercase())
                .collect();
            let help = (!tidy.is_empty()).then(|| format!("write `{tidy}`"));
            self.findings.push(Finding::new("bad_name", message).at(spot).help(help));
        } else if what == "stage" && RESERVED.contains(&name) {
            let message =
                format!("a stage cannot be called `{name}`, which `--set` reads as a part of the pipeline");
            self.findings.push(Finding::new("bad_name", message).at(spot));
        }
    }

    pub fn wrong_type(&mut self, what: &str, given: &Node, wanted: &str, path: &[&str]) {
        let what = if what.contains(' ') { what.to_owned() } else { format!("`{what}`") };
        let message = format!("{what} must be {wanted}, not {}", given.describe());
        self.findings.push(Finding::new("wrong_type", message).at(Spot::value(path)));
    }

    pub fn known_fields<'k>(
        &mut self,
        given: impl Iterator<Item = &'k String>,
        known: &[&'static str],
        what: &str,
        path: &[&str],
    ) {
        for field in given.filter(|field| !known.contains(&field.as_str())) {
            let path: Vec<&str> = path.iter().copied().chain([field.as_str()]).collect();
            let mut spot = Spot::key(&path);
            spot.part = Part::Key;
            let help = self.field_help(field, known);
            let message = format!("{what} has no field `{field}`");
            self.findings.push(Finding::new("unknown_field", message).at(spot).help(help));
        }
    }

    fn field_help(&self, field: &str, known: &[&'static str]) -> Option<String> {
        match other_words(field).find(|meant| known.contains(meant)) {
            Some(meant) => Some(format!("did you mean `{meant}`?")),
            None => self.suggestions.help(field, "fields are", known.iter().copied()),
        }
    }
}
