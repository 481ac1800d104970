//! `pipe check`: is the file right?

use std::{collections::BTreeSet, fmt::Write, process::ExitCode};

use clap::Args;
use serde_json::{Value, json};

use super::{
    Failure, Globals, PipelineArgs,
    report::{fitted, fitted_talk},
    units::counted,
};
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
        let checked = check(&options);
        if self.json {
            let (value, code) = match &checked {
                Ok((pipeline, lacking)) => (pipeline_json(pipeline, lacking), ExitCode::SUCCESS),
                Err(errors) => (errors_json(errors), ExitCode::from(2)),
            };
            globals.print(format_args!("{value:#}\n"))?;
            return Ok(code);
        }
        let (pipeline, lacking) = checked?;
        globals.print(fitted(&summary(&pipeline), "  ") + "\n")?;
        for note in &pipeline.notes {
            globals.say(fitted_talk(&format!("note: {}{}", place(note), note.message), "  "));
        }
        for (profile, problem) in &lacking {
            let note = format!("note: {}profile `{profile}`: {}", place(problem), problem.message);
            globals.say(fitted_talk(&note, "  "));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Checks the pipeline, and every profile alone unless one was chosen; returns the outside files that they
/// lack.
fn check(options: &LoadOptions) -> Result<(Pipeline, Vec<(String, Problem)>), PipelineErrors> {
    let options = &LoadOptions { looks_into_folders: true, ..options.clone() };
    let checked = load(options, pipe_stages::kinds());
    let (mut wrong, declared, total) = match &checked {
        Ok(pipeline) => (Vec::new(), pipeline.declared_profiles.as_slice(), 0),
        Err(errors) => (errors.problems.clone(), &*errors.profiles, errors.total),
    };
    let known = wrong.len();
    let place = |problem: &Problem| problem.places.first().map(|(place, _)| place.to_string());
    let mut lacking = Vec::new();
    // What is wrong without a profile is wrong with it, and told once.
    let mut seen: BTreeSet<(String, Option<String>)> =
        wrong.iter().map(|problem| (problem.message.clone(), place(problem))).collect();
    let is_cut = total > known;
    for profile in declared.iter().filter(|_| options.profiles.is_empty() && !is_cut) {
        let alone = LoadOptions { profiles: vec![profile.clone()], ..options.clone() };
        let Err(errors) = load(&alone, pipe_stages::kinds()) else { continue };
        for mut problem in errors.problems {
            if !seen.insert((problem.message.clone(), place(&problem))) {
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
    let more = wrong.len() - known;
    match checked {
        Ok(pipeline) if more == 0 => Ok((pipeline, lacking)),
        Ok(_) => Err(PipelineErrors {
            file: options.file.clone(),
            total: more,
            problems: wrong,
            outside: None,
            profiles: Box::default(),
        }),
        Err(errors) => Err(PipelineErrors { total: total + more, problems: wrong, ..errors }),
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
    line + ", no problems"
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
        "file": errors.file.display().to_string(),
        "name": null,
        "stages": null,
        "profiles": errors.profiles,
        "notes": [],
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
