//! What a run would do, without doing it.

use std::collections::{BTreeSet, HashMap};

use miette::Diagnostic;
use thiserror::Error;

use super::{
    Explainer, Request, Tools,
    decide::{Decision, Known, decide, explain_pending},
};
use crate::{
    cache::CacheError,
    digest::ActionKey,
    meant::parts,
    names::RunId,
    pipeline::{Source, StageSpec},
    record::Reason,
};

/// What would be done about one stage.
#[derive(Debug)]
pub struct Planned {
    /// The stage's name.
    pub stage: String,
    /// Run or not.
    pub verdict: Verdict,
    /// Why.
    pub reasons: Vec<Reason>,
    /// Its key, where its inputs are known.
    pub key: Option<ActionKey>,
}

/// Whether a stage would run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It would, unless stages before it turn out to write the bytes that an earlier run wrote.
    Run,
    /// A result exists, computed by this run; without one, elsewhere.
    Cached(Option<RunId>),
    /// It could not, unless stages before it turn out to write the bytes that an earlier run wrote.
    Skip,
}

/// Why there is no plan.
#[derive(Debug, Error, Diagnostic)]
pub enum PlanError {
    /// An input or the cache cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Cache(#[from] CacheError),
    /// Selected stages take from stages that are not selected and have no result.
    #[error("selected stages take from {}, not selected and without a result in the cache", names(&parts(needed)))]
    NotSelected {
        /// The stages that are needed.
        needed: Vec<String>,
    },
}

fn names(stages: &[String]) -> String {
    let shown: Vec<String> = stages.iter().take(20).map(|name| format!("`{name}`")).collect();
    format!("{}{}", shown.join(", "), if stages.len() > 20 { ", …" } else { "" })
}

/// The stages that `spec` takes from and whose results are not known, an entry for each input.
fn pending(spec: &StageSpec, known: &Known) -> Vec<String> {
    let stage = |source: &Source| match source {
        Source::Output { stage, .. } => Some(stage.clone()),
        _ => None,
    };
    let stages = spec.inputs.values().filter_map(stage);
    stages.filter(|stage| !known.contains_key(stage)).collect()
}

/// Says for every wanted stage whether it would run, and why.
pub fn plan(
    request: &Request<'_>,
    tools: &Tools<'_>,
    explainer: &Explainer<'_>,
) -> Result<Vec<Planned>, PlanError> {
    let mut known = Known::new();
    let mut planned = Vec::new();
    // Stages outside of the selection without a result, and those that selected ones lack of them.
    let (mut lost, mut needed) = (BTreeSet::new(), BTreeSet::new());
    // Stages that would be skipped, or are outside of the selection and wait for a stage that runs;
    // for each, such a stage outside of the selection.
    let mut unsure: HashMap<String, String> = HashMap::new();
    for stage in request.considered() {
        let spec = &request.pipeline.stages[&stage];
        let is_selected = request.selects(&stage);
        let pending = pending(spec, &known);
        let mut key = None;
        if is_selected {
            needed.extend(pending.iter().filter(|pending| lost.contains(*pending)).cloned());
        } else if !pending.is_empty() {
            if pending.iter().any(|pending| lost.contains(pending)) {
                lost.insert(stage);
            } else {
                unsure.insert(stage.clone(), stage);
            }
            continue;
        }
        let outside = pending.iter().find_map(|pending| unsure.get(pending).cloned());
        let (verdict, reasons) = if let Some(outside) = outside {
            unsure.insert(stage.clone(), outside.clone());
            (Verdict::Skip, vec![Reason::NotSelected { stage: outside }])
        } else if pending.is_empty() {
            let (decided, decision) = decide(request, tools, explainer, spec, &known)?;
            key = Some(decided.key);
            match decision {
                Decision::Cached(hit) => {
                    known.insert(stage.clone(), hit.outputs);
                    let reason = Reason::Satisfied { since: hit.run, device: hit.device };
                    (Verdict::Cached(hit.run), vec![reason])
                }
                Decision::Run(reasons) => (Verdict::Run, reasons),
            }
        } else {
            (Verdict::Run, explain_pending(request, tools, explainer, spec, &known, pending))
        };
        if is_selected {
            planned.push(Planned { stage, verdict, reasons, key });
        } else if verdict == Verdict::Run {
            lost.insert(stage);
        }
    }
    if needed.is_empty() {
        Ok(planned)
    } else {
        Err(PlanError::NotSelected { needed: needed.into_iter().collect() })
    }
}
