//! `pipe gc`: gives back the space of results that nobody needs any more.

use std::{collections::BTreeSet, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{Failure, Globals, history, units};
use crate::{
    cache::{Cache, removal},
    digest::ActionKey,
    names::RunId,
    resources::Bytes,
    runs::{RunInfo, RunsDb, State},
};

/// Remove cached results that recent and tagged runs do not need
///
/// The history in `runs.db` is not touched: metrics, parameters, logs and predictions of every run
/// stay, and so does what `pipe compare` says of them. A result that is removed is computed again when
/// a run needs it.
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
        let runs = database.runs(None)?;
        if let Some(busy) = runs.iter().find(|info| info.state == State::Running && !self.dry_run) {
            return Err(Failure::input(format!(
                "{} is running and may need what would be removed",
                busy.run
            ))
            .help("wait until it has ended, or look with -n"));
        }
        let kept = kept_runs(&runs, self.keep);
        let mut keys: BTreeSet<ActionKey> = BTreeSet::new();
        for run in &kept {
            keys.extend(database.load(*run)?.stages.iter().filter_map(|stage| stage.key));
        }
        let cache = Cache::open(&root.join("cache"));
        let removal = removal(&cache.contents(), &keys, self.max_size.map(|size| size.0));
        if !self.dry_run {
            cache.remove(&removal).map_err(|err| Failure::error(err).exit(1))?;
        }
        let (results, freed, left) = (removal.results.len(), removal.freed, removal.left);
        if self.json {
            let document = json!({
                "removed": !self.dry_run, "results": removal.results, "freed": freed, "left": left, "kept_runs": kept,
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
        }
        if self.max_size.is_some_and(|size| left > size.0) {
            globals
                .say("note: the runs that are kept need more than --max-size; lower --keep or remove tags");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The last `keep` runs and all that have a tag, latest first; `runs` are all, latest first.
fn kept_runs(runs: &[RunInfo], keep: usize) -> Vec<RunId> {
    let is_kept = |(place, info): &(usize, &RunInfo)| *place < keep || !info.tags.is_empty();
    runs.iter().enumerate().filter(is_kept).map(|(_, info)| info.run).collect()
}
