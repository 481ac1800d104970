//! `pipe gc`: gives back the space of results that nobody needs any more.

use std::{collections::BTreeSet, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{Failure, Globals, history, units};
use crate::{
    cache::{Cache, Hold, removal},
    digest::ActionKey,
    names::RunId,
    resources::Bytes,
    runs::{RunInfo, RunsDb, State},
};

/// Remove cached results that recent and tagged runs do not need
///
/// The history in `runs.db` is not touched: metrics, parameters, logs and predictions of every run
/// stay, and so does what `pipe compare` says of them. A result that is removed is computed again when
/// a run needs it. What killed runs left half-written goes as well; a checkpoint stays while a kept run
/// can go on from it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe gc -n                      what would go, and how much room it takes
  pipe gc --keep 3                keep what the last three runs and all tagged runs need
  pipe gc --max-size 20GB         remove the oldest until 20 GB are left")]
pub(super) struct Gc {
    /// Keep what the last N runs need; tagged runs are always kept
    #[arg(long, value_name = "N", default_value_t = 10)]
    keep: usize,
    /// Remove no more than needed to get down to this size, oldest results first
    #[arg(long, value_name = "SIZE")]
    max_size: Option<Bytes>,
    /// Say what would be removed, and remove nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Gc {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let root = globals.project_root(None)?;
        let database = RunsDb::open_existing(&root.join("runs.db"))?;
        let cache = Cache::open(&root.join("cache"));
        // What is kept is asked only when nobody else can change it any more.
        let _alone = if self.dry_run { None } else { Some(alone(&cache, Some(&database))?) };
        let kept = kept_runs(&database.runs(None)?, self.keep);
        let mut keys: BTreeSet<ActionKey> = BTreeSet::new();
        for run in &kept {
            keys.extend(database.load(*run)?.stages.iter().filter_map(|stage| stage.key));
            keys.extend(database.begun(*run)?);
        }
        let contents = cache.contents();
        // A killed run computed more than it recorded.
        keys.extend(
            contents.results.iter().filter(|result| kept.contains(&result.run)).map(|result| result.key),
        );
        let removal = removal(&contents, &keys, self.max_size.map(|size| size.0));

        if !self.dry_run {
            cache.remove(&removal).map_err(Failure::error)?;
        }
        let leftovers = cache.sweep(&keys, !self.dry_run).map_err(Failure::error)?;
        let (results, freed, left) = (removal.results.len(), removal.freed, removal.left);
        if self.json {
            let document = json!({
                "removed": !self.dry_run, "results": removal.results, "freed": freed, "left": left, "kept_runs": kept,
                "leftovers": leftovers.count, "leftover_bytes": leftovers.bytes,
            });
            globals.print(history::json_text(&document))?;
        } else {
            let verb = if self.dry_run { "would remove" } else { "removed" };
            let line = format!(
                "{verb} {}, {}; {} left, for {}\n",
                units::counted(results, "result"),
                units::size(freed),
                units::size(left),
                units::counted(kept.len(), "run"),
            );
            globals.print(line)?;
            if leftovers.count > 0 {
                let what = units::counted(leftovers.count, "leftover");
                globals.print(format!("{verb} {what} of killed runs, {}\n", units::size(leftovers.bytes)))?;
            }
        }
        if self.max_size.is_some_and(|size| left > size.0) {
            globals
                .say("note: the runs that are kept need more than --max-size; lower --keep or remove tags");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Keeps runs from starting; where one goes on already, the error names it.
pub(super) fn alone(cache: &Cache, database: Option<&RunsDb>) -> Result<Hold, Failure> {
    if let Some(hold) = cache.alone().map_err(Failure::error)? {
        return Ok(hold);
    }
    let runs = database.map_or(Ok(Vec::new()), |database| database.runs(None))?;
    let busy = runs.iter().find(|info| info.state == State::Running);
    let who = busy.map_or_else(|| "another `pipe`".into(), |info| info.run.to_string());
    Err(Failure::input(format!("{who} is running and may need what would be removed"))
        .exit(1)
        .help("wait until it has ended, or look with -n"))
}

/// The last `keep` runs and all that have a tag, latest first; `runs` are all, latest first.
fn kept_runs(runs: &[RunInfo], keep: usize) -> Vec<RunId> {
    let is_kept = |(place, info): &(usize, &RunInfo)| *place < keep || !info.tags.is_empty();
    runs.iter().enumerate().filter(is_kept).map(|(_, info)| info.run).collect()
}
