//! What is wrong with the parameters of a command.

use super::{Command, MetricsFiles, Params, outputs::Declared, parameter, placeholders};
use crate::{contract::ParamProblem, nearest};

/// Longest name of an output or a file of metrics, in bytes: a file system takes no more than 255.
const LONGEST_NAME: usize = 200;

/// Everything that the types of the parameters do not tell.
pub(super) fn check(params: &Params) -> Vec<ParamProblem> {
    let mut problems = Vec::new();
    if params.command.texts().iter().all(|text| text.trim().is_empty()) {
        problems.push(ParamProblem::new("command", "`command` is empty"));
    }
    let outputs = params.declared().enumerate();
    problems.extend(outputs.filter_map(|(at, output)| check_output(params, at, output)));
    problems.extend(check_variables("env", &params.env));
    problems.extend(check_variables("secrets", &params.secrets));
    for (at, name) in params.secrets.iter().enumerate().filter(|(_, name)| params.env.contains(name)) {
        let message = format!("`{name}` is a secret, but its value is recorded as `env` names it, too");
        problems.push(ParamProblem::new(&format!("secrets.{at}"), message).help("name it once"));
    }
    if params.pipefail && matches!(params.command, Command::Words(_)) {
        let message = "`pipefail` is about a line for the shell, and `command` is a list of words";
        problems.push(ParamProblem::new("pipefail", message));
    }
    problems.extend(check_metrics(params));
    if params.metrics_files().is_empty() && !params.better.is_empty() {
        let problem = ParamProblem::new("better", "`better` speaks of metrics, and none are read");
        problems.push(problem.help("name the file they are in: `metrics: metrics.json`"));
    }
    for (at, text) in params.command.texts().iter().enumerate() {
        let path = params.command.path(at);
        for (name, in_quotes) in placeholders(text) {
            problems.extend(check_placeholder(params, &path, name));
            if in_quotes && matches!(params.command, Command::Line(_)) {
                problems.push(in_quotes_problem(&path, text, name));
            }
        }
    }
    problems
}

/// Says what is wrong with the output at `at`, if anything.
fn check_output(params: &Params, at: usize, output: Declared<'_>) -> Option<ParamProblem> {
    let Declared { name, file_name, .. } = output;
    let problem = |message: String| Some(ParamProblem::new(&format!("outputs.{at}"), message));
    if file_name.len() > LONGEST_NAME {
        let (number, length) = (at + 1, file_name.len());
        return problem(format!(
            "output {number} has a name of {length} bytes, and {LONGEST_NAME} is the most"
        ));
    }
    if !is_name(name) {
        return problem(format!(
            "output `{name}` must be named with letters a-z, digits and `_`, a letter first"
        ));
    }
    if !is_ending(&file_name[name.len()..]) {
        return problem(format!("output `{file_name}` must end as files do, such as `.svg` or `.tar.gz`"));
    }
    if params.output_names().take(at).any(|other| other == name) {
        return problem(format!("output `{name}` is named twice"));
    }
    if !is_told(params, name) {
        let found = problem(format!("the command is not told where to write output `{name}`"));
        return found
            .map(|found| found.help(format!("put `{{out.{name}}}` into `command` where the path belongs")));
    }
    None
}

