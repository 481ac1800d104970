//! What happens in a run as JSON, one object a line on standard error; `docs/progress.md` describes
//! each of them.

use std::{
    io::{self, Write},
    path::Path,
    rc::Rc,
};

use jiff::Timestamp;
use pipe_stages::contract::Event;
use serde_json::{Value, json};

use super::{failing::log_end, reasons, view::About};
use crate::{
    engine::{RunEvent, Summary},
    record::{Execution, Outcome, StageRecord},
};

/// Tells a program of one run.
pub struct Events<'a> {
    about: Rc<About<'a>>,
}

impl<'a> Events<'a> {
    /// A run of `file` is being prepared.
    pub fn starting(file: &Path) {
        tell("starting", json!({ "file": file.display().to_string() }));
    }

    /// Something that concerns no stage.
    pub fn remark(text: &str) {
        tell("remark", json!({ "text": text.trim() }));
    }

    /// Why there is no run, or why it could not go on.
    pub fn failure(text: &str, exit: u8) {
        tell("error", json!({ "text": anstream::adapter::strip_str(text).to_string(), "exit": exit }));
    }

    /// Tells that a run has begun.
    pub fn new(about: Rc<About<'a>>) -> Self {
        let About { run, pipeline, wanted, .. } = &*about;
        let document = json!({
            "run": run,
            "file": pipeline.file,
            "pipeline": pipeline.name,
            "profiles": pipeline.profiles,
            "sets": pipeline.sets,
            "stages": wanted,
        });
        tell("run_started", document);
        Self { about }
    }

    /// Tells one event.
    pub fn observe(&self, event: &RunEvent) {
        match event {
            RunEvent::Idle => {}
            RunEvent::Looking { stage } => {
                let outside = self.about.pipeline.stages[stage].outside();
                let inputs: Vec<String> = outside.map(ToString::to_string).collect();
                tell("looking", json!({ "stage": stage, "inputs": inputs }));
            }
            RunEvent::Started { stage, execution, reasons } => {
                let why = reasons::line(reasons);
                let document =
                    json!({ "stage": stage, "kind": execution.kind, "reasons": reasons, "why": why });
                tell("stage_started", document);
            }
            RunEvent::Waiting { stage, holder } => {
                tell("waiting", json!({ "stage": stage, "holder": holder }));
            }
            RunEvent::Retrying { stage, retry, of, error } => {
                tell("retry", json!({ "stage": stage, "retry": retry, "of": of, "error": error }));
            }
            RunEvent::Reported { stage, event, .. } => reported(stage, event),
            RunEvent::Finished { record, execution, differs } => {
                tell("stage_finished", self.finished(record, execution.as_deref(), differs));
            }
        }
    }

    /// Tells how the run ended.
    pub fn ended(&self, summary: &Summary, seconds: f64) {
        let document = json!({
            "run": self.about.run,
            "status": summary.status,
            "ran": summary.ran,
            "cached": summary.cached,
            "failed": summary.failed,
            "skipped": summary.skipped,
            "seconds": seconds,
        });
        tell("run_ended", document);
    }

    fn finished(&self, record: &StageRecord, execution: Option<&Execution>, differs: &[String]) -> Value {
        let mut document = json!({
            "stage": record.stage,
            "kind": record.kind,
            "outcome": record.outcome,
            "key": record.key,
            "seconds": record.duration,
            "peak_memory": execution.map(|execution| execution.peak_memory),
            "reasons": record.reasons,
            "why": reasons::line(&record.reasons),
        });
        if !differs.is_empty() {
            document["differs"] = json!(differs);
        }
        if record.outcome == Outcome::Failed {
            let About { pipeline, again, .. } = &*self.about;
            document["error"] = json!(record.error);
            document["exit_code"] = json!(record.exit_code);
            document["place"] = json!(pipeline.places.stage(&record.stage).map(|place| place.to_string()));
            document["log"] = json!(log_end(&record.log));
            document["again"] = json!(again.command(&record.stage, &record.reasons));
        }
        document
    }
}

fn reported(stage: &str, event: &Event) {
    match event {
        Event::Progress { done, total, unit } => {
            tell("progress", json!({ "stage": stage, "done": done, "total": total, "unit": unit }));
        }
        Event::Metric { name, step, value } => {
            tell("metric", json!({ "stage": stage, "name": name, "step": step, "value": value }));
        }
        Event::Log { .. } | Event::Histogram { .. } | Event::Device { .. } | Event::Failed { .. } => {}
    }
}

/// Writes one line; a reader that has gone is no problem.
fn tell(event: &str, mut document: Value) {
    document["event"] = event.into();
    document["at"] = json!(Timestamp::now());
    // In one piece, so that no other line comes between.
    let _ = io::stderr().lock().write_all(format!("{document}\n").as_bytes());
}
