//! What stages take from each other and from outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use indexmap::IndexMap;
use pipe_stages::contract::{InputName, Inputs, Needed, PortType, StageKind};
use serde_json::{Map, Value};

use super::{
    Source,
    check::{Checker, Draft},
    dag::{Cycle, Dag},
    document::Node,
    places::Spot,
    problem::Finding,
    suggest::Suggestions,
};
use crate::names::{base, split_stage};

/// Most places that are drawn of one cycle.
const DRAWN_EDGES: usize = 12;

/// A source as it is written.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    /// `stage` or `stage.port`.
    Stage {
        stage: String,
        port: Option<String>,
    },
    Outside(Source),
    /// Something that was reported already.
    Wrong,
}

/// Reads the map under `in`.
pub(super) fn read(stage: &str, node: &Node, checker: &mut Checker<'_>) -> BTreeMap<String, Wanted> {
    let Some(map) = node.as_map() else {
        checker.wrong_type("in", node, "a map of inputs and where they come from", &["stages", stage, "in"]);
        return BTreeMap::new();
    };
    map.iter().map(|(port, node)| (port.clone(), read_source(stage, port, node, checker))).collect()
}

fn read_source(stage: &str, port: &str, node: &Node, checker: &mut Checker<'_>) -> Wanted {
    let path = ["stages", stage, "in", port];
    match node {
        Node::Text(text) => read_stage(text, &path, checker),
        Node::Map(map) if map.len() == 1 => {
            let (what, given) = map.first().expect("one entry");
            let at = [path[0], path[1], path[2], path[3], what];
            let Node::Text(text) = given else {
                checker.wrong_type(what, given, "a path", &at);
                return Wanted::Wrong;
            };
            if text.is_empty() || text.contains('\0') {
                checker.wrong_type(what, given, "a path", &at);
                return Wanted::Wrong;
            }
            match what.as_str() {
                "file" => Wanted::Outside(Source::File(PathBuf::from(text))),
                "dir" => Wanted::Outside(Source::Dir(PathBuf::from(text))),
                "glob" => Wanted::Outside(Source::Glob(text.clone())),
                _ => {
                    checker.known_fields(map.keys(), &["file", "dir", "glob", "gather"], "an input", &path);
                    Wanted::Wrong
                }
            }
        }
        other => {
            let wanted = "`STAGE`, `STAGE.OUTPUT`, `{ file: PATH }`, `{ dir: PATH }`, `{ glob: PATTERN }` or \
                          `{ gather: STAGE }`";
            checker.wrong_type(port, other, wanted, &path);
            Wanted::Wrong
        }
    }
}

/// Reads `stage` or `stage.output`.
fn read_stage(text: &str, path: &[&str], checker: &mut Checker<'_>) -> Wanted {
    let (stage, output) = split_stage(text);
    if text.contains(['/', '*']) || stage.is_empty() {
        let message = format!("`{text}` is not a stage");
        let help = "a file from outside is written `{ file: PATH }`".to_owned();
        checker.findings.push(Finding::new("not_a_stage", message).at(Spot::value(path)).help(help));
        return Wanted::Wrong;
    }
    Wanted::Stage { stage: stage.to_owned(), port: output.map(str::to_owned) }
}

/// What each stage takes from which other, by its inputs.
pub(super) type Wires<'d> = IndexMap<&'d str, Vec<(&'d str, &'d str)>>;

/// The inputs of all stages that other stages feed.
pub(super) fn wires<'d>(drafts: &'d IndexMap<String, Draft<'_>>) -> Wires<'d> {
    let fed = |(port, wanted): (&'d String, &'d Wanted)| match wanted {
        Wanted::Stage { stage, .. } => Some((port.as_str(), stage.as_str())),
        Wanted::Outside(_) | Wanted::Wrong => None,
    };
    drafts
        .iter()
        .map(|(name, draft)| (name.as_str(), draft.wanted.iter().filter_map(fed).collect()))
        .collect()
}

/// The graph of the stages, or every cycle among them.
pub(super) fn graph(wires: &Wires<'_>) -> Result<Dag, Vec<Finding>> {
    let taken = wires.iter().map(|(name, inputs)| {
        let upstream: BTreeSet<&str> = inputs.iter().map(|(_, stage)| *stage).collect();
        (*name, upstream)
    });
    Dag::new(taken).map_err(|cycles| cycles.iter().map(|cycle| describe_cycle(cycle, wires)).collect())
}