/// Says which of the `names` that the parameter `list` has are no names of environment variables.
fn check_variables(list: &str, names: &[String]) -> impl Iterator<Item = ParamProblem> {
    let is_right = |name: &str| {
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        !name.is_empty() && name.chars().all(is_of_name) && !name.starts_with(|c: char| c.is_ascii_digit())
    };
    names.iter().enumerate().filter(move |(_, name)| !is_right(name)).map(move |(at, name)| {
        ParamProblem::new(&format!("{list}.{at}"), format!("`{name}` is no environment variable"))
            .help("write its name alone; its value is taken when `pipe` runs")
    })
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Whether `text` is nothing, or dots each with letters and digits behind it.
fn is_ending(text: &str) -> bool {
    let is_of_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let is_part = |part: &str| !part.is_empty() && part.chars().all(is_of_part);
    text.strip_prefix('.').map_or(text.is_empty(), |parts| parts.split('.').all(is_part))
}

/// Whether the command is given the path of this output.
fn is_told(params: &Params, output: &str) -> bool {
    let measured = params.metrics_file().and_then(|file| params.measured(file));
    let is_metrics = measured.is_some_and(|measured| measured.name == output);
    params
        .command
        .placeholders()
        .any(|(name, _)| name.strip_prefix("out.") == Some(output) || (is_metrics && name == "metrics"))
}

fn check_metrics(params: &Params) -> Vec<ParamProblem> {
    let mut problems = Vec::new();
    let mut own: Option<&String> = None;
    for (at, file) in params.metrics_files().iter().enumerate() {
        let path = match params.metrics {
            Some(MetricsFiles::Several(_)) => format!("metrics.{at}"),
            _ => "metrics".to_owned(),
        };
        problems.extend(check_metrics_file(params, &path, file));
        if params.measured(file).is_none() {
            if let Some(other) = own {
                let message = format!("`{other}` and `{file}` are no outputs, and `{{metrics}}` is one file");
                let help = "name one of them under `outputs`";
                problems.push(ParamProblem::new(&path, message).help(help));
            }
            own = Some(file);
        }
    }
    problems
}

fn check_metrics_file(params: &Params, path: &str, name: &str) -> Option<ParamProblem> {
    let of_folder = name.strip_suffix('/').unwrap_or(name);
    let folder = params.declared().find(|output| output.is_folder && output.file_name == of_folder);
    if let Some(output) = folder {
        let message = format!("output `{}/` is a folder, and metrics are read from a file", output.file_name);
        let help = "name a file that the command writes: `metrics: metrics.json`";
        return Some(ParamProblem::new(path, message).help(help));
    }
    if params.measured(name).is_some() {
        return None;
    }
    if name.len() > LONGEST_NAME {
        let message =
            format!("the name of the file has {} bytes, and {LONGEST_NAME} is the most", name.len());
        return Some(ParamProblem::new(path, message));
    }
    let is_file = [".json", ".csv"].iter().any(|end| name.len() > end.len() && name.ends_with(end))
        && !name.contains(['/', '\0']);
    if !is_file {
        let message = format!("`{name}` is neither an output nor the name of a `.json` or `.csv` file");
        return Some(ParamProblem::new(path, message));
    }
    if !params.command.placeholders().any(|(name, _)| name == "metrics") {
        let problem = ParamProblem::new(path, format!("the command is not told where to write `{name}`"));
        return Some(problem.help("put `{metrics}` into `command` where the path belongs"));
    }
    None
}

/// Says what is wrong with a placeholder; inputs are checked with the inputs of the stage.
fn check_placeholder(params: &Params, at: &str, name: &str) -> Option<ParamProblem> {
    let known = match name.split_once('.') {
        Some(("in" | "labels", _)) => true,
        Some(("out", output)) => params.output_names().any(|name| name == output),
        Some(("params", path)) => parameter(params, path).is_some(),
        _ => {
            matches!(name, "checkpoint" | "threads" | "seed")
                || (name == "metrics" && params.metrics_file().is_some())
        }
    };
    if known {
        return None;
    }
    let mut names: Vec<String> = params.output_names().map(|name| format!("out.{name}")).collect();
    names.extend(params.params.keys().map(|name| format!("params.{name}")));
    names.extend(["checkpoint", "threads", "seed"].map(str::to_owned));
    names.extend(params.metrics_file().is_some().then(|| "metrics".to_owned()));
    let all = || names.iter().map(String::as_str);
    let last = name.rsplit('.').next();
    let near =
        all().find(|known| known.rsplit('.').next() == last).or_else(|| match name.strip_prefix("out.") {
            // What all outputs begin with brings none of them nearer.
            Some(output) => {
                let output = Declared::of(output).name;
                let near = nearest(output, params.output_names())?;
                all().find(|known| known.strip_prefix("out.") == Some(near))
            }
            None => nearest(name, all()),
        });
    let help = match near {
        Some(near) => format!("did you mean `{{{near}}}`?"),
        None if let Some(output) = name.strip_prefix("out.").filter(|output| is_name(output)) => {
            let mut outputs = params.outputs.clone();
            outputs.push(output.to_owned());
            format!("name the output: `outputs: [{}]`", outputs.join(", "))
        }
        None if let Some((prefix, input)) = name.split_once('.')
            && nearest(prefix, ["labels"]).is_some() =>
        {
            format!("did you mean `{{labels.{input}}}`?")
        }
        None if name == "metrics" => "name the file: `metrics: metrics.json`".to_owned(),
        None if is_name(name) => format!(
            "an input is written `{{in.{name}}}`, an output `{{out.{name}}}`, a parameter `{{params.{name}}}`, \
             and the text itself `{{{{{name}}}}}`"
        ),
        None => format!("write `{{{{{name}}}}}` for the text `{{{name}}}`"),
    };
    let written = format!("{{{name}}}");
    Some(ParamProblem::new(at, format!("unknown placeholder `{written}`")).part(written).help(help))
}

fn in_quotes_problem(at: &str, text: &str, name: &str) -> ParamProblem {
    let written = format!("{{{name}}}");
    let help = "leave the quotes out, values are quoted already; \
                or write `command` as a list of words, which needs none";
    let problem = ParamProblem::new(at, format!("`{written}` stands inside quotes")).help(help);
    // Of several it is not told which one is meant.
    if text.matches(&written).count() == 1 { problem.part(written) } else { problem }
}
