//! `pipe logs`: what a stage said, or says.

use std::{iter, process::ExitCode, thread, time::Duration};

use clap::Args;

use super::{
    Failure, Globals, history,
    targets::quoted,
    units::{counted, size},
};
use crate::{
    cache::Cache,
    engine::{AttemptLog, LOG_KEPT},
    meant::{in_order, meant, which},
    names::RunId,
    record::Outcome,
    runs::{Attempt, RunsDb, RunsError, StageLog, State, stages_in_words},
};

/// How often a stage that goes on is asked what it has said.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Print the end of a stage's log, or all that a running one has said
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe logs @last lora --tail 20
  pipe logs @last lora --follow             until it has ended")]
pub(super) struct Logs {
    /// `run_12`, `12`, `@last`, `@last~1` or a tag
    #[arg(default_value = "@last")]
    run: String,
    /// The stage; one of a matrix is `train[rank=4,seed=1]`, or as much of that as tells it from the others
    stage: Option<String>,
    /// Print only the last N lines
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
    /// Go on printing until the stage has ended
    #[arg(short, long)]
    follow: bool,
}

impl Logs {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let db = &history::open(globals)?;
        let run = db.find(&self.run).map_err(|err| self.stage_alone(db).unwrap_or(err.into()))?;
        let Some(stage) = &self.stage else { return Err(unnamed(db, run)?) };
        let stage = &one(db, run, stage)?;
        let cache = &Cache::open(&globals.project_root(None)?.join("cache"));
        let tail = self.tail;
        let mut reader = Reader { globals, db, cache, run, stage, tail, followed: None, told: String::new() };
        while reader.print()? && self.follow {
            thread::sleep(ASK_AGAIN);
        }
        Ok(ExitCode::SUCCESS)
    }

    /// What is told to one who names a stage and no run.
    fn stage_alone(&self, db: &RunsDb) -> Option<Failure> {
        let (latest, name) = (db.find("@last").ok()?, &self.run);
        let names = db.stage_names(latest).ok()?;
        let is_meant = meant(name, names.iter().map(String::as_str)).is_ok_and(|stages| !stages.is_empty());
        let is_stage = self.stage.is_none() && is_meant;
        let help = || format!("it is a stage of {latest}: `pipe logs {latest} {}`", quoted(name));
        is_stage.then(|| Failure::input(format!("there is no run `{name}`")).help(help()))
    }
}

/// What is told to one who names no stage.
fn unnamed(db: &RunsDb, run: RunId) -> Result<Failure, RunsError> {
    let names = db.stage_names(run)?;
    let example = names.first().map(|name| format!(": `pipe logs {run} {}`", quoted(name)));
    let help = format!("{}{}", stages_in_words(run, &names), example.unwrap_or_default());
    Ok(Failure::input(format!("name a stage of {run} to see its log")).help(help))
}

/// The one stage of `run` that `name` means; a name that means none is left as it is.
fn one(db: &RunsDb, run: RunId, name: &str) -> Result<String, Failure> {
    let names = db.stage_names(run)?;
    let mut stages = meant(name, names.iter().map(String::as_str)).unwrap_or_default();
    stages.sort_by(|a, b| in_order(a, b));
    match stages.as_slice() {
        [] => Ok(name.to_owned()),
        [stage] => Ok((*stage).to_owned()),
        several => {
            let failure =
                Failure::input(format!("{} of {run} are meant by `{name}`", counted(several.len(), "stage")));
            let (which, first) = (which(several), quoted(several[0]));
            Err(failure.help(format!("{which}; `pipe logs {run} {first}` prints the log of one")))
        }
    }
}

/// Prints the log of one stage, as far as there is one.
struct Reader<'a> {
    globals: &'a Globals,
    db: &'a RunsDb,
    cache: &'a Cache,
    run: RunId,
    stage: &'a str,
    /// How many lines of what is printed first are wanted.
    tail: Option<usize>,
    /// The attempt that is printed as it goes on.
    followed: Option<Followed>,
    /// The last remark, which is not made twice.
    told: String,
}

/// An attempt that is printed as it goes on.
struct Followed {
    id: String,
    log: AttemptLog,
    /// Whether anything of it was printed.
    is_heard: bool,
}

