//! Reads a pipeline file and carries it through all steps to a [`Pipeline`].

use std::{
    collections::{BTreeSet, HashSet},
    path::{Path, PathBuf},
};

use indexmap::IndexMap;
use pipe_stages::contract::StageKind;
use serde_json::Value;

use super::{
    LoadOptions, Pipeline, Recorded, Source, StageSpec,
    check::{Checked, Checker},
    commands::{self, Added},
    document::{self, Node},
    file, matrix, outside, overlay,
    places::{Layer, Part, Places, Spot, Text, Written},
    problem::{At, Finding, PipelineErrors, Problem, locate},
    profiles,
    suggest::Suggestions,
    variables::{self, Given, Scopes, Used},
};
use crate::{
    digest::Digest,
    root::{project_root, relative_to_root},
};

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

/// Reads what `options` name; `None` where that cannot be done: [`load`] says why.
pub fn told(options: &LoadOptions) -> Option<Told> {
    let text = file::read(&options.file, &Suggestions::default()).ok()?;
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
    let text = file::read(&options.file, &suggestions).map_err(|found| fail(vec![found], &nowhere))?;
    let root = project_root(options.root.as_deref(), Some(&options.file)).map_err(|err| {
        let root = options.root.as_deref().unwrap_or(Path::new("."));
        let message = format!("cannot use `{}` as the project root: {err}", root.display());
        fail(vec![Finding::new("bad_root", message)], &nowhere)
    })?;
    let (mut document, mut findings) = document::read(&text).map_err(|found| fail(vec![found], &nowhere))?;
    let layers = vec![Layer { text: text.clone(), written: Written::Document }];
    let mut places = Places { layers, ..Places::default() };
    if document.as_map().is_none() {
        return Err(fail(vec![no_map(&document).bytes(&text, 0..0, None)], &places));
    }

    let written = stage_names(&document);
    let declared = profiles::declared(&document, &suggestions, &mut findings);
    for name in &options.profiles {
        match profile(&document, name) {
            Some(over) => {
                places.layers.push(Layer { text: text.clone(), written: Written::Profile(name.clone()) });
                if over.as_map().is_some() {
                    overlay::lay(&mut document, over);
                }
            }
            None => findings.push(unknown_profile(name, &declared, &suggestions)),
        }
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

    let scopes = instances(&mut document, &suggestions).map_err(|found| {
        // A field that is misspelt may be the reason.
        let mut checker =
            Checker { kinds, suggestions: &suggestions, written: &written, findings: Vec::new() };
        checker.fields_of_stages(&document);
        let is_echo = |found: &Finding| found.code == matrix::UNKNOWN_AXIS && !checker.findings.is_empty();
        let found: Vec<Finding> = found.into_iter().filter(|found| !is_echo(found)).collect();
        fail(findings.iter().cloned().chain(found).chain(checker.findings).collect(), &places)
    })?;
    places.has_instances = true;
    let (used, wrong) = variables::substitute(&mut document, Some(&scopes), &suggestions);
    let added = added.into_iter().map(|(path, layer)| (path, &places.layers[layer])).collect();
    let laid = Laid { written: &written, added };
    let looks = Looks { root: &root, is_thorough: options.looks_into_folders };
    let checked = check(&document, findings, &used, wrong, &laid, &looks, kinds, &suggestions);
    let checked = checked.and_then(|known| known.complete(options.may_lack_files, &used));
    let Known { checked: Checked { name, seed, stages }, notes, missing } =
        checked.map_err(|(found, outside)| {
            let outside = Some((root.clone(), outside));
            let places = Places { used: used.clone(), ..places.clone() };
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

/// Puts instances in the place of stages with a matrix, and returns what its axes mean in each.
fn instances(document: &mut Node, suggestions: &Suggestions) -> Result<Scopes, Vec<Finding>> {
    let mut findings = matrix::written_names(document);
    if matrix::is_needed(document) && findings.is_empty() {
        let mut filled = document.clone();
        let (_, wrong) = variables::substitute(&mut filled, None, suggestions);
        let is_of_matrix =
            |found: &Finding| path_of(found).is_some_and(|path| path.get(2).is_some_and(|it| it == "matrix"));
        findings.extend(wrong.into_iter().filter(is_of_matrix));
        if findings.is_empty() {
            return Ok(matrix::plan(&filled, suggestions)?.carry_out(document, &filled));
        }
    }
    if findings.is_empty() { Ok(Scopes::new()) } else { Err(findings) }
}

/// What is wrong with a file that is no map.
fn no_map(document: &Node) -> Finding {
    match document {
        Node::Null => Finding::new("empty_file", "the file is empty")
            .help("a pipeline has `stages`; `pipe stages` lists what they can be".to_owned()),
        other => {
            let message = format!("a pipeline must be a map with `stages`, not {}", other.describe());
            Finding::new("not_a_map", message)
        }
    }
}

/// What the profile `name` lays over `document`: the fields that it may have, others are told of where it is
/// written.
fn profile(document: &Node, name: &str) -> Option<Node> {
    let mut over = document.get("profiles").and_then(|profiles| profiles.get(name)).cloned()?;
    if let Node::Map(fields) = &mut over {
        fields.retain(|field, _| profiles::FIELDS.contains(&field.as_str()));
    }
    Some(over)
}

fn unknown_profile(name: &str, declared: &[String], suggestions: &Suggestions) -> Finding {
    let option = Text::option("--profile", name);
    let message = format!("the pipeline has no profile `{name}`");
    let help = suggestions.help(name, "profiles are", declared.iter().map(String::as_str));
    let help = help.or_else(|| Some("the pipeline declares no `profiles`".to_owned()));
    Finding::new("unknown_profile", message).help(help).bytes(&option, 0..name.len(), None)
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
        let (unknown, unused) = commands::look(stage, &laid.added, suggestions);
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

/// Leaves out what follows from a value that is wrong already, or from a variable that is or could not be
/// put in.
fn without_echoes(mut findings: Vec<Finding>, wrong: &[&Finding], used: &Used) -> Vec<Finding> {
    let failed: HashSet<&[String]> = wrong.iter().filter_map(|found| path_of(found)).collect();
    if failed.is_empty() {
        return findings;
    }
    let has_failed = |given: &Given| failed.contains(given.path.as_slice());
    findings.retain(|found| {
        let Some(path) = path_of(found) else { return true };
        let values = used.get(path).map(|filled| filled.values.as_slice()).unwrap_or_default();
        let is_echo = (0..=path.len()).any(|length| failed.contains(&path[..length]));
        !is_echo && !values.iter().any(has_failed)
    });
    findings
}

/// The path of the value that is wrong, if that is one of the document.
fn path_of(found: &Finding) -> Option<&[String]> {
    match found.at.first() {
        Some((At::Spot(spot) | At::Part(spot, _), _)) => Some(&spot.path),
        _ => None,
    }
}

/// Where a wrong value came out of a variable, shows the variable too.
fn name_variables(findings: &mut [Finding], used: &Used) {
    for found in findings {
        if let Some((At::Spot(spot), _)) = found.at.first()
            && spot.part == Part::Value
            && !matches!(found.code, "unknown_variable" | matrix::UNKNOWN_AXIS)
            && let Some(filled) = used.get(&spot.path)
        {
            for Given { name, path, .. } in &filled.values {
                let label = format!("the value of `{name}` is written here");
                found.at.push((At::Spot(Spot::of_value(path)), Some(label)));
            }
        }
    }
}
