//! Reads a pipeline file and carries it through all steps to a [`Pipeline`].

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs::File,
    io::{self, Read},
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use indexmap::IndexMap;
use pipe_stages::contract::StageKind;
use serde_json::Value;

use super::{
    LoadOptions, Pipeline, Recorded, Source, StageSpec,
    check::{Checked, Checker},
    document::{self, Node},
    outside, overlay,
    places::{Layer, Part, Places, Spot, Text, Written},
    problem::{At, Finding, PipelineErrors, Problem, locate},
    suggest::Suggestions,
    unused::{self, Added},
    variables::{self, Used},
};
use crate::{
    digest::Digest,
    root::{project_root, relative_to_root},
};

/// Largest pipeline file, in bytes.
const LARGEST: u64 = 16 << 20;
/// What a profile can change.
const PROFILE_FIELDS: [&str; 5] = ["name", "seed", "vars", "stages", "expect"];

/// What a pipeline file and the options say, before anything of it is checked.
#[derive(Debug)]
pub struct Told {
    /// The project root.
    pub root: PathBuf,
    /// The file, relative to the root where it lies below it.
    pub file: PathBuf,
    /// A hash of the text, the profiles and the settings: where it is equal, [`load`] is told the same.
    pub hash: Digest,
}

/// What was read from pipes: that can be done once, and a file may be read more often.
static PIPED: Mutex<BTreeMap<PathBuf, Vec<u8>>> = Mutex::new(BTreeMap::new());

/// Reads what `options` name; `None` where that cannot be done: [`load`] says why.
pub fn told(options: &LoadOptions) -> Option<Told> {
    let text = read(&options.file, &Suggestions::default()).ok()?;
    let root = project_root(options.root.as_deref(), Some(&options.file)).ok()?;
    let file = relative_to_root(&root, &options.file);
    Some(Told { root, file, hash: hash_of(&text.content, options) })
}

fn hash_of(text: &str, options: &LoadOptions) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for parts in [&[text.to_owned()][..], &options.profiles, &options.sets] {
        hasher.update(&parts.len().to_le_bytes());
        for part in parts {
            hasher.update(&part.len().to_le_bytes()).update(part.as_bytes());
        }
    }
    hasher.finalize().into()
}

