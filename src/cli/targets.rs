//! The options that choose among the stages of a pipeline.

use std::{collections::BTreeSet, path::Path};

use clap::Args;

use super::{Failure, globals::root_words_for};
pub use crate::quoted::quoted;
use crate::{
    engine::{Force, Selection},
    pipeline::Pipeline,
};

/// Which stages a run is about; each option may be given more than once.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Which stages")]
pub struct Targets {
    /// Exactly these stages, by name, pattern such as `eval*`, or part of a matrix such as
    /// `train[rank=4]`; what they take from other stages must be in the cache
    #[arg(long, value_name = "STAGE")]
    only: Vec<String>,
    /// These stages and all that takes from them; with --until, what lies between
    #[arg(long, value_name = "STAGE")]
    from: Vec<String>,
    /// These stages and all they need
    #[arg(long, value_name = "STAGE")]
    until: Vec<String>,
    /// Run stages even if they have a result: all that are selected, or those of --force=STAGE
    #[arg(long, value_name = "STAGE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    force: Vec<String>,
}

impl Targets {
    /// Whether all stages are meant, and none is forced.
    pub fn are_all(&self) -> bool {
        [&self.only, &self.from, &self.until, &self.force].iter().all(|chosen| chosen.is_empty())
    }

    /// The names of the selected stages; `None` for the whole pipeline.
    pub fn selected(&self, pipeline: &Pipeline) -> Result<Option<BTreeSet<String>>, Failure> {
        Ok(self.selection().of(pipeline)?)
    }

    /// The stages to run even if they have a result.
    pub fn force(&self, pipeline: &Pipeline) -> Result<Force, Failure> {
        Ok(match self.force.as_slice() {
            [] => Force::None,
            patterns if patterns.iter().any(String::is_empty) => Force::All,
            patterns => Force::Stages(self.selection().forced(pipeline, patterns)?),
        })
    }

    /// What is told to one who writes `word` behind the pipeline file.
    pub fn without_option(&self, word: &str) -> Failure {
        let is_file = is_yaml(word);
        let word = quoted(word);
        let help = if is_file {
            "each file is a run of its own".to_owned()
        } else if self.force.iter().any(String::is_empty) {
            format!("write `--force={word}`: without `=` all that is selected is forced")
        } else {
            format!(
                "`--until {word}` runs it with all it needs, `--only {word}` it alone, `--force={word}` it even if it has a result"
            )
        };
        Failure::input(format!("`{word}` follows the pipeline file without an option")).help(help)
    }

    fn selection(&self) -> Selection {
        let Self { only, from, until, .. } = self.clone();
        Selection { only, from, until }
    }

    /// `--only`, `--from` and `--until` as words of a shell.
    pub fn selection_words(&self) -> Vec<String> {
        let all = [("--only", &self.only), ("--from", &self.from), ("--until", &self.until)];
        let words = |(option, stages): (&str, &Vec<String>)| -> Vec<String> {
            stages.iter().map(|stage| format!("{option} {}", quoted(stage))).collect()
        };
        all.into_iter().flat_map(words).collect()
    }

    /// `--force` as words of a shell.
    pub fn force_words(&self) -> Vec<String> {
        let word = |pattern: &String| match pattern.as_str() {
            "" => "--force".to_owned(),
            pattern => format!("--force={}", quoted(pattern)),
        };
        self.force.iter().map(word).collect()
    }
}

fn is_yaml(word: &str) -> bool {
    Path::new(word).extension().is_some_and(|ending| ending == "yaml" || ending == "yml")
}

/// The command that computes `stages` of `pipeline` with all they need.
pub fn command_until(pipeline: &Pipeline, stages: &[String]) -> String {
    let profiles = pipeline.profiles.iter().map(|name| format!(" -p {}", quoted(name)));
    let sets = pipeline.sets.iter().map(|set| format!(" -s {}", quoted(set)));
    let until = stages.iter().map(|stage| format!(" --until {}", quoted(stage)));
    let options: String = profiles.chain(sets).chain(until).collect();
    // The file is known by its place below the root, which need not be the working directory.
    let file = pipeline.root.join(&pipeline.file);
    let root = root_words_for(&pipeline.root, Some(&file)).map(|root| format!(" {root}"));
    let here = std::env::current_dir().and_then(|here| here.canonicalize()).unwrap_or_default();
    let file = quoted(&file.strip_prefix(here).unwrap_or(&file).display().to_string());
    format!("pipe run {file}{}{options}", root.unwrap_or_default())
}
