//! The command line: one verb a file, and the only place that prints.
//!
//! What was asked for goes to standard output, what is said about it to standard error. The
//! exit code is 0 when done, 1 when a stage or the disk failed, 2 for input that cannot be used, 130 when stopped by a
//! signal.

mod ablate;
mod again;
mod braille;
mod check;
mod compare;
mod completions;
mod dag;
mod device;
mod excerpt;
mod execute;
mod expected;
mod export;
mod failing;
mod failure;
mod gc;
mod get;
mod globals;
mod history;
mod late;
mod launch;
mod line;
mod lineage;
mod lines;
mod live;
mod logs;
mod new_history;
mod note;
mod out;
mod pipeline_args;
mod plan;
mod plot;
mod progress;
mod recorder;
mod report;
mod report_file;
mod reproduce;
mod restore;
mod rm;
mod run;
mod runs;
mod salvage;
mod schema;
mod show;
mod stages;
mod stages_page;
mod table;
mod tag;
mod targets;
mod verify;
mod verify_cache;
mod view;
mod watch;
mod why;
mod worker;

pub use failure::Failure;
pub use globals::Globals;
pub use pipeline_args::PipelineArgs;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{metrics, reasons, units};

/// Runs machine-learning experiments: executes what changed, keeps every result, compares runs.
#[derive(Debug, Parser)]
#[command(
    name = "pipe",
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  pipe run pipelines/all_three.yaml         execute what has changed
  pipe check pipelines/all_three.yaml       is the file right?
  pipe dag pipelines/all_three.yaml         what feeds what
  pipe stages                               what a stage can be
  pipe stages tokenize                      its inputs, outputs, parameters
  pipe runs                                 what was run
  pipe show                                 the latest run and its metrics
  pipe compare @last~1 @last                what differed, and what came of it
  pipe get @last train.model -o model.pt    take an output from the cache
  pipe report @last --out report.html       one page to look at and to mail
  pipe plot @last lora.loss                 a curve, in the terminal or as SVG
  pipe export @last --to tensorboard        or mlflow, csv, jsonl
  pipe ablate run_12 run_15 eval.f1         which change made the difference
  pipe lineage @last eval.lora.accuracy     what it came from
  pipe reproduce run_12                     run it again from its record

Every verb explains itself: `pipe check --help`."
)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    verb: Verb,
}

/// What can be done; aliases are what other tools call it.
#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::Run),
    Why(why::Why),
    Check(check::Check),
    Dag(dag::Dag),
    Stages(stages::Stages),
    #[command(aliases = ["ls", "list", "history"])]
    Runs(runs::Runs),
    Show(show::Show),
    #[command(alias = "log")]
    Logs(logs::Logs),
    #[command(alias = "diff")]
    Compare(compare::Compare),
    Ablate(ablate::Ablate),
    Report(report_file::Report),
    Plot(plot::Plot),
    Export(export::Export),
    Get(get::Get),
    Lineage(lineage::LineageOf),
    Tag(tag::Tag),
    Note(note::Note),
    Rm(rm::Rm),
    Restore(restore::Restore),
    Gc(gc::Gc),
    Verify(verify::Verify),
    Reproduce(reproduce::Reproduce),
    Schema(schema::Schema),
    Completions(completions::Completions),
    Worker(worker::Worker),
}

impl Verb {
    fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        match self {
            Verb::Run(verb) => verb.run(globals),
            Verb::Why(verb) => verb.run(globals),
            Verb::Check(verb) => verb.run(globals),
            Verb::Dag(verb) => verb.run(globals),
            Verb::Stages(verb) => verb.run(globals),
            Verb::Runs(verb) => verb.run(globals),
            Verb::Show(verb) => verb.run(globals),
            Verb::Logs(verb) => verb.run(globals),
            Verb::Compare(verb) => verb.run(globals),
            Verb::Ablate(verb) => verb.run(globals),
            Verb::Report(verb) => verb.run(globals),
            Verb::Plot(verb) => verb.run(globals),
            Verb::Export(verb) => verb.run(globals),
            Verb::Get(verb) => verb.run(globals),
            Verb::Lineage(verb) => verb.run(globals),
            Verb::Tag(verb) => verb.run(globals),
            Verb::Note(verb) => verb.run(globals),
            Verb::Rm(verb) => verb.run(globals),
            Verb::Restore(verb) => verb.run(globals),
            Verb::Gc(verb) => verb.run(globals),
            Verb::Verify(verb) => verb.run(globals),
            Verb::Reproduce(verb) => verb.run(globals),
            Verb::Schema(verb) => verb.run(globals),
            Verb::Completions(verb) => verb.run(globals),
            Verb::Worker(verb) => verb.run(globals),
        }
    }
}

/// Reads the command line, does what it says and returns the exit code.
pub fn main() -> ExitCode {
    if let Some(code) = launch::launch(std::env::args_os().skip(1)) {
        return code;
    }
    let Cli { globals, verb } = Cli::parse();
    globals.set_colors();
    let failure = match verb.run(&globals) {
        Ok(code) => return code,
        Err(failure) => failure,
    };
    // With what could be saved of a damaged database the same command is done once more.
    let done = match failure.damaged_database() {
        Some(path) => salvage::salvage(&globals, path).and_then(|()| Cli::parse().verb.run(&globals)),
        None => Err(failure),
    };
    done.unwrap_or_else(|failure| failure.report(&globals))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