fn describe_cycle(cycle: &Cycle, wires: &Wires<'_>) -> Finding {
    let message = match cycle.as_slice() {
        [alone] => format!("stage `{alone}` takes from itself"),
        [first, rest @ ..] => {
            let shown = if cycle.len() > 20 { &rest[..8] } else { rest };
            let way = shown.iter().map(|stage| format!("`{stage}`")).collect::<Vec<_>>().join(", that from ");
            let more = rest.len() - shown.len();
            let more = if more > 0 { format!(", and so on over {more} more") } else { String::new() };
            format!("the stages form a cycle: `{first}` takes from {way}{more}, that from `{first}`")
        }
        [] => unreachable!("a cycle has a stage"),
    };
    let mut found = Finding::new("cycle", message);
    for (index, stage) in cycle.iter().enumerate().take(DRAWN_EDGES) {
        let next = &cycle[(index + 1) % cycle.len()];
        let port = wires[stage.as_str()].iter().find(|(_, from)| from == next).map_or("", |(port, _)| port);
        found = found
            .label(Spot::value(&["stages", stage, "in", port]), format!("`{stage}` takes from `{next}`"));
    }
    found
}

/// Looks up what every input of a stage takes, and reports those that it lacks.
pub(super) fn resolve(
    name: &str,
    draft: &Draft<'_>,
    drafts: &IndexMap<String, Draft<'_>>,
    checker: &mut Checker<'_>,
) -> BTreeMap<String, Source> {
    let mut sources = BTreeMap::new();
    for (port, wanted) in &draft.wanted {
        let given = source(name, port, wanted, drafts, checker);
        let Some(ports) = draft.resolved.as_ref().map(|resolved| &resolved.ports) else { continue };
        if matches!(ports.inputs, Inputs::Named { .. } | Inputs::Free { .. }) {
            checker.name(port, "input", Spot::key(&["stages", name, "in", port]));
        }
        let Some(taken) = ports.input_type(port) else {
            let found = unknown_input(name, port, draft, checker);
            checker.findings.push(found);
            continue;
        };
        let Some((source, type_given)) = given else { continue };
        if let Some(found) = mismatch(name, port, taken, &source, type_given) {
            checker.findings.push(found);
            continue;
        }
        sources.insert(port.clone(), source);
    }
    missing(name, draft, drafts, checker);
    sources
}

/// The source that is meant and the type of a stage's output; `None` if it is wrong or its
/// stage could not be read.
fn source(
    name: &str,
    port: &str,
    wanted: &Wanted,
    drafts: &IndexMap<String, Draft<'_>>,
    checker: &mut Checker<'_>,
) -> Option<(Source, Option<PortType>)> {
    let (from, output) = match wanted {
        Wanted::Wrong => return None,
        Wanted::Outside(source) => return Some((source.clone(), None)),
        Wanted::Stage { stage, port } => (stage, port),
    };
    let spot = Spot::value(&["stages", name, "in", port]);
    let Some(upstream) = drafts.get(from) else {
        let names = drafts.keys().map(String::as_str);
        let found = unknown_stage(name, port, from, names, checker.suggestions);
        checker.findings.push(found);
        return None;
    };
    let outputs = &upstream.resolved.as_ref()?.ports.outputs;
    let written = base(from);
    let listed =
        || outputs.iter().map(|port| format!("`{written}.{}`", port.name)).collect::<Vec<_>>().join(", ");
    let found = match output {
        Some(output) => {
            if let Some(port) = outputs.iter().find(|port| port.name == *output) {
                return Some((output_of(from, &port.name), Some(port.port_type)));
            }
            let names = outputs.iter().map(|port| port.name.as_str());
            let help = checker.suggestions.nearest(output, names);
            let help = help.map(|near| format!("did you mean `{written}.{near}`?"));
            let all = || (!outputs.is_empty()).then(|| format!("it gives {}", listed()));
            Finding::new("unknown_port", format!("stage `{from}` has no output `{output}`"))
                .help(help.or_else(all))
        }
        None => match outputs.as_slice() {
            [only] => return Some((output_of(from, &only.name), Some(only.port_type))),
            [] => Finding::new("no_output", format!("stage `{from}` gives nothing to take")),
            _ => Finding::new("ambiguous_output", format!("stage `{from}` has several outputs"))
                .help(format!("name one: {}", listed())),
        },
    };
    checker.findings.push(found.at(spot));
    None
}

