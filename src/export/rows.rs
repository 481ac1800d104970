//! Runs as plain records: the rows of a CSV file, or JSON lines.

use serde_json::{Value, json};

use super::Subject;
use crate::fingerprint::leaves;

/// The columns of [`rows`]; those of the view `metric` of `runs.db`.
pub const COLUMNS: [&str; 5] = ["run", "stage", "metric", "step", "value"];

/// Every measured value as one row: the step is empty for a final value, the value if it is undefined.
pub fn rows(subject: &Subject) -> impl Iterator<Item = [String; 5]> {
    let run = subject.run.info.run.to_string();
    let measured = subject.run.stages.iter().flat_map(|stage| subject.measured(stage));
    measured.map(move |it| {
        [
            run.clone(),
            it.stage.to_owned(),
            format!("{}.{}", it.stage, it.metric),
            it.step.map(|step| step.to_string()).unwrap_or_default(),
            it.value.map(|value| value.to_string()).unwrap_or_default(),
        ]
    })
}

/// Everything that is known of the run but its logs, one JSON object a line.
///
/// `record` says what a line is: one `run`, then for each stage a `stage` and its `param`, `metric`,
/// `histogram` and `artifact` lines.
pub fn jsonl(subject: &Subject) -> String {
    let run = &subject.run;
    let mut head = serde_json::to_value(&run.info).expect("a run serializes to JSON");
    head["resolved"] = run.resolved.clone();
    let mut text = String::new();
    let mut add = |record: &str, stage: Option<&str>, mut line: Value| {
        line["record"] = json!(record);
        line["run"] = json!(run.info.run);
        if let Some(stage) = stage {
            line["stage"] = json!(stage);
        }
        text.push_str(&line.to_string());
        text.push('\n');
    };
    add("run", None, head);
    for stage in &run.stages {
        let made = stage.execution.as_ref();
        let name = Some(stage.stage.as_str());
        let full = |metric: &str| format!("{}.{metric}", stage.stage);
        let line = json!({
            "kind": stage.kind,
            "kind_version": stage.kind_version,
            "seed": stage.seed,
            "key": stage.key,
            "outcome": stage.outcome,
            "error": stage.error,
            "computed_by": made.map(|made| made.run),
            "started": made.map(|made| made.started),
            "seconds": made.map(|made| made.duration),
            "cpu": made.map(|made| made.cpu),
            "peak_memory": made.map(|made| made.peak_memory),
            "device": made.map(|made| &made.device),
        });
        add("stage", name, line);
        for (path, value) in leaves(&stage.params) {
            add("param", name, json!({"param": path, "value": value}));
        }
        for it in subject.measured(stage) {
            add("metric", name, json!({"metric": full(it.metric), "step": it.step, "value": it.value}));
        }
        for it in subject.histograms(stage) {
            let line =
                json!({"metric": full(&it.name), "step": it.step, "edges": it.edges, "counts": it.counts});
            add("histogram", name, line);
        }
        for output in made.into_iter().flat_map(|made| &made.outputs) {
            add("artifact", name, serde_json::to_value(output).expect("an artifact serializes to JSON"));
        }
    }
    text
}
