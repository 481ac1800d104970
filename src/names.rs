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

/// A stage's name, taken apart: `lora[rank=8,seed=1]` is `lora` where `rank` is 8 and `seed` is 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance<'a> {
    /// What the pipeline file calls the stage.
    pub stage: &'a str,
    /// Its place on each axis of its `matrix`, in order; none for a stage without one.
    pub at: Vec<(&'a str, &'a str)>,
}

impl<'a> Instance<'a> {
    /// Takes `name` apart; `None` for a text with brackets that no stage is called like.
    pub fn parse(name: &'a str) -> Option<Self> {
        let Some((stage, rest)) = name.split_once('[') else {
            return Some(Self { stage: name, at: Vec::new() });
        };
        let axes = rest.strip_suffix(']')?.split(',');
        let at = axes.map(|axis| axis.split_once('=')).collect::<Option<Vec<_>>>()?;
        let is_plain = |text: &str| !text.is_empty() && !text.contains(['[', ']', '=']);
        at.iter().all(|(axis, value)| is_plain(axis) && is_plain(value)).then_some(Self { stage, at })
    }

    /// Where it is on `axis`.
    pub fn value(&self, axis: &str) -> Option<&'a str> {
        self.at.iter().find(|(known, _)| *known == axis).map(|(_, value)| *value)
    }
}

impl fmt::Display for Instance<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.stage)?;
        for (place, (axis, value)) in self.at.iter().enumerate() {
            write!(f, "{}{axis}={value}", if place == 0 { '[' } else { ',' })?;
        }
        if self.at.is_empty() { Ok(()) } else { f.write_str("]") }
    }
}

/// What the pipeline file calls the stage or input `name`: `lora[rank=8]` is one of `lora`.
pub fn base(name: &str) -> &str {
    name.split('[').next().unwrap_or(name)
}

/// The stage that a dotted path begins with, and the rest: `lora[lr=0.1].loss` is `loss` of `lora[lr=0.1]`.
pub fn split_stage(path: &str) -> (&str, Option<&str>) {
    let dot = path.find(outside_brackets('.'));
    dot.map_or((path, None), |dot| (&path[..dot], Some(&path[dot + 1..])))
}

/// Finds `wanted` in a text but for the brackets of stages' names.
pub fn outside_brackets(wanted: char) -> impl FnMut(char) -> bool {
    let mut is_open = false;
    move |letter| {
        match letter {
            '[' => is_open = true,
            ']' => is_open = false,
            _ => {}
        }
        letter == wanted && !is_open
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_apart_and_put_together() {
        for name in ["lora", "lora[rank=8]", "lora[lr=1e-05,seed=1]"] {
            assert_eq!(Instance::parse(name).unwrap().to_string(), name);
        }
        let of_two = Instance::parse("lora[lr=0.1,seed=1]").unwrap();
        assert_eq!((of_two.stage, of_two.value("seed"), of_two.value("rank")), ("lora", Some("1"), None));
        for other in
            ["lora[", "lora[]", "lora[rank]", "lora[rank=]", "lora[rank=8", "lora[rank=8]]", "a[b=c][d=e]"]
        {
            assert_eq!(Instance::parse(other), None, "{other}");
        }
    }

    #[test]
    fn dots_within_brackets_do_not_end_a_stage() {
        assert_eq!(split_stage("lora[lr=0.1].bin.8"), ("lora[lr=0.1]", Some("bin.8")));
        assert_eq!(split_stage("lora[lr=0.1]"), ("lora[lr=0.1]", None));
        assert_eq!(split_stage("lora.rank"), ("lora", Some("rank")));
        assert_eq!(split_stage("lora[lr=0.1"), ("lora[lr=0.1", None));
    }
}
