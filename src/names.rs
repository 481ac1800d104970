//! Names that a person types: runs, and places in a pipeline file.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The number of a run, written `run_12`; never given twice in one `runs.db`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(pub i64);

/// A text that is not like `run_12`.
#[derive(Debug, Error)]
#[error("a run is written like `run_12`, not `{0}`")]
pub struct NotARunId(String);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("run_{}", self.0))
    }
}

impl FromStr for RunId {
    type Err = NotARunId;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.strip_prefix("run_").and_then(|digits| digits.parse().ok());
        number.filter(|number| *number > 0).map(RunId).ok_or_else(|| NotARunId(text.into()))
    }
}

impl TryFrom<String> for RunId {
    type Error = NotARunId;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(run: RunId) -> String {
        run.to_string()
    }
}

/// Where something was written: `pipelines/all_three.yaml:12:5`, or `--set lora.rank=16`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The file as the person named it, or the option on the command line.
    pub source: PathBuf,
    /// Line from 1; 0 for an option on the command line.
    pub line: usize,
    /// Column from 1, in characters; 0 for an option on the command line.
    pub column: usize,
    /// The variables of the pipeline that a value came by: it is written there if it is that of a variable,
    /// else the text that they were put into.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.source.display())?,
            _ => write!(f, "{}:{}:{}", self.source.display(), self.line, self.column)?,
        }
        let option = self.source.to_string_lossy();
        // `--set vars.n=3` names it.
        let named = |name: &&String| self.line > 0 || !option.starts_with(&format!("--set vars.{name}="));
        self.variables.iter().filter(named).try_for_each(|name| write!(f, ", vars.{name}"))
    }
}
