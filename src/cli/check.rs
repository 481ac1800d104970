//! `pipe check`: is the file right?

use std::{collections::BTreeSet, fmt::Write, process::ExitCode};

use clap::Args;
use serde_json::{Value, json};

use super::{Failure, Globals, PipelineArgs, units::counted};
use crate::pipeline::{LoadOptions, Pipeline, PipelineErrors, Problem, load};

/// Check a pipeline file without running anything
///
/// Everything that is wrong is shown at once, with its place and, where one is near, a
/// suggestion. Without --profile, every profile of the file is checked as well, each alone;
/// outside files that only a profile lacks are mentioned, not refused.
///
/// The exit code is 0 if nothing is wrong and 2 if something is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe check pipelines/all_three.yaml
  pipe check pipelines/all_three.yaml --profile demo --set lora.rank=16
  pipe check pipelines/all_three.yaml --json | jq '.problems[].message'")]
pub(super) struct Check {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Print the result as JSON on standard output
    #[arg(long)]
    json: bool,
}

impl Check {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let options = self.pipeline.options(globals);
        let checked = load(&options, pipe_stages::kinds()).and_then(|pipeline| {
            let lacking = profiles(&options, &pipeline)?;
            Ok((pipeline, lacking))
        });
        if self.json {
            let (value, code) = match &checked {
                Ok((pipeline, lacking)) => (pipeline_json(pipeline, lacking), ExitCode::SUCCESS),
                Err(errors) => (errors_json(errors), ExitCode::from(2)),
            };
            globals.print(format_args!("{value:#}\n"))?;
            return Ok(code);
        }
        let (pipeline, lacking) = checked?;
        globals.print(summary(&pipeline))?;
        for note in &pipeline.notes {
            globals.say(format_args!("note: {}{}", place(note), note.message));
        }
        for (profile, problem) in &lacking {
            globals.say(format_args!("note: {}profile `{profile}`: {}", place(problem), problem.message));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Checks every profile alone, unless one was chosen; returns the outside files that they lack.
fn profiles(options: &LoadOptions, pipeline: &Pipeline) -> Result<Vec<(String, Problem)>, PipelineErrors> {
    let mut wrong = Vec::new();
    let mut lacking = Vec::new();
    let mut seen = BTreeSet::new();
    let chosen = !options.profiles.is_empty();
    for profile in pipeline.declared_profiles.iter().filter(|_| !chosen) {
        let alone = LoadOptions { profiles: vec![profile.clone()], ..options.clone() };
        let Err(errors) = load(&alone, pipe_stages::kinds()) else { continue };
        for mut problem in errors.problems {
            let place = problem.places.first().map(|(place, _)| place.to_string());
            if !seen.insert((problem.message.clone(), place)) {
                continue;
            }
            if problem.code == "missing_file" {
                lacking.push((profile.clone(), problem));
            } else {
                problem.message = format!("with profile `{profile}`: {}", problem.message);
                wrong.push(problem);
            }
        }
    }
    if wrong.is_empty() {
        Ok(lacking)
    } else {
        Err(PipelineErrors { file: options.file.clone(), total: wrong.len(), problems: wrong, outside: None })
    }
}

fn summary(pipeline: &Pipeline) -> String {
    let mut line = format!("{}: {}", pipeline.file.display(), counted(pipeline.stages.len(), "stage"));
    if pipeline.profiles.is_empty() {
        if !pipeline.declared_profiles.is_empty() {
            let count = counted(pipeline.declared_profiles.len(), "profile");
            let _ = write!(line, ", {count} ({})", pipeline.declared_profiles.join(", "));
        }
    } else {
        let what = if pipeline.profiles.len() == 1 { "profile" } else { "profiles" };
        let _ = write!(line, " with {what} {}", pipeline.profiles.join(", "));
    }
    line + ", no problems\n"
}

fn place(problem: &Problem) -> String {
    problem.places.first().map(|(place, _)| format!("{place}: ")).unwrap_or_default()
}

fn pipeline_json(pipeline: &Pipeline, lacking: &[(String, Problem)]) -> Value {
    let lacking = lacking.iter().map(|(profile, problem)| {
        let mut value = problem_json(problem);
        value["profile"] = json!(profile);
        value
    });
    json!({
        "file": pipeline.file,
        "name": pipeline.name,
        "stages": pipeline.stages.len(),
        "profiles": pipeline.declared_profiles,
        "problems": [],
        "notes": pipeline.notes.iter().map(problem_json).chain(lacking).collect::<Vec<_>>(),
    })
}

fn errors_json(errors: &PipelineErrors) -> Value {
    json!({
        "file": errors.file,
        "problems": errors.problems.iter().map(problem_json).collect::<Vec<_>>(),
    })
}

fn problem_json(problem: &Problem) -> Value {
    let places = problem.places.iter().map(|(place, label)| {
        json!({ "source": place.source, "line": place.line, "column": place.column, "label": label })
    });
    json!({
        "code": problem.code,
        "message": problem.message,
        "help": problem.help,
        "places": places.collect::<Vec<_>>(),
    })
}
