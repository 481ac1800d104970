//! Sets a damaged `runs.db` aside and goes on with what could be saved of it.

use std::path::Path;

use pipe_stages::contract::PortType;

use super::{Failure, Globals, units::counted};
use crate::{cache::Cache, runs::RunsDb};

/// Puts a new database in place of the damaged one at `path` and says what became of it.
pub(super) fn salvage(globals: &Globals, path: &Path) -> Result<(), Failure> {
    let root = path.parent().unwrap_or(Path::new("."));
    let cache = Cache::open(&root.join("cache"));
    let _alone = cache.alone().map_err(Failure::error)?.ok_or_else(|| {
        let message = format!("`{}` is damaged, and another `pipe` uses it", path.display());
        Failure::input(message)
            .exit(1)
            .help("repeat the command when that has ended; what can be read will be saved")
    })?;
    let highest = cache.executions().map(|execution| execution.run.0).max().unwrap_or_default();
    if let Some(salvaged) = RunsDb::salvage(path, highest)? {
        complete(path, &cache)?;
        let all = salvaged.saved + salvaged.lost;
        let incomplete = match salvaged.incomplete {
            0 => String::new(),
            count => format!(", {count} of them without all their stages"),
        };
        globals.say(format_args!(
            "`{}` was damaged: it is now `{}`, and {} of {} could be saved{incomplete}",
            path.display(),
            salvaged.aside.display(),
            salvaged.saved,
            counted(all, "run"),
        ));
    }
    Ok(())
}

/// Adds what the cache still knows of executions: outputs, metrics, predictions.
fn complete(path: &Path, cache: &Cache) -> Result<(), Failure> {
    let mut database = RunsDb::open(path)?;
    for execution in cache.executions() {
        database.record_execution(&execution)?;
        for output in execution.outputs.iter().filter(|output| output.port_type == PortType::Predictions) {
            if cache.flaw(output.digest).is_none()
                && let Ok(csv) = std::fs::read(cache.object(output.digest))
            {
                database.keep_predictions(output.digest, &csv)?;
            }
        }
    }
    Ok(())
}
