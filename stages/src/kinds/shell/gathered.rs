//! Inputs that are gathered under one name of the file: `models[rank=4]` and `models[rank=8]` as `models`.

use std::path::PathBuf;

use super::text;
use crate::contract::{InputName, Job, StageError};

/// The paths behind `{in.NAME}`: that of the input called `name`, else those of all gathered under it; none
/// where there is no such input, or a path is no text.
pub(super) fn paths(job: &Job, name: &str) -> Option<Vec<String>> {
    if let Some(path) = job.inputs.get(name) {
        return Some(vec![text(path)?]);
    }
    gathered(job, name).into_iter().map(|(_, path)| text(path)).collect()
}

/// The labels behind `{labels.NAME}`, such as `rank=4`, in the order of [`paths`].
pub(super) fn labels(job: &Job, name: &str) -> Result<Vec<String>, StageError> {
    if job.inputs.contains_key(name) {
        let message = format!("`{{labels.{name}}}` has no labels: input `{name}` is not gathered");
        return Err(StageError::new(message)
            .help(format!("gather the stages of a matrix, as in `in: {{ {name}: {{ gather: STAGE }} }}`")));
    }
    Ok(gathered(job, name).into_iter().filter_map(|(input, _)| input.label()).map(str::to_owned).collect())
}

/// The inputs gathered under `name`, in the order of their values.
fn gathered<'a>(job: &'a Job, name: &str) -> Vec<(InputName<'a>, &'a PathBuf)> {
    let inputs = job.inputs.iter().map(|(whole, path)| (InputName::of(whole), path));
    let mut gathered: Vec<_> =
        inputs.filter(|(input, _)| input.in_file() == name && input.label().is_some()).collect();
    gathered.sort_unstable();
    gathered
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{Shell, invocation};
    use crate::contract::{Device, Inputs, Job, StageError, StageKind};

    /// The words of a command that is given these inputs, or what is wrong and what to do.
    fn words(command: Value, inputs: &[(&str, &str)]) -> Result<Vec<String>, (String, Option<String>)> {
        let job = Job {
            stage: "compare".into(),
            key: String::new(),
            kind: "shell".into(),
            version: 1,
            params: json!({ "command": command }),
            seed: 7,
            inputs: inputs.iter().map(|&(name, path)| (name.into(), path.into())).collect(),
            outputs: [].into(),
            events: "events".into(),
            checkpoint: "checkpoint".into(),
            device: Device::Cpu,
            threads: 1,
        };
        let failed = |err: StageError| (err.to_string(), err.help_text().map(str::to_owned));
        invocation(&job).map(|made| made.words).map_err(failed)
    }

    const SWEEP: [(&str, &str); 4] =
        [("data", "/data"), ("models[rank=16]", "/c c"), ("models[rank=4]", "/a"), ("models[rank=8]", "/b")];

    #[test]
    fn a_line_has_the_paths_and_labels_of_gathered_inputs_in_the_order_of_their_values() {
        let command = json!("compare {in.data} {in.models} --labels {labels.models}; (cat {in.models})|wc");
        let line = words(command, &SWEEP).unwrap().remove(2);
        assert_eq!(
            line,
            "compare /data /a /b '/c c' --labels 'rank=4' 'rank=8' 'rank=16'; (cat /a /b '/c c')|wc"
        );
    }

    #[test]
    fn a_word_that_is_a_placeholder_becomes_a_word_for_each_gathered_input() {
        let command = json!(["compare", "{in.models}", "--labels", "{labels.models}", "s={seed}"]);
        assert_eq!(
            words(command, &SWEEP).unwrap(),
            ["compare", "/a", "/b", "/c c", "--labels", "rank=4", "rank=8", "rank=16", "s=7"]
        );
    }

    #[test]
    fn several_within_a_longer_word_are_refused() {
        let in_words = |word: &str| json!(["compare", word]);
        let line = |word: &str| json!(format!("compare {word} end"));
        for word in ["--x={in.models}", "{in.models}.pt", "{in.data}{in.models}", "{in.models}{{x}}"] {
            for command in [in_words(word), line(word)] {
                let (message, help) = words(command, &SWEEP).unwrap_err();
                assert_eq!(message, "`{in.models}` stands for 3 inputs and is part of a longer word");
                assert_eq!(help.unwrap(), "make it a word of its own");
            }
        }
        assert!(words(in_words("a {labels.models}"), &SWEEP).is_err());
        let one = [("data", "/data"), ("models[rank=4]", "/a")];
        assert_eq!(words(in_words("--x={in.models}"), &one).unwrap(), ["compare", "--x=/a"]);
        assert_eq!(words(line("--x={in.models}"), &one).unwrap()[2], "compare --x=/a end");
    }

    #[test]
    fn an_input_of_the_name_goes_before_gathered_ones() {
        let inputs = [("models", "/own"), ("models[rank=4]", "/a"), ("models_2[rank=4]", "/b")];
        assert_eq!(words(json!(["{in.models}", "{in.models_2}"]), &inputs).unwrap(), ["/own", "/b"]);
    }

    #[test]
    fn paths_and_labels_need_the_input_that_gathers() {
        let command = json!(["compare", "{in.models}", "{in.data}", "{labels.models}", "x={in.models}"]);
        let resolved = StageKind::of::<Shell>().resolve(json!({ "command": command })).unwrap();
        let Inputs::Free { needed, .. } = resolved.ports.inputs else { panic!("inputs are free") };
        let needed: Vec<_> = needed.into_iter().map(|need| (need.input, need.by, need.part)).collect();
        let need = |input: &str, by: &str, part: &str| (input.to_owned(), by.to_owned(), part.to_owned());
        assert_eq!(
            needed,
            [
                need("data", "command.2", "{in.data}"),
                need("models", "command.1", "{in.models}"),
                need("models", "command.3", "{labels.models}"),
            ]
        );
    }

    #[test]
    fn labels_written_otherwise_are_told() {
        let resolve = |command: &str| StageKind::of::<Shell>().resolve(json!({ "command": command }));
        let problem = resolve("compare {label.models}").unwrap_err().remove(0);
        assert_eq!(problem.message, "unknown placeholder `{label.models}`");
        assert_eq!(problem.help.unwrap(), "did you mean `{labels.models}`?");
        let problem = resolve("compare '{labels.models}'").unwrap_err().remove(0);
        assert_eq!(problem.message, "`{labels.models}` stands inside quotes");
    }

    #[test]
    fn labels_are_those_of_gathered_inputs() {
        let (message, help) = words(json!("echo {labels.data}"), &SWEEP).unwrap_err();
        assert_eq!(message, "`{labels.data}` has no labels: input `data` is not gathered");
        assert_eq!(help.unwrap(), "gather the stages of a matrix, as in `in: { data: { gather: STAGE } }`");
        for name in ["in.model", "labels.model", "labels"] {
            let (message, _) = words(json!(format!("echo {{{name}}}")), &SWEEP).unwrap_err();
            assert_eq!(message, format!("nothing is known of placeholder `{{{name}}}`"));
        }
        let axes = [("m[lr=0.01,seed=2]", "/b"), ("m[lr=0.01,seed=10]", "/c"), ("m[lr=1e-3,seed=3]", "/a")];
        assert_eq!(
            words(json!(["{labels.m}"]), &axes).unwrap(),
            ["lr=1e-3,seed=3", "lr=0.01,seed=2", "lr=0.01,seed=10"]
        );
    }
}
