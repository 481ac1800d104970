//! What a run would do, without doing it.

use super::{
    Explainer, Request, Tools,
    decide::{Decision, Known, decide, explain_pending},
};
use crate::{cache::CacheError, digest::ActionKey, names::RunId, pipeline::Source, record::Reason};

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
    /// A result exists, computed by this run.
    Cached(RunId),
}

/// Says for every wanted stage whether it would run, and why.
pub fn plan(
    request: &Request<'_>,
    tools: &Tools<'_>,
    explainer: &Explainer<'_>,
) -> Result<Vec<Planned>, CacheError> {
    let mut known = Known::new();
    let mut planned = Vec::new();
    for stage in request.wanted() {
        let spec = &request.pipeline.stages[&stage];
        let pending: Vec<String> = spec
            .inputs
            .values()
            .filter_map(|source| match source {
                Source::Output { stage, .. } if !known.contains_key(stage) => Some(stage.clone()),
                _ => None,
            })
            .collect();
        let mut key = None;
        let (verdict, reasons) = if pending.is_empty() {
            let decided = decide(request, tools, explainer, spec, &known)?;
            key = Some(decided.key);
            match decided.verdict {
                Decision::Cached(hit) => {
                    known.insert(stage.clone(), hit.outputs);
                    (Verdict::Cached(hit.run), vec![Reason::Satisfied { since: hit.run }])
                }
                Decision::Run(reasons) => (Verdict::Run, reasons),
            }
        } else {
            (Verdict::Run, explain_pending(request, tools, explainer, spec, &known, pending))
        };
        planned.push(Planned { stage, verdict, reasons, key });
    }
    Ok(planned)
}