/// Reads the file, lays profiles and settings over it, puts variables in and checks the result
/// against `kinds` and against the files it takes from outside.
///
/// # Errors
///
/// Everything that is wrong, at once. Of a file that is not YAML the parser tells the first
/// problem only.
pub fn load(options: &LoadOptions, kinds: &'static [StageKind]) -> Result<Pipeline, PipelineErrors> {
    let suggestions = Suggestions::default();
    let fail = |findings: Vec<Finding>, places: &Places| {
        let (problems, total) = locate(findings, places);
        let profiles = Box::default();
        PipelineErrors { file: options.file.clone(), problems, total, outside: None, profiles }
    };
    let nowhere = Places::default();
    let text = read(&options.file, &suggestions).map_err(|found| fail(vec![found], &nowhere))?;
    let root = project_root(options.root.as_deref(), Some(&options.file)).map_err(|err| {
        let root = options.root.as_deref().unwrap_or(Path::new("."));
        let message = format!("cannot use `{}` as the project root: {err}", root.display());
        fail(vec![Finding::new("bad_root", message)], &nowhere)
    })?;
    let (mut document, mut findings) = document::read(&text).map_err(|found| fail(vec![found], &nowhere))?;
    let layers = vec![Layer { text: text.clone(), written: Written::Document }];
    let mut places = Places { layers, ..Places::default() };
    if document.as_map().is_none() {
        let found = match &document {
            Node::Null => Finding::new("empty_file", "the file is empty")
                .help("a pipeline has `stages`; `pipe stages` lists what they can be".to_owned()),
            other => Finding::new(
                "not_a_map",
                format!("a pipeline must be a map with `stages`, not {}", other.describe()),
            ),
        };
        return Err(fail(vec![found.bytes(&text, 0..0, None)], &places));
    }

    let written = stage_names(&document);
    let declared = profiles(&document, &suggestions, &mut findings);
    for name in &options.profiles {
        let over = document.get("profiles").and_then(|profiles| profiles.get(name)).cloned();
        if let Some(mut over) = over {
            if let Node::Map(fields) = &mut over {
                // Others are told of where the profile is written.
                fields.retain(|field, _| PROFILE_FIELDS.contains(&field.as_str()));
            }
            places.layers.push(Layer { text: text.clone(), written: Written::Profile(name.clone()) });
            if over.as_map().is_some() {
                overlay::lay(&mut document, over);
            }
            continue;
        }
        let option = Text::option("--profile", name);
        let message = format!("the pipeline has no profile `{name}`");
        let help = suggestions.help(name, "profiles are", declared.iter().map(String::as_str));
        let help = help.or_else(|| Some("the pipeline declares no `profiles`".to_owned()));
        let found = Finding::new("unknown_profile", message).help(help);
        findings.push(found.bytes(&option, 0..name.len(), None));
    }
    let mut added = Vec::new();
    for setting in &options.sets {
        match overlay::set(&mut document, setting, kinds, &suggestions) {
            Ok((layer, paths)) => {
                added.extend(paths.into_iter().map(|path| (path, places.layers.len())));
                places.layers.push(layer);
            }
            Err(found) => findings.extend(found),
        }
    }

    let (used, wrong) = variables::substitute(&mut document, &suggestions);
    let added = added.into_iter().map(|(path, layer)| (path, &places.layers[layer])).collect();
    let laid = Laid { written: &written, added };
    let looks = Looks { root: &root, is_thorough: options.looks_into_folders };
    let checked = check(&document, findings, &used, wrong, &laid, &looks, kinds, &suggestions);
    let checked = checked.and_then(|known| known.complete(options.may_lack_files, &used));
    let Known { checked: Checked { name, seed, stages }, notes, missing } =
        checked.map_err(|(found, outside)| {
            let outside = Some((root.clone(), outside));
            PipelineErrors { outside, profiles: declared.clone().into(), ..fail(found, &places) }
        })?;
    let stem = options.file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    Ok(Pipeline {
        file: relative_to_root(&root, &options.file),
        root,
        name: name.or(stem).unwrap_or_default(),
        seed,
        profiles: options.profiles.clone(),
        declared_profiles: declared,
        sets: options.sets.clone(),
        told: Some(hash_of(&text.content, options)),
        stages,
        resolved: resolved(&document),
        notes: locate(notes, &places).0,
        lacking: lacking(missing, &places),
        places: Places { used, ..places },
    })
}

/// Checks a pipeline that a run has recorded, as it would be loaded now.
///
/// What was laid over the file, and variables, are in the record already: it is not read but as it stands.
pub fn load_recorded(
    recorded: &Recorded<'_>,
    root: &Path,
    kinds: &'static [StageKind],
) -> Result<Pipeline, PipelineErrors> {
    let suggestions = Suggestions::default();
    let document = Node::from_json(recorded.resolved);
    let text = Text::file(recorded.title.into(), format!("{:#}", recorded.resolved));
    let layers = vec![Layer { text, written: Written::Document }];
    let places = Places { layers, ..Places::default() };
    let laid = Laid { written: &stage_names(&document), added: Vec::new() };
    let used = Used::default();
    let looks = Looks { root, is_thorough: false };
    let checked = check(&document, Vec::new(), &used, Vec::new(), &laid, &looks, kinds, &suggestions);
    let checked = checked.and_then(|known| known.complete(false, &used));
    let Known { checked: Checked { seed, stages, .. }, notes, missing } =
        checked.map_err(|(found, outside)| {
            let (problems, total) = locate(found, &places);
            let outside = Some((root.to_path_buf(), outside));
            PipelineErrors { file: recorded.title.into(), problems, total, outside, profiles: Box::default() }
        })?;
    Ok(Pipeline {
        file: recorded.file.to_path_buf(),
        root: root.to_path_buf(),
        name: recorded.name.to_owned(),
        seed,
        profiles: recorded.profiles.to_vec(),
        declared_profiles: Vec::new(),
        sets: recorded.sets.to_vec(),
        told: None,
        stages,
        resolved: recorded.resolved.clone(),
        notes: locate(notes, &places).0,
        lacking: lacking(missing, &places),
        places,
    })
}

/// What is to be known of a checked pipeline.
struct Known {
    checked: Checked,
    notes: Vec<Finding>,
    /// What its stages take from outside and is not there, in the order of the stages.
    missing: Vec<(String, Vec<Finding>)>,
}