impl Reader<'_> {
    /// Prints what was not printed yet; returns whether there may be more later.
    fn print(&mut self) -> Result<bool, Failure> {
        let Self { db, run, stage, .. } = *self;
        // Asked before the log is read: what a killed run has said is all there by then.
        let state = db.run(run)?.state;
        match (db.log(run, stage), db.latest_attempt(run, stage)?) {
            (Ok(log), latest) => {
                self.print_recorded(log, latest)?;
                return Ok(false);
            }
            (Err(RunsError::UnknownStage { .. }), Some(attempt)) => self.print_attempt(attempt, state)?,
            (Err(RunsError::UnknownStage { .. }), None) if has_stage(db, run, stage)? => {
                self.say(match state {
                    State::Running => format!("`{stage}` has not started in {run}"),
                    _ => format!("`{stage}` had not started when {run} was killed"),
                });
            }
            (Err(err), _) => return Err(err.into()),
        }
        Ok(state == State::Running)
    }

    fn print_attempt(&mut self, attempt: Attempt, state: State) -> Result<(), Failure> {
        let Self { run, stage, .. } = *self;
        let folder = self.cache.scratch(attempt.key).attempt(&attempt.id);
        let is_new = self.followed.as_ref().is_none_or(|followed| followed.id != attempt.id);
        match (state, folder.exists()) {
            (State::Running, _) if !is_new => {}
            (State::Running, true) => self.say(format!("`{stage}` is running in {run}")),
            (State::Running, false) => {
                self.say(format!("`{stage}` has just ended in {run} and is not recorded yet"));
            }
            (_, true) => {
                self.say(format!("{run} was killed while `{stage}` ran; this is what it had said"));
            }
            (_, false) => {
                self.say(format!(
                    "{run} was killed while `{stage}` ran, and what it had said was removed since"
                ));
            }
        }
        if is_new {
            self.print_rest()?;
            let log = AttemptLog::new(&folder);
            self.followed = Some(Followed { id: attempt.id, log, is_heard: false });
        }
        self.print_rest()
    }

    /// Prints what the followed attempt has said since.
    fn print_rest(&mut self) -> Result<(), Failure> {
        let Some(Followed { log, is_heard, .. }) = &mut self.followed else { return Ok(()) };
        let mut parts = iter::from_fn(|| Some(log.read()).filter(|part| !part.is_empty())).peekable();
        if parts.peek().is_none() {
            return Ok(());
        }
        *is_heard = true;
        match self.tail.take() {
            None => parts.try_for_each(|part| self.globals.print_bytes(part.as_slice())),
            Some(count) => {
                let add = |end: String, part: Vec<u8>| {
                    tail(&(end + &String::from_utf8_lossy(&part)), count).to_owned()
                };
                self.globals.print(parts.fold(String::new(), add))
            }
        }
    }

    /// Prints a log that is recorded, or its rest if the `latest` attempt was printed as it went on.
    fn print_recorded(&mut self, log: StageLog, latest: Option<Attempt>) -> Result<(), Failure> {
        let heard = self.followed.as_ref().filter(|followed| followed.is_heard);
        if heard.is_some_and(|heard| latest.is_some_and(|latest| latest.id == heard.id)) {
            return self.print_rest();
        }
        if let Some(remark) = remark(self.run, self.stage, &log) {
            self.say(remark);
        }
        let text = log.text.unwrap_or_default();
        let wanted = self.tail.map_or(text.as_str(), |count| tail(&text, count));
        // Of a character that was cut, the rest is left out, too.
        if wanted.len() + char::MAX.len_utf8() > LOG_KEPT {
            self.say(format!(
                "it begins in the middle: of a log the last {} are kept",
                size(LOG_KEPT as u64)
            ));
        }
        self.globals.print(wanted)
    }

    fn say(&mut self, remark: String) {
        if remark != self.told {
            self.globals.say(&remark);
            self.told = remark;
        }
    }
}

/// Whether `run` has a stage of this name, recorded or not.
fn has_stage(db: &RunsDb, run: RunId, stage: &str) -> Result<bool, RunsError> {
    Ok(db.stage_names(run)?.iter().any(|name| name == stage))
}

/// What is to be said of a recorded log: where it comes from, or why there is none.
fn remark(run: RunId, stage: &str, log: &StageLog) -> Option<String> {
    match (&log.text, &log.from, log.outcome) {
        (_, Some((from, name)), _) if name == stage => {
            Some(format!("`{stage}` was cached in {run}; this is its log in {from}"))
        }
        (_, Some((from, name)), _) => {
            Some(format!("`{stage}` was cached in {run}; this is the log of `{name}` in {from}"))
        }
        (None, None, _) => {
            Some(format!("`{stage}` was cached in {run} and computed elsewhere; its log is not here"))
        }
        (Some(text), None, Outcome::Skipped) if text.is_empty() => {
            Some(format!("`{stage}` did not run in {run}: a stage that it needs failed"))
        }
        (Some(text), None, _) if text.is_empty() => Some(format!("`{stage}` said nothing in {run}")),
        _ => None,
    }
}

/// The last `count` lines of `text`.
fn tail(text: &str, count: usize) -> &str {
    let lines = text.trim_end_matches('\n');
    match count.checked_sub(1) {
        None => "",
        Some(before) => lines.rmatch_indices('\n').nth(before).map_or(text, |(at, _)| &text[at + 1..]),
    }
}
