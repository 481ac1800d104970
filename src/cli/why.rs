//! `pipe why`: what a stage waits for, or what it is satisfied by.

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Failure, Globals, PipelineArgs, plan::planned, reasons, units};
use crate::{
    cache::Cache,
    engine::{self, Capacity, Force, Planned, Request, Selection, Tools, Verdict},
    exec::{ProcessExecutor, Stop},
    meant::{self, meant},
    pipeline::Pipeline,
    record::{Execution, Reason},
};

/// Say whether a stage would run, and why
///
/// A stage that would run is compared with its latest result: parameters with the place they are
/// written at, files of its inputs, seed, version of its kind, environment variables. Of a stage that
/// would not, the result that it has is told: which run made it, when, and on what.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe why pipelines/all_three.yaml lora
  pipe why pipelines/all_three.yaml lora --set lora.rank=16
  pipe why pipelines/all_three.yaml -p ranks 'lora[rank=8]'
  pipe why pipelines/all_three.yaml lora --json | jq '.reasons[]'")]
pub struct Why {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The stage; of a matrix all of it, or a part such as `train[rank=4]`
    stage: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Why {
    /// Runs the verb.
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let until = || Selection { until: vec![self.stage.clone()], ..Selection::default() };
        let pipeline = self.pipeline.load_for(globals, |pipeline| Ok(until().of(pipeline)?))?;
        let asked = asked(&pipeline, &self.stage)?;
        let cache = Cache::open(&pipeline.root.join("cache"));
        let request = Request {
            pipeline: &pipeline,
            selected: until().of(&pipeline)?,
            keep_going: false,
            force: Force::None,
            capacity: Capacity::of_processor(1, 0),
            gpus: Vec::new(),
        };
        let (executor, stop) = (ProcessExecutor::new("".into(), &[]), Stop::default());
        let tools = Tools { cache: &cache, executor: &executor, stop: &stop, root: &pipeline.root };
        let plans = planned(&pipeline, &cache, |explainer| engine::plan(&request, &tools, explainer))??;
        let told = plans.into_iter().filter(|plan| asked.contains(&plan.stage.as_str()));
        let told = told.map(|plan| Told::of(plan, &cache));
        if self.json {
            let mut documents: Vec<Value> = told.map(Told::json).collect();
            let is_one = asked == [self.stage.as_str()];
            let document = if is_one { documents.remove(0) } else { Value::Array(documents) };
            globals.print(format_args!("{document:#}\n"))?;
        } else {
            globals.print(told.map(Told::text).collect::<Vec<_>>().join("\n"))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What is told of a stage.
struct Told {
    plan: Planned,
    /// The execution that its result is of, if it has one.
    known: Option<Execution>,
}

impl Told {
    fn of(plan: Planned, cache: &Cache) -> Self {
        let key = plan.key.filter(|_| plan.verdict != Verdict::Run);
        let known = key.and_then(|key| cache.execution(key));
        Self { plan, known }
    }

    fn json(self) -> Value {
        let Self { plan, known } = self;
        let verdict = if plan.verdict == Verdict::Run { "run" } else { "cached" };
        let since = if let Verdict::Cached(since) = plan.verdict { since } else { None };
        let execution = known.map(|made| {
            json!({"run": since, "stage": made.stage, "started": made.started,
                   "seconds": made.duration, "device": made.device})
        });
        json!({"stage": plan.stage, "verdict": verdict, "reasons": plan.reasons, "execution": execution})
    }

    fn text(self) -> String {
        let Self { plan, known } = self;
        let mut lines: Vec<String> = plan.reasons.iter().map(reasons::words).collect();
        lines.extend(reasons::since(&plan.reasons).map(|run| format!("since {run}")));
        lines.extend(known.map(|made| computed(&made, &plan.stage)));
        let verdict = match plan.reasons.as_slice() {
            [Reason::Upstream { .. }] => "runs if its inputs change",
            _ if plan.verdict == Verdict::Run => "will run",
            _ => "cached",
        };
        let lines: String = lines.iter().map(|line| format!("  {line}\n")).collect();
        format!("{}: {verdict}\n{lines}", plan.stage)
    }
}

/// `computed 3 hours ago in 8.5 s on cpu (avx2, 2 threads)`.
fn computed(made: &Execution, stage: &str) -> String {
    let ago = units::ago(made.started, Timestamp::now());
    let device = made.device.as_ref().map(|device| format!(" on {device}")).unwrap_or_default();
    let name = if made.stage == stage { String::new() } else { format!(", as stage {}", made.stage) };
    format!("computed {ago} in {}{device}{name}", units::duration(made.duration))
}

/// The stages that `name` means, in the order of the file; an error if it means none.
fn asked<'p>(pipeline: &'p Pipeline, name: &str) -> Result<Vec<&'p str>, Failure> {
    let names = pipeline.stages.keys().map(String::as_str);
    let asked = meant(name, names.clone()).unwrap_or_default();
    if !asked.is_empty() {
        return Ok(asked);
    }
    let failure = Failure::input(format!("`{}` has no stage `{name}`", pipeline.file.display()));
    Err(match meant::help(name, "its stages are", names) {
        Some(help) => failure.help(help),
        None => failure,
    })
}
