//! Which stages a run is about.

use std::collections::BTreeSet;

use miette::Diagnostic;
use thiserror::Error;

use crate::{
    meant::{self, meant},
    pipeline::Pipeline,
};

/// What was asked for, as patterns of stages' names; each sort is a union, and what lies in
/// every sort that is given is selected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Exactly these.
    pub only: Vec<String>,
    /// These and all that takes from them, directly or not.
    pub from: Vec<String>,
    /// These and all that they need, directly or not.
    pub until: Vec<String>,
}

/// A selection that selects nothing.
#[derive(Debug, Error, Diagnostic)]
pub enum SelectionError {
    /// The text is no pattern.
    #[error("`{option} {pattern}` is not a pattern")]
    Malformed {
        /// The option that it was given with.
        option: &'static str,
        /// The text.
        pattern: String,
        /// What is wrong with it.
        #[source]
        source: globset::Error,
    },
    /// No stage has this name or is matched by this pattern.
    #[error("`{option} {pattern}`: `{file}` has no such stage")]
    NoMatch {
        /// The option that it was given with.
        option: &'static str,
        /// The name or pattern.
        pattern: String,
        /// The pipeline file.
        file: String,
        /// The nearest name.
        #[help]
        help: Option<String>,
    },
    /// What shall run although it has a result is not selected.
    #[error("`--force={pattern}` names no stage that is selected")]
    ForcedOutside {
        /// The name or pattern.
        pattern: String,
        /// How to select it.
        #[help]
        help: String,
    },
    /// Each option has stages, but they have none in common.
    #[error("no stage lies in {} at once", options.join(" and "))]
    Disjoint {
        /// The options.
        options: Vec<&'static str>,
    },
}

impl Selection {
    /// The stages that the names and patterns of `--force` mean; each must mean at least one that is selected.
    pub fn forced(
        &self,
        pipeline: &Pipeline,
        patterns: &[String],
    ) -> Result<BTreeSet<String>, SelectionError> {
        let selected = self.of(pipeline)?;
        let mut forced = BTreeSet::new();
        for pattern in patterns {
            let found = matching(pipeline, "--force", std::slice::from_ref(pattern))?;
            if selected.as_ref().is_some_and(|selected| selected.is_disjoint(&found)) {
                let sorts = [("--only", &self.only), ("--from", &self.from), ("--until", &self.until)];
                let mut given = sorts.iter().filter(|(_, patterns)| !patterns.is_empty());
                let help = match (given.next(), given.next()) {
                    (Some((option, _)), None) => {
                        format!("add `{option} {pattern}`, or leave `--force={pattern}` out")
                    }
                    _ => format!("select it as well, or leave `--force={pattern}` out"),
                };
                return Err(SelectionError::ForcedOutside { pattern: pattern.clone(), help });
            }
            forced.extend(found);
        }
        Ok(forced)
    }

    /// The names of the selected stages; `None` for the whole pipeline.
    pub fn of(&self, pipeline: &Pipeline) -> Result<Option<BTreeSet<String>>, SelectionError> {
        let dag = pipeline.dag();
        let named = |option, patterns: &[String]| matching(pipeline, option, patterns);
        let owned = |stages: Vec<&str>| stages.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
        let mut sorts = Vec::new();
        if !self.only.is_empty() {
            sorts.push(("--only", named("--only", &self.only)?));
        }
        if !self.from.is_empty() {
            let from = named("--from", &self.from)?;
            sorts.push(("--from", owned(dag.dependents(from.iter().map(String::as_str)))));
        }
        if !self.until.is_empty() {
            let until = named("--until", &self.until)?;
            sorts.push(("--until", owned(dag.closure(until.iter().map(String::as_str)))));
        }
        let options = sorts.iter().map(|(option, _)| *option).collect();
        let common = sorts.into_iter().map(|(_, stages)| stages).reduce(|a, b| &a & &b);
        match common {
            Some(stages) if stages.is_empty() => Err(SelectionError::Disjoint { options }),
            common => Ok(common),
        }
    }
}

/// The stages that the names and patterns given with `option` mean; each must mean at least one.
fn matching(
    pipeline: &Pipeline,
    option: &'static str,
    patterns: &[String],
) -> Result<BTreeSet<String>, SelectionError> {
    let mut found = BTreeSet::new();
    for pattern in patterns {
        let names = pipeline.stages.keys().map(String::as_str);
        let matched = meant(pattern, names.clone()).map_err(|source| {
            let pattern = pattern.clone();
            SelectionError::Malformed { option, pattern, source }
        })?;
        if matched.is_empty() {
            return Err(SelectionError::NoMatch {
                option,
                pattern: pattern.clone(),
                file: pipeline.file.display().to_string(),
                help: meant::help(pattern, "its stages are", names),
            });
        }
        found.extend(matched.into_iter().map(str::to_owned));
    }
    Ok(found)
}