/// All that is wrong, and what the stages would take from outside.
type Wrong = (Vec<Finding>, BTreeSet<Source>);

impl Known {
    /// The same, unless files are missing that may not.
    fn complete(self, may_lack_files: bool, used: &Used) -> Result<Self, Wrong> {
        if may_lack_files || self.missing.is_empty() {
            return Ok(self);
        }
        let mut findings: Vec<Finding> = self.missing.into_iter().flat_map(|(_, found)| found).collect();
        name_variables(&mut findings, used);
        Err((findings, outside_of(&self.checked)))
    }
}

fn outside_of(checked: &Checked) -> BTreeSet<Source> {
    checked.stages.values().flat_map(StageSpec::outside).cloned().collect()
}

/// What is missing, stage by stage.
fn lacking(missing: Vec<(String, Vec<Finding>)>, places: &Places) -> Vec<(String, Problem)> {
    let of_stage = |(stage, found)| {
        let problems = locate(found, places).0;
        problems.into_iter().map(move |problem| (String::clone(&stage), problem))
    };
    missing.into_iter().flat_map(of_stage).collect()
}

/// Where files from outside are looked for, and how closely.
struct Looks<'a> {
    root: &'a Path,
    is_thorough: bool,
}

/// Checks a merged document, its variables put in, and the files that it takes from outside.
#[allow(clippy::too_many_arguments, reason = "each is a thing of its own")]
fn check(
    document: &Node,
    mut findings: Vec<Finding>,
    used: &Used,
    wrong: Vec<Finding>,
    laid: &Laid<'_>,
    looks: &Looks<'_>,
    kinds: &'static [StageKind],
    suggestions: &Suggestions,
) -> Result<Known, Wrong> {
    let mut checker = Checker { kinds, suggestions, written: laid.written, findings: Vec::new() };
    let checked = checker.document(document);
    let failed: Vec<&Finding> = findings.iter().chain(&wrong).collect();
    let more = without_echoes(checker.findings, &failed, used);
    findings.extend(more);
    findings.extend(wrong);
    let (mut notes, mut missing) = (Vec::new(), Vec::new());
    for stage in checked.stages.values() {
        let (wrong, noted) = outside::look(looks.root, stage, looks.is_thorough, suggestions);
        let (lacking, wrong): (Vec<_>, Vec<_>) =
            wrong.into_iter().partition(|found| found.code == outside::MISSING);
        findings.extend(wrong);
        missing.extend((!lacking.is_empty()).then(|| (stage.name.clone(), lacking)));
        notes.extend(noted);
        let (unknown, unused) = unused::look(stage, &laid.added, suggestions);
        findings.extend(unknown);
        notes.extend(unused);
    }
    if findings.is_empty() {
        return Ok(Known { checked, notes, missing });
    }
    findings.extend(missing.into_iter().flat_map(|(_, found)| found));
    name_variables(&mut findings, used);
    Err((findings, outside_of(&checked)))
}

/// What was laid over a file, as far as messages have to know.
struct Laid<'a> {
    /// The stages of the file itself.
    written: &'a HashSet<String>,
    added: Added<'a>,
}

fn stage_names(document: &Node) -> HashSet<String> {
    let stages = document.get("stages").and_then(Node::as_map);
    stages.into_iter().flat_map(IndexMap::keys).cloned().collect()
}

fn resolved(document: &Node) -> Value {
    let mut value = document.to_json();
    if let Value::Object(map) = &mut value {
        map.remove("profiles");
    }
    value
}

