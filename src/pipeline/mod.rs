//! From a YAML file to a checked [`Pipeline`] and its [`Dag`].
//!
//! ```text
//! text ─document─► Node ─overlay─► one Node ─matrix, variables─► values ─check, inputs─► Pipeline ─► Dag
//! ```
//!
//! Nothing here executes anything. Every problem of a file is reported at once; `places` finds
//! where each was written, and reads the text a second time only when someone asks.

mod check;
mod commands;
mod dag;
mod document;
mod expect;
mod file;
mod inputs;
mod load;
mod marks;
mod matrix;
mod outside;
mod overlay;
mod places;
mod problem;
mod profiles;
mod schema;
mod suggest;
mod syntax;
mod variables;
mod words;

pub use dag::{Cycle, Dag};
pub use load::{Told, load, load_recorded, told};
pub use places::Places;
pub use problem::{PipelineErrors, Problem};
pub use schema::schema;
pub use suggest::Suggestions;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use indexmap::IndexMap;
use pipe_stages::contract::{Ports, StageKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{attempts::Attempts, digest::Digest, resources::Resources};

/// What to load, as the command line says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// The pipeline file, relative to the working directory.
    pub file: PathBuf,
    /// Profiles to lay over it, first to last.
    pub profiles: Vec<String>,
    /// `PATH=VALUE` settings to lay over that, first to last.
    pub sets: Vec<String>,
    /// The project root, if the person named one.
    pub root: Option<PathBuf>,
    /// Whether files that stages take from outside may be missing: see [`Pipeline::lacking`].
    pub may_lack_files: bool,
    /// Whether to look at each entry of the folders that stages take, which may take long.
    pub looks_into_folders: bool,
}

/// A pipeline as a run has recorded it.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    /// What to call the record where something in it is wrong, such as `run_12`.
    pub title: &'a str,
    /// The pipeline file, relative to the root where it lay below it.
    pub file: &'a Path,
    /// Its name.
    pub name: &'a str,
    /// The profiles that were applied, in order.
    pub profiles: &'a [String],
    /// The `--set` that were applied, in order.
    pub sets: &'a [String],
    /// The document after all of that, as [`Pipeline::resolved`] had it.
    pub resolved: &'a Value,
}

/// A pipeline that can be run as written: profiles and settings applied, everything checked.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// The absolute folder that all paths in the file are relative to.
    pub root: PathBuf,
    /// The file, relative to the root where it lies below it.
    pub file: PathBuf,
    /// `name:`, or the file's name without its extension.
    pub name: String,
    /// `seed:`, or 0.
    pub seed: u64,
    /// The profiles that were applied, in order.
    pub profiles: Vec<String>,
    /// The profiles that the file declares, in its order.
    pub declared_profiles: Vec<String>,
    /// The `--set` that were applied, in order.
    pub sets: Vec<String>,
    /// The stages, in the order of the file.
    pub stages: IndexMap<String, StageSpec>,
    /// The hash of what the file and the options say, if it comes from a file: see [`Told`].
    pub told: Option<Digest>,
    /// The whole document after profiles, settings and variables, without `profiles`.
    pub resolved: Value,
    /// What is worth knowing though nothing is wrong with it.
    pub notes: Vec<Problem>,
    /// The files from outside that are missing, by stage; none unless they may be missing.
    pub lacking: Vec<(String, Problem)>,
    /// Where everything was written.
    pub places: Places,
}

/// One stage of a checked pipeline.
#[derive(Debug, Clone)]
pub struct StageSpec {
    /// The name that other stages refer to.
    pub name: String,
    /// Its kind.
    pub kind: &'static StageKind,
    /// All parameters, defaults filled in: a JSON object.
    pub params: Value,
    /// Those of them that decide the bytes written.
    pub hashed: Value,
    /// Inputs and outputs that follow from the parameters.
    pub ports: Ports,
    /// Where each input comes from.
    pub inputs: BTreeMap<String, Source>,
    /// The seed, for kinds that draw: the stage's own or else the pipeline's.
    pub seed: Option<u64>,
    /// What it may use.
    pub resources: Resources,
    /// How often and how long it may try.
    pub attempts: Attempts,
}

/// Where an input comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Source {
    /// What another stage wrote.
    Output {
        /// The stage that writes it.
        stage: String,
        /// The output's name.
        port: String,
    },
    /// A file, relative to the project root unless absolute.
    File(PathBuf),
    /// A folder, relative to the project root unless absolute.
    Dir(PathBuf),
    /// The files below the project root that match a pattern such as `reviews/*.jsonl`.
    Glob(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Output { stage, port } => write!(f, "{stage}.{port}"),
            Source::File(path) | Source::Dir(path) => write!(f, "{}", path.display()),
            Source::Glob(pattern) => f.write_str(pattern),
        }
    }
}

impl Source {
    /// The file, folder or pattern that an input of a resolved pipeline names; `None` for what a
    /// stage writes.
    pub fn outside(resolved: &Value, stage: &str, port: &str) -> Option<Self> {
        let written = resolved.get("stages")?.get(stage)?.get("in")?.get(port)?.as_object()?;
        let (what, path) = written.iter().next()?;
        let path = path.as_str()?;
        match what.as_str() {
            "file" => Some(Source::File(path.into())),
            "dir" => Some(Source::Dir(path.into())),
            "glob" => Some(Source::Glob(path.to_owned())),
            _ => None,
        }
    }
}

impl StageSpec {
    /// The inputs that no stage writes.
    pub fn outside(&self) -> impl Iterator<Item = &Source> {
        self.inputs.values().filter(|source| !matches!(source, Source::Output { .. }))
    }

    /// The names of the stages that it takes inputs from.
    pub fn upstream(&self) -> BTreeSet<&str> {
        let stages = self.inputs.values().filter_map(|source| match source {
            Source::Output { stage, .. } => Some(stage.as_str()),
            _ => None,
        });
        stages.collect()
    }
}

impl Pipeline {
    /// Refuses a pipeline of which one of `stages`, or one that they need, lacks files; `None` for all stages.
    pub fn has_files_for(&self, stages: Option<&BTreeSet<String>>) -> Result<(), PipelineErrors> {
        if self.lacking.is_empty() {
            return Ok(());
        }
        let dag = self.dag();
        let needed = stages.map(|stages| dag.closure(stages.iter().map(String::as_str)));
        let is_needed = |stage: &str| needed.as_ref().is_none_or(|needed| needed.contains(&stage));
        let lacking = self.lacking.iter().filter(|(stage, _)| is_needed(stage));
        let problems: Vec<Problem> = lacking.map(|(_, problem)| problem.clone()).collect();
        if problems.is_empty() {
            return Ok(());
        }
        let outside = self.stages.values().flat_map(StageSpec::outside).cloned().collect();
        Err(PipelineErrors {
            file: self.root.join(&self.file),
            total: problems.len(),
            problems,
            outside: Some((self.root.clone(), outside)),
            profiles: self.declared_profiles.clone().into(),
        })
    }

    /// The graph of its stages.
    pub fn dag(&self) -> Dag {
        let stages = self.stages.values().map(|stage| (stage.name.as_str(), stage.upstream()));
        Dag::new(stages).expect("a checked pipeline has no cycle")
    }
}
