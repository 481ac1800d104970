//! Which stages a run is about.

use std::collections::BTreeSet;

use globset::{Glob, GlobMatcher};
use miette::Diagnostic;
use thiserror::Error;

use crate::{
    names::Instance,
    pipeline::{Pipeline, Suggestions},
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

/// A pattern of stages' names: `lora*`, or `lora[rank=8]` for those of a matrix where `rank` is 8, whatever
/// other axes say.
struct Wanted<'p> {
    stage: GlobMatcher,
    at: Vec<(&'p str, GlobMatcher)>,
}

impl<'p> Wanted<'p> {
    fn parse(pattern: &'p str) -> Result<Self, globset::Error> {
        let matcher = |text| Ok(Glob::new(text)?.compile_matcher());
        let Some(instance) = Instance::parse(pattern) else {
            return Ok(Self { stage: matcher(pattern)?, at: Vec::new() });
        };
        let at = instance.at.iter().map(|(axis, value)| Ok((*axis, matcher(value)?)));
        Ok(Self { stage: matcher(instance.stage)?, at: at.collect::<Result<_, globset::Error>>()? })
    }

    fn names(&self, stage: &str) -> bool {
        let Some(instance) = Instance::parse(stage) else { return false };
        let is_at = |(axis, wanted): &(&str, GlobMatcher)| {
            instance.value(axis).is_some_and(|value| wanted.is_match(value))
        };
        self.stage.is_match(instance.stage) && self.at.iter().all(is_at)
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
        // A name means itself, whatever its characters mean in a pattern.
        if pipeline.stages.contains_key(pattern) {
            found.insert(pattern.clone());
            continue;
        }
        let wanted = Wanted::parse(pattern).map_err(|source| {
            let pattern = pattern.clone();
            SelectionError::Malformed { option, pattern, source }
        })?;
        let mut matched = pipeline.stages.keys().filter(|name| wanted.names(name)).peekable();
        if matched.peek().is_none() {
            let names = pipeline.stages.keys().map(String::as_str);
            return Err(SelectionError::NoMatch {
                option,
                pattern: pattern.clone(),
                file: pipeline.file.display().to_string(),
                help: Suggestions::default().help(pattern, "its stages are", names),
            });
        }
        found.extend(matched.cloned());
    }
    Ok(found)
}