/// Reads the bytes of the file as text.
fn read(path: &Path, suggestions: &Suggestions) -> Result<Arc<Text>, Finding> {
    let unreadable = |err: &std::io::Error| {
        let found = Finding::new("unreadable_file", format!("cannot read `{}`: {err}", path.display()));
        if err.kind() == std::io::ErrorKind::NotFound {
            let found = Finding { message: format!("there is no file `{}`", path.display()), ..found };
            found.help(
                meant_file(path, suggestions).map(|meant| format!("did you mean `{}`?", meant.display())),
            )
        } else {
            found
        }
    };
    if path.to_str().is_none() {
        let message = format!("cannot use `{}`: its name is not text in UTF-8", path.display());
        return Err(Finding::new("bad_name", message).help("give it another name".to_owned()));
    }
    let bytes = bytes(path).map_err(|err| unreadable(&err))?;
    if bytes.len() as u64 > LARGEST {
        let message = format!("`{}` is larger than 16 MiB, too large for a pipeline", path.display());
        return Err(Finding::new("too_large", message));
    }
    let text = String::from_utf8(bytes).map_err(|err| {
        let at = err.utf8_error().valid_up_to();
        let shown = visible(&String::from_utf8_lossy(err.as_bytes()));
        let shown = Text::file(path.to_path_buf(), shown);
        let range = at..at + char::REPLACEMENT_CHARACTER.len_utf8();
        Finding::new("not_text", format!("`{}` is not a text file in UTF-8", path.display())).bytes(
            &shown,
            range,
            Some("the first byte that is not UTF-8"),
        )
    })?;
    let text = text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned);
    if let Some(at) = text.find(is_refused) {
        let found = Finding::new(
            "not_text",
            format!("`{}` holds control characters, so it is not YAML", path.display()),
        );
        let end = at + text[at..].chars().next().map_or(0, char::len_utf8);
        let label = format!("the first is U+{:04X}", text[at..].chars().next().map_or(0, u32::from));
        let shown = Text::file(path.to_path_buf(), visible(&text));
        return Err(found.bytes(&shown, at..end, Some(&label)));
    }
    let text = Text::file(path.to_path_buf(), text);
    // Readers of YAML disagree on what it means there, and nobody sees it.
    if let Some(at) = text.content.find('\u{feff}') {
        let found = Finding::new("hidden_character", "the invisible character U+FEFF stands inside the file");
        let help = "remove it; in a text in double quotes it is written `\\uFEFF`".to_owned();
        return Err(found.bytes(&text, at..at + '\u{feff}'.len_utf8(), Some("here")).help(help));
    }
    Ok(text)
}

/// The bytes of the file, as far as a pipeline may be long and one more.
fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut piped = PIPED.lock().expect("nothing panics while it is locked");
    if let Some(bytes) = piped.get(path) {
        return Ok(bytes.clone());
    }
    let file = File::open(path)?;
    let is_pipe = file.metadata()?.file_type().is_fifo();
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if is_pipe {
        piped.insert(path.to_owned(), bytes.clone());
    }
    Ok(bytes)
}

/// Whether YAML refuses this character.
fn is_refused(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{85}')
}

/// `text` with something visible, of as many bytes, in place of control characters.
fn visible(text: &str) -> String {
    let seen = |c: char| match c.len_utf8() {
        _ if !is_refused(c) => c,
        1 => '?',
        _ => '¿',
    };
    text.chars().map(seen).collect()
}

/// The file that was probably meant by one that does not exist.
fn meant_file(path: &Path, suggestions: &Suggestions) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let with_ending =
        [path.with_file_name(format!("{name}.yaml")), path.with_file_name(format!("{name}.yml"))];
    let below = [Path::new("pipelines").join(name), Path::new("pipelines").join(format!("{name}.yaml"))];
    let exact = with_ending.into_iter().chain(below).find(|path| path.is_file());
    exact.or_else(|| outside::near_file(path, suggestions).map(|near| path.with_file_name(near)))
}

