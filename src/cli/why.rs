//! `pipe why`: what a stage waits for, or what it is satisfied by.

use std::process::ExitCode;

use clap::Args;
use pipe_stages::contract::Device;
use serde_json::json;

use super::{
    Failure, Globals, PipelineArgs, reasons,
    run::{planned, stage_exists},
};
use crate::{
    cache::Cache,
    engine::{self, Capacity, Force, Request, Selection, Tools, Verdict},
    exec::{ProcessExecutor, Stop},
    names::RunId,
};

/// Say whether a stage would run, and why
#[derive(Debug, Args)]
pub struct Why {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The stage
    stage: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Why {
    /// Runs the verb.
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let pipeline = self.pipeline.load(globals)?;
        stage_exists(&pipeline, &self.stage)?;
        let cache = Cache::open(&pipeline.root.join("cache"));
        let request = Request {
            pipeline: &pipeline,
            selected: Selection { until: vec![self.stage.clone()], ..Selection::default() }.of(&pipeline)?,
            keep_going: false,
            force: Force::None,
            device: Device::Cpu,
            capacity: Capacity { cpus: 1, memory: 0, gpus: 0 },
            run: RunId(0),
        };
        let (executor, stop) = (ProcessExecutor::new("".into(), &[]), Stop::default());
        let tools = Tools { cache: &cache, executor: &executor, stop: &stop, root: &pipeline.root };
        let plans = planned(&pipeline, |explainer| engine::plan(&request, &tools, explainer))??;
        let plan =
            plans.into_iter().find(|plan| plan.stage == self.stage).expect("the stage that was asked for");
        let verdict = if plan.verdict == Verdict::Run { "run" } else { "cached" };
        if self.json {
            let document = json!({"stage": plan.stage, "verdict": verdict, "reasons": plan.reasons});
            globals.print(format_args!("{document:#}\n"))?;
        } else {
            let reasons: String =
                plan.reasons.iter().map(|reason| format!("  {}\n", reasons::words(reason))).collect();
            let verdict = if plan.verdict == Verdict::Run { "will run" } else { verdict };
            globals.print(format_args!("{}: {verdict}\n{reasons}", plan.stage))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