/// Says that `stage` takes from one that is none of `names`.
pub(super) fn unknown_stage<'n>(
    stage: &str,
    port: &str,
    from: &str,
    names: impl Iterator<Item = &'n str> + Clone,
    suggestions: &Suggestions,
) -> Finding {
    let is_instance = |other: &&str| other.strip_prefix(from).is_some_and(|rest| rest.starts_with('['));
    let help = match names.clone().find(is_instance) {
        Some(instance) => Some(format!("it has a matrix: name one of it, such as `{instance}`")),
        None => suggestions.help(from, "stages are", names.filter(|other| *other != stage)),
    };
    let message = format!("stage `{stage}` takes from unknown stage `{from}`");
    Finding::new("unknown_stage", message).at(Spot::value(&["stages", stage, "in", port])).help(help)
}

fn output_of(stage: &str, port: &str) -> Source {
    Source::Output { stage: stage.to_owned(), port: port.to_owned() }
}

/// Whether an input of type `taken` cannot be fed by `source`.
fn mismatch(
    name: &str,
    port: &str,
    taken: PortType,
    source: &Source,
    given: Option<PortType>,
) -> Option<Finding> {
    let (what, help) = match (source, given) {
        (Source::Output { stage, port: output }, Some(given)) if !taken.accepts(given) => {
            let help = "a stage of kind `shell` can take a file out of it: `cp {in.NAME}/FILE {out.NAME}`";
            let help = (given == PortType::Folder).then(|| help.to_owned());
            (format!("`{stage}.{output}` gives {given}"), help)
        }
        (Source::Dir(_), _) if !taken.accepts_folder() => {
            ("`dir` gives a folder".to_owned(), Some("write `{ file: PATH }`".to_owned()))
        }
        (Source::Glob(_), _) if !taken.accepts_folder() => {
            ("`glob` gives a folder of files".to_owned(), Some("write `{ file: PATH }`".to_owned()))
        }
        _ => return None,
    };
    let found = Finding::new("wrong_port_type", format!("`{name}.{port}` takes {taken}, {what}"));
    Some(found.at(Spot::value(&["stages", name, "in", port])).help(help))
}

fn unknown_input(name: &str, port: &str, draft: &Draft<'_>, checker: &Checker<'_>) -> Finding {
    let kind = draft.kind.expect("parameters were read by a kind");
    let inputs = draft.resolved.as_ref().map(|resolved| &resolved.ports.inputs);
    let names: Vec<&str> = match inputs {
        Some(Inputs::Fixed(ports)) => ports.iter().map(|port| port.name.as_str()).collect(),
        _ => Vec::new(),
    };
    let spot = Spot::key(&["stages", name, "in", port]);
    let in_file = InputName::of(port).in_file();
    if names.contains(&in_file) {
        let message = format!("input `{in_file}` of kind `{}` takes one, not all of a matrix", kind.name);
        let help = "inputs that the file names gather: those of `evaluate` and `shell`".to_owned();
        return Finding::new("wrong_input", message).at(spot).help(help);
    }
    if let Some((parameter, value)) = taken_without(kind, &draft.with(), port) {
        let message = format!("stage `{name}` takes no input `{port}` because `{parameter}` is {value}");
        return Finding::new("unknown_port", message)
            .at(spot)
            .label(Spot::value(&["stages", name, "with", &parameter]), "because of this")
            .help("remove one of the two".to_owned());
    }
    let help = checker.suggestions.help(port, "inputs are", names);
    let help = help.or_else(|| Some(format!("kind `{}` takes no inputs", kind.name)));
    Finding::new("unknown_port", format!("kind `{}` has no input `{port}`", kind.name)).at(spot).help(help)
}

