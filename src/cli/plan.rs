//! What a run would do and why, asked of the cache and of earlier runs.

use std::{cell::OnceCell, path::PathBuf};

use serde_json::{Value, json};

use super::{Failure, execute::INTERRUPTED, reasons, targets::command_until};
use crate::{
    cache::{Cache, CacheError, Hit},
    digest::ActionKey,
    engine::{self, Earlier, Explainer, PlanError, Planned, Request, Tools, Verdict},
    exec::{ProcessExecutor, Stop},
    fingerprint::Fingerprint,
    meant::parts,
    names::RunId,
    pipeline::{Pipeline, StageSpec},
    runs::RunsDb,
};

/// Says for every stage of `request` whether it would run and why.
pub fn plan(request: &Request<'_>, cache: &Cache) -> Result<Vec<Planned>, Failure> {
    let pipeline = request.pipeline;
    let (executor, stop) = (ProcessExecutor::new(PathBuf::new(), &[]), Stop::default());
    let tools = Tools { cache, executor: &executor, stop: &stop, root: &pipeline.root };
    planned(pipeline, cache, |explainer| engine::plan(request, &tools, explainer))?.map_err(
        |err| match &err {
            PlanError::NotSelected { needed } => {
                let command = command_until(pipeline, &parts(needed));
                Failure::from(err).help(format!("`{command}` computes what is missing"))
            }
            PlanError::Cache(CacheError::Halted { .. }) => Failure::from(err).exit(INTERRUPTED),
            PlanError::Cache(_) => err.into(),
        },
    )
}

/// A line for each stage.
pub fn plan_lines(planned: &[Planned]) -> String {
    let width = planned.iter().map(|plan| plan.stage.chars().count()).max().unwrap_or(0);
    planned.iter().map(|plan| plan_line(plan, width)).collect()
}

fn plan_line(plan: &Planned, width: usize) -> String {
    let verb = verdict_word(plan.verdict);
    format!("{verb:<6}  {:<width$}  {}\n", plan.stage, reasons::line(&plan.reasons))
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Run => "run",
        Verdict::Cached(_) => "cached",
        Verdict::Skip => "skip",
    }
}

/// A stage as a program reads it.
pub fn plan_json(plan: &Planned) -> Value {
    json!({"stage": plan.stage, "verdict": verdict_word(plan.verdict), "reasons": plan.reasons})
}

/// Calls `task` with what explains reruns: the runs in `history`, up to `before` if given, and what
/// `cache` says of results.
pub fn with_explainer<T>(
    pipeline: &Pipeline,
    cache: &Cache,
    history: &RunsDb,
    before: Option<RunId>,
    task: impl FnOnce(&Explainer<'_>) -> T,
) -> T {
    let vanished = OnceCell::new();
    let renamed = |spec: &StageSpec| {
        // A name that no run knows may be a new one: of the stages that the latest run had and the
        // pipeline has no longer, the only one of this kind is meant.
        let vanished = vanished.get_or_init(|| {
            let mut results = history.latest_results(&pipeline.file, before).unwrap_or_default();
            results.retain(|result| !pipeline.stages.contains_key(&result.stage));
            results
        });
        let mut of_kind = vanished.iter().filter(|result| result.kind == spec.kind.name);
        of_kind.next().filter(|_| of_kind.next().is_none()).cloned()
    };
    let previous = |spec: &StageSpec| -> Option<Earlier> {
        let found = history.previous(&pipeline.file, &pipeline.name, &spec.name, before).ok()?;
        let found = found.or_else(|| renamed(spec))?;
        Some(Earlier { run: found.run, fingerprint: Fingerprint::parse(&found.hashed)? })
    };
    let computed_in = |key: ActionKey, hit: &Hit| {
        let recorded = || cache.execution(key).filter(|execution| execution.id == hit.execution);
        history.computed_in(&hit.execution, recorded).ok().flatten()
    };
    task(&Explainer { previous: &previous, computed_in: &computed_in })
}

/// Calls `task` like [`with_explainer`], also where no run was ever recorded.
pub fn planned<T>(
    pipeline: &Pipeline,
    cache: &Cache,
    task: impl FnOnce(&Explainer<'_>) -> T,
) -> Result<T, Failure> {
    let path = pipeline.root.join("runs.db");
    if path.exists() {
        let history = RunsDb::open_existing(&path)?;
        Ok(with_explainer(pipeline, cache, &history, None, task))
    } else {
        Ok(task(&Explainer { previous: &|_| None, computed_in: &|_, _| None }))
    }
}
