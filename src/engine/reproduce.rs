//! Whether a run that was run again gave what its record says.

use std::path::Path;

use serde_json::Value;

use super::{
    Difference, Subject, Tools, Unchecked, Verification, Verified,
    verify::{metrics, outcome_of, verdict},
};
use crate::{
    cache::CacheError,
    fingerprint::{Fingerprint, changes},
    pipeline::Source,
    record::{Metric, Outcome, Reason},
    runs::{LoadedStage, Origin},
};

/// Compares `then` with `now`, the stage of the same name in the run that was made of it again.
///
/// Where outputs differ and the recorded bytes are still known, the first place is told; files may be
/// written to `scratch` for that.
pub fn reproduced(
    then: &LoadedStage,
    now: Option<&LoadedStage>,
    tools: &Tools<'_>,
    how: &Verification<'_>,
    scratch: &Path,
) -> Result<Verified, CacheError> {
    let Some(origin) = &then.execution else { return Ok(Verified::Unchecked(Unchecked::NoResult)) };
    let Some(now) = now else {
        return Ok(Verified::Failed("it was not reached".to_owned()));
    };
    let Some(made) = &now.execution else {
        let error = now.error.clone().unwrap_or_else(|| "it was not reached".to_owned());
        return Ok(if now.outcome == Outcome::Interrupted {
            Verified::Interrupted
        } else {
            Verified::Failed(error)
        });
    };
    if made.id == origin.id {
        return Ok(Verified::Unchecked(Unchecked::Found));
    }
    let mut found = Vec::new();
    for recorded in &origin.outputs {
        match made.outputs.iter().find(|output| output.port == recorded.port) {
            Some(output) if output.digest == recorded.digest => {}
            Some(output) => {
                found.extend(outcome_of(recorded, &tools.cache.object(output.digest), tools, how, scratch)?);
            }
            None => found.push(missing(&recorded.port)),
        }
    }
    let finals = made.metrics.iter();
    let finals: Vec<Metric> =
        finals.map(|(name, value)| Metric { name: name.clone(), step: None, value: *value }).collect();
    found.extend(metrics(origin, None, &finals, how.tolerance));
    Ok(verdict(found))
}

fn missing(port: &str) -> Difference {
    let subject = Subject::Output(port.to_owned());
    Difference { subject, detail: "it is no output of the stage any more".to_owned(), largest: None }
}

/// Why the stage was another computation than the recorded one, if it was.
///
/// `resolved` is the pipeline of both.
pub fn changed(then: &LoadedStage, now: Option<&LoadedStage>, resolved: &Value) -> Vec<Reason> {
    let hashed = |made: &Option<Origin>| -> Option<Fingerprint> {
        serde_json::from_value(made.as_ref()?.hashed.clone()).ok()
    };
    let both = hashed(&then.execution).zip(now.and_then(|now| hashed(&now.execution)));
    let mut changed = both.map(|(then, now)| changes(&then, &now)).unwrap_or_default();
    for reason in &mut changed {
        if let Reason::Input { port, from, .. } = reason {
            *from = written(resolved, &then.stage, port);
        }
    }
    changed
}

/// Where an input comes from, as the pipeline says it.
fn written(resolved: &Value, stage: &str, port: &str) -> String {
    let written = &resolved["stages"][stage]["in"][port];
    let outside = || Source::outside(resolved, stage, port).map(|source| source.to_string());
    written.as_str().map(ToOwned::to_owned).or_else(outside).unwrap_or_default()
}