/// The names of the profiles; reports those that are not overlays.
fn profiles(document: &Node, suggestions: &Suggestions, findings: &mut Vec<Finding>) -> Vec<String> {
    let none = IndexMap::new();
    let profiles = match document.get("profiles") {
        None | Some(Node::Null) => &none,
        Some(Node::Map(profiles)) => profiles,
        Some(other) => {
            let message = format!("`profiles` must be a map of names and overlays, not {}", other.describe());
            findings.push(Finding::new("wrong_type", message).at(Spot::value(&["profiles"])));
            &none
        }
    };
    let stages_of = |node: &Node| -> Vec<String> {
        let stages = node.get("stages").and_then(Node::as_map);
        stages.into_iter().flat_map(IndexMap::keys).cloned().collect()
    };
    let known: HashSet<String> = [document]
        .into_iter()
        .chain(profiles.values())
        .flat_map(|node| {
            let stages = node.get("stages").and_then(Node::as_map);
            let named = stages.into_iter().flatten().filter(|(_, stage)| **stage != Node::Null);
            named.map(|(name, _)| name.clone()).collect::<Vec<_>>()
        })
        .collect();
    for (name, over) in profiles {
        if name.contains(char::is_control) {
            let message = "the name of a profile is one line without control characters";
            findings.push(Finding::new("bad_name", message).at(Spot::key(&["profiles", name])));
        }
        let spot = Spot::value(&["profiles", name]);
        let Some(map) = over.as_map() else {
            if *over != Node::Null {
                let message =
                    format!("profile `{name}` must be a map like the pipeline's, not {}", over.describe());
                findings.push(Finding::new("wrong_type", message).at(spot));
            }
            continue;
        };
        for field in map.keys().filter(|field| !PROFILE_FIELDS.contains(&field.as_str())) {
            let help = suggestions.help(field, "it can hold", PROFILE_FIELDS);
            let spot = Spot::key(&["profiles", name, field]);
            let message = format!("a profile has no field `{field}`");
            findings.push(Finding::new("unknown_field", message).at(spot).help(help));
        }
        let set = over.get("vars").and_then(Node::as_map).into_iter().flat_map(IndexMap::keys);
        for variable in set.filter(|variable| !is_variable(document, variable)) {
            let message =
                format!("profile `{name}` sets variable `{variable}`, which the pipeline does not have");
            let known = document.get("vars").and_then(Node::as_map).into_iter().flat_map(IndexMap::keys);
            let help = suggestions.help(variable, "variables are", known.map(String::as_str));
            let spot = Spot::key(&["profiles", name, "vars", variable]);
            findings.push(Finding::new("unknown_variable", message).at(spot).help(help));
        }
        for stage in stages_of(over).iter().filter(|stage| !known.contains(*stage)) {
            let message = format!("profile `{name}` removes stage `{stage}`, which does not exist");
            let help = suggestions.nearest(stage, known.iter().map(String::as_str));
            let spot = Spot { part: Part::Key, ..Spot::key(&["profiles", name, "stages", stage]) };
            let found = Finding::new("unknown_stage", message).at(spot);
            findings.push(found.help(help.map(|near| format!("did you mean `{near}`?"))));
        }
    }
    profiles.keys().cloned().collect()
}

/// Whether the file declares the variable `name`, or speaks of it anywhere: a profile may bring both.
fn is_variable(document: &Node, name: &str) -> bool {
    fn speaks_of(node: &Node, variable: &str) -> bool {
        match node {
            Node::Text(text) => text.contains(variable),
            Node::List(items) => items.iter().any(|item| speaks_of(item, variable)),
            Node::Map(map) => map.values().any(|value| speaks_of(value, variable)),
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::Unfit(_) => false,
        }
    }
    let declared = document.get("vars").and_then(Node::as_map).is_some_and(|vars| vars.contains_key(name));
    declared || speaks_of(document, &format!("vars.{name}}}"))
}

/// Leaves out what follows from a value that is wrong already, or from a variable that is or could not be
/// put in.
fn without_echoes(mut findings: Vec<Finding>, wrong: &[&Finding], used: &Used) -> Vec<Finding> {
    let path_of = |found: &Finding| match found.at.first() {
        Some((At::Spot(spot), _)) => Some(spot.path.clone()),
        _ => None,
    };
    let failed: Vec<Vec<String>> = wrong.iter().filter_map(|found| path_of(found)).collect();
    if !failed.is_empty() {
        let follows = |path: &Vec<String>| {
            let variables = used.get(path).map(|filled| filled.names.as_slice()).unwrap_or_default();
            let is_of = |failed: &[String]| matches!(failed, [vars, name] if vars == "vars" && variables.contains(name));
            failed.iter().any(|failed| path.starts_with(failed) || is_of(failed))
        };
        findings.retain(|found| !path_of(found).is_some_and(|path| follows(&path)));
    }
    findings
}

/// Where a wrong value came out of a variable, shows the variable too.
fn name_variables(findings: &mut [Finding], used: &Used) {
    for found in findings {
        if let Some((At::Spot(spot), _)) = found.at.first()
            && spot.part == Part::Value
            && found.code != "unknown_variable"
            && let Some(filled) = used.get(&spot.path)
        {
            for variable in &filled.names {
                let spot = Spot::value(&["vars", variable]);
                found.at.push((At::Spot(spot), Some(format!("the value of `{variable}` is written here"))));
            }
        }
    }
}