/// The parameter that takes the input `port` away: without it alone, or among all defaults with
/// it alone, the difference shows.
fn taken_without(kind: &StageKind, with: &Value, port: &str) -> Option<(String, String)> {
    let given = with.as_object()?;
    let has_port = |with: Map<String, Value>| {
        let resolved = kind.resolve(Value::Object(with)).ok()?;
        Some(resolved.ports.input_type(port).is_some())
    };
    let (parameter, value) = given.iter().find(|(parameter, value)| {
        let mut rest = given.clone();
        rest.remove(*parameter);
        let alone = Map::from_iter([((*parameter).clone(), (*value).clone())]);
        has_port(rest) == Some(true) || (has_port(Map::new()) == Some(true) && has_port(alone) == Some(false))
    })?;
    let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Some((parameter.clone(), format!("`{shown}`")))
}

/// Reports the inputs that the kind needs and the stage does not name.
fn missing(name: &str, draft: &Draft<'_>, drafts: &IndexMap<String, Draft<'_>>, checker: &mut Checker<'_>) {
    let Some(ports) = draft.resolved.as_ref().map(|resolved| &resolved.ports).or(draft.ports.as_ref()) else {
        return;
    };
    match &ports.inputs {
        Inputs::Fixed(ports) => {
            let has = |name: &str| draft.wanted.keys().any(|port| InputName::of(port).is_called(name));
            for port in ports.iter().filter(|port| !has(&port.name)) {
                let message = format!("stage `{name}` lacks its input `{}` ({})", port.name, port.port_type);
                let found = Finding::new("missing_input", message).at(Spot::key(&["stages", name]));
                checker.findings.push(found.help(Some(feeders(&port.name, port.port_type, name, drafts))));
            }
        }
        Inputs::Named { port_type, doc } if draft.wanted.is_empty() => {
            let message = format!("stage `{name}` needs one or more inputs ({port_type}): {doc}");
            let found = Finding::new("missing_input", message).at(Spot::key(&["stages", name]));
            checker.findings.push(found.help(Some(feeders("NAME", *port_type, name, drafts))));
        }
        Inputs::Named { .. } => {}
        Inputs::Free { needed, .. } => {
            let has = |input: &str| draft.wanted.keys().any(|port| InputName::of(port).is_called(input));
            for Needed { input, by, part } in needed {
                let spot = Spot::value(&["stages", name, "with"]).below(by);
                if part.starts_with("{labels.") && draft.wanted.contains_key(input) {
                    let message = format!("`{part}` has no labels: input `{input}` is not gathered");
                    let help =
                        format!("all stages of a matrix are gathered by `{input}: {{ gather: STAGE }}`");
                    checker
                        .findings
                        .push(Finding::new("not_gathered", message).at_part(spot.clone(), part).help(help));
                }
                if has(input) {
                    continue;
                }
                let message = format!("`{by}` speaks of input `{input}`, which stage `{name}` does not have");
                let names = draft.wanted.keys().map(String::as_str);
                let help = checker.suggestions.help(input, "its inputs are", names);
                let help = help.or_else(|| Some(format!("write `in: {{ {input}: SOURCE }}`")));
                checker.findings.push(Finding::new("missing_input", message).at_part(spot, part).help(help));
            }
        }
    }
}

/// What could be written for an input that is missing.
///
/// Of a pipeline with very many stages only the first are looked at.
fn feeders(port: &str, taken: PortType, name: &str, drafts: &IndexMap<String, Draft<'_>>) -> String {
    let outputs = drafts.iter().take(500).filter(|(from, _)| *from != name).flat_map(|(from, draft)| {
        let outputs = draft.resolved.iter().flat_map(|resolved| &resolved.ports.outputs);
        let count = draft.resolved.as_ref().map_or(0, |resolved| resolved.ports.outputs.len());
        outputs.filter(|output| taken.accepts(output.port_type)).map(move |output| {
            if count == 1 { format!("`{from}`") } else { format!("`{from}.{}`", output.name) }
        })
    });
    let outputs: Vec<String> = outputs.take(5).collect();
    match outputs.first() {
        Some(first) if outputs.len() == 1 => format!("write `in: {{ {port}: {} }}`", first.trim_matches('`')),
        Some(_) => format!("write `in: {{ {port}: STAGE }}` with one of {}", outputs.join(", ")),
        None => format!("write `in: {{ {port}: STAGE }}`; no stage here gives {taken}"),
    }
}
